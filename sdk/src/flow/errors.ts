import { type Duration, durationForms, secondsOf } from '../shared/duration.ts'
import { nameErrors, PgflowError } from '../shared/errors.ts'

/** Why a flow cannot be defined. */
export type FlowDefinitionErrorCode =
  | 'invalid_slug'
  | 'duplicate_step'
  | 'unknown_dep'
  | 'duplicate_dep'
  | 'invalid_option'
  | 'invalid_handler'

/** A flow was defined in a way that cannot work; the message says what to do. */
export class FlowDefinitionError extends PgflowError {
  static {
    nameErrors(FlowDefinitionError, 'FlowDefinitionError')
  }

  declare readonly code: FlowDefinitionErrorCode

  constructor(code: FlowDefinitionErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** A value cannot be stored as JSON. `path` says which part of it: `$` is the value itself, `$.a[3].b` lies inside. */
export class NotJsonError extends PgflowError {
  static {
    nameErrors(NotJsonError, 'NotJsonError')
  }

  declare readonly code: 'not_json'
  readonly path: string

  constructor(path: string, reason: string, options?: ErrorOptions) {
    super('not_json', `${path} ${reason}`, options)
    this.path = path
  }
}

/**
 * A handler throws it when another attempt would fail too: the step fails at once.
 *
 * @example
 * if (response.status === 404) throw new NonRetryableError(`There is no page at ${url}`)
 */
export class NonRetryableError extends PgflowError {
  static {
    nameErrors(NonRetryableError, 'NonRetryableError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('non_retryable', message, options)
  }
}

/**
 * A handler throws it to say when the next attempt makes sense. It counts as an attempt.
 *
 * @throws RangeError if the delay is no duration
 *
 * @example
 * throw new RetryAfterError('5m', 'The provider is being upgraded')
 */
export class RetryAfterError extends PgflowError {
  static {
    nameErrors(RetryAfterError, 'RetryAfterError')
  }

  /** Until the next attempt. */
  readonly seconds: number

  constructor(delay: Duration, message = `Try again after ${delay}`, options?: ErrorOptions) {
    super('retry_after', message, options)
    const seconds = secondsOf(delay)
    if (seconds === undefined || !Number.isFinite(seconds)) {
      throw new RangeError(`RetryAfterError got ${delay}: give it ${durationForms}`)
    }
    this.seconds = seconds
  }
}
