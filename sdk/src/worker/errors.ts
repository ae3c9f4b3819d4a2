import { nameErrors, PgflowError } from '../shared/errors.ts'

/** The reason of `context.signal` when the result is not needed any more: the run was cancelled or failed, or the step was skipped. */
export class CancelledError extends PgflowError {
  static {
    nameErrors(CancelledError, 'CancelledError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('cancelled', message, options)
  }
}

/** The reason of `context.signal` when another attempt has the task, because this one's lease was not extended in time. */
export class LeaseLostError extends PgflowError {
  static {
    nameErrors(LeaseLostError, 'LeaseLostError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('lease_lost', message, options)
  }
}

/** The reason of `context.signal` when the worker stops and its grace period is over. The task is run again at once. */
export class WorkerStoppedError extends PgflowError {
  static {
    nameErrors(WorkerStoppedError, 'WorkerStoppedError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('worker_stopped', message, options)
  }
}

/** The worker cannot start; the message says what to do, the cause is the database's error. */
export class WorkerStartError extends PgflowError {
  static {
    nameErrors(WorkerStartError, 'WorkerStartError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('worker_not_started', message, options)
  }
}

/** The worker stopped by itself, since the database refused its calls for a minute; the message says what to do. */
export class WorkerFailedError extends PgflowError {
  static {
    nameErrors(WorkerFailedError, 'WorkerFailedError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('worker_failed', message, options)
  }
}
