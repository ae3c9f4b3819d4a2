export type { Context, Log } from '../flow/context.ts'
export type { WorkerErrorCode } from './errors.ts'
export {
  CancelledError,
  LeaseLostError,
  NonRetryableError,
  RetryAfterError,
  TimeoutError,
  WorkerError,
  WorkerStartError,
  WorkerStoppedError,
} from './errors.ts'
export type {
  DatabaseConnection,
  ProjectConnection,
  ResourcesOfAll,
  WorkerConnection,
  WorkerOptions,
  WorkerSettings,
} from './options.ts'
export { projectFrom } from './project.ts'
export type { ServeAnswer, ServeOptions } from './serve.ts'
export { serveWorker } from './serve.ts'
export { stopOnSignals } from './signals.ts'
export type { StopOptions, Worker } from './start.ts'
export { startWorker } from './start.ts'
