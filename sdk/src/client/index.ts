export type { Json } from '../flow/index.ts'
export { PgflowClient, type StartOptions } from './client.ts'
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
export type { Run, RunStep } from './run.ts'
export type { SupabaseLike } from './supabase.ts'
export type {
  EventOfType,
  RunEvent,
  RunEventType,
  RunSnapshot,
  RunStatus,
  StepEvent,
  StepEventType,
  StepSlug,
  StepState,
  StepStates,
  StepStatus,
} from './types.ts'
export type { WaitOptions } from './wait.ts'
