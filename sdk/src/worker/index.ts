export type { Context, Log } from '../flow/context.ts'
export type { RetryAfterOptions } from '../flow/errors.ts'
export { NonRetryableError, RetryAfterError } from '../flow/errors.ts'
export type { OnceMethods, TransactionMethods } from '../flow/once-types.ts'
export type { Duration } from '../shared/duration.ts'
export { PgflowError, TimeoutError } from '../shared/errors.ts'
export {
  CancelledError,
  LeaseLostError,
  WorkerFailedError,
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
export type { SignalOptions } from './signals.ts'
export { stopOnSignals } from './signals.ts'
export type { StopOptions, Worker } from './start.ts'
export { startWorker } from './start.ts'
export type { WebhookAnswer, WebhookHandlerOptions } from './webhooks/handler.ts'
export { webhookHandler } from './webhooks/handler.ts'
export type { WebhookSettings } from './webhooks/settings.ts'
export { webhooksFrom } from './webhooks/settings.ts'
