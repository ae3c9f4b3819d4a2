export type { Json } from '../flow/index.ts'
export type { Duration } from '../shared/duration.ts'
export { PgflowError, type PgflowErrorOptions, TimeoutError } from '../shared/errors.ts'
export type {
  ClientOptions,
  ListOptions,
  ListWaitsOptions,
  RunPage,
  StartManyOptions,
  StartOptions,
} from './client.ts'
export { PgflowClient } from './client.ts'
export type { RequestOptions } from './connection.ts'
export {
  ConflictError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  RunCancelledError,
  RunFailedError,
} from './errors.ts'
export type { AnyFlows, FlowName, FlowOf, FlowsOf, RunOf, RunRowOf, SlugOf } from './flows.ts'
export type { EventsOptions } from './iterate.ts'
export type { ListChildrenOptions, WaitKey } from './lists.ts'
export type { CancelOptions, LiveRun, Run, RunStep } from './run.ts'
export type { SupabaseLike } from './supabase.ts'
export type {
  Actor,
  ChildRow,
  ChildRows,
  EventOfType,
  Priority,
  RunEvent,
  RunEventType,
  RunRow,
  RunSnapshot,
  RunStatus,
  StepEvent,
  StepEventType,
  StepSlug,
  StepState,
  StepStates,
  StepStatus,
  WaitRow,
} from './types.ts'
export type { WaitOptions } from './wait.ts'
