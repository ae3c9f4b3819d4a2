export type { Json } from '../flow/index.ts'
export type { ListOptions, RunPage, StartManyOptions, StartOptions } from './client.ts'
export { PgflowClient } from './client.ts'
export {
  ConflictError,
  ForbiddenError,
  InvalidInputError,
  NotFoundError,
  PgflowError,
  RunCancelledError,
  RunFailedError,
  TimeoutError,
} from './errors.ts'
export type { AnyFlows, FlowName, FlowOf, RunOf, RunRowOf, SlugOf } from './flows.ts'
export type { Run, RunStep } from './run.ts'
export type { SupabaseLike } from './supabase.ts'
export type {
  Actor,
  EventOfType,
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
} from './types.ts'
export type { EventsOptions, WaitOptions } from './wait.ts'
