export type WorkerErrorCode =
  | 'non_retryable'
  | 'retry_after'
  | 'timeout'
  | 'cancelled'
  | 'lease_lost'
  | 'worker_stopped'
  | 'worker_not_started'

/** What all errors of the worker have in common. */
export abstract class WorkerError extends Error {
  abstract readonly code: WorkerErrorCode
}

/**
 * A handler throws it when another attempt would fail too: the step fails at once.
 *
 * @example
 * if (response.status === 404) throw new NonRetryableError(`There is no page at ${url}`)
 */
export class NonRetryableError extends WorkerError {
  override readonly name: string = 'NonRetryableError'
  override readonly code = 'non_retryable'
}

/**
 * A handler throws it to say when the next attempt makes sense. It counts as an attempt.
 *
 * @throws RangeError if the seconds are not a finite number, 0 or more
 *
 * @example
 * if (response.status === 429) throw new RetryAfterError(Number(response.headers.get('retry-after')))
 */
export class RetryAfterError extends WorkerError {
  override readonly name: string = 'RetryAfterError'
  override readonly code = 'retry_after'
  readonly seconds: number

  constructor(seconds: number, message = `Try again after ${seconds} s`, options?: ErrorOptions) {
    super(message, options)
    if (!Number.isFinite(seconds) || seconds < 0) {
      throw new RangeError(`RetryAfterError got ${seconds}: give it seconds, 0 or more`)
    }
    this.seconds = seconds
  }
}

/** The reason of `context.signal` when the step's timeout is over. The attempt has failed by then. */
export class TimeoutError extends WorkerError {
  override readonly name = 'TimeoutError'
  override readonly code = 'timeout'
}

/** The reason of `context.signal` when nobody needs the result any more: the run was cancelled or failed, or the step was skipped. */
export class CancelledError extends WorkerError {
  override readonly name = 'CancelledError'
  override readonly code = 'cancelled'
}

/** The reason of `context.signal` when another attempt has the task: the database had not heard of this one for too long. */
export class LeaseLostError extends WorkerError {
  override readonly name = 'LeaseLostError'
  override readonly code = 'lease_lost'
}

/** The reason of `context.signal` when the worker stops and its grace period is over. The task is run again at once. */
export class WorkerStoppedError extends WorkerError {
  override readonly name = 'WorkerStoppedError'
  override readonly code = 'worker_stopped'
}

/** The worker cannot start; the message says what to do, the cause is the database's error. */
export class WorkerStartError extends WorkerError {
  override readonly name = 'WorkerStartError'
  override readonly code = 'worker_not_started'
}
