import { type Duration, durationForms, secondsOf } from '../shared/duration.ts'
import { nameErrors, PgflowError } from '../shared/errors.ts'
import { type RetryTime, secondsUntil } from './retry-after.ts'

/** Why a flow cannot be defined. */
export type FlowDefinitionErrorCode =
  | 'invalid_slug'
  | 'duplicate_flow'
  | 'duplicate_step'
  | 'unknown_dep'
  | 'duplicate_dep'
  | 'invalid_option'
  | 'invalid_handler'

/** The definition of a flow is invalid; the message says what to do. */
export class FlowDefinitionError extends PgflowError {
  static {
    nameErrors(FlowDefinitionError, 'FlowDefinitionError')
  }

  declare readonly code: FlowDefinitionErrorCode

  constructor(code: FlowDefinitionErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** A value is not JSON. `path` says which part of it: `$` is the value itself, `$.a[3].b` lies inside. */
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
 * Thrown by a handler: the step fails without further attempts.
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

/** Options of `RetryAfterError`. */
export interface RetryAfterOptions extends ErrorOptions {
  /** The delay if the headers of the response do not say one. @default '30s' */
  readonly default?: Duration
  /** Whether the failed attempt counts against `maxAttempts`. If not, only the step's `deadline` bounds how often it is repeated. @default true */
  readonly countsAsAttempt?: boolean
}

/**
 * Thrown by a handler to set the time of the next attempt: after a duration, at a `Date`, or as the headers of a `Response`
 * say: `retry-after-ms`, `retry-after` (seconds or a date), and the headers of rate limits
 * (`ratelimit-reset`, `x-ratelimit-reset`, `x-rate-limit-reset`: a delay in seconds, or a time in seconds or milliseconds
 * since 1970). The longest delay is a year.
 *
 * @throws RangeError if it gets neither a finite duration nor a valid date
 *
 * @example
 * if (response.status === 429) throw new RetryAfterError(response)
 * @example
 * throw new RetryAfterError('5m', 'The provider is being upgraded', { countsAsAttempt: false })
 */
export class RetryAfterError extends PgflowError {
  static {
    nameErrors(RetryAfterError, 'RetryAfterError')
  }

  /** The delay before the next attempt, in seconds. */
  readonly seconds: number
  /** Whether the failed attempt counts against `maxAttempts`. */
  readonly countsAsAttempt: boolean

  constructor(when: RetryTime, message?: string, options: RetryAfterOptions = {}) {
    const seconds = delayOf(when, options.default)
    super(
      'retry_after',
      message ?? `Try again after ${seconds} s`,
      options.cause === undefined ? {} : { cause: options.cause },
    )
    this.seconds = seconds
    this.countsAsAttempt = options.countsAsAttempt ?? true
  }
}

function delayOf(when: RetryTime, fallback: Duration = '30s'): number {
  const isAnswer = typeof when === 'object' && when !== null && !(when instanceof Date)
  const seconds = secondsUntil(when, Date.now()) ?? (isAnswer ? secondsOf(fallback) : undefined)
  if (seconds !== undefined && Number.isFinite(seconds)) return seconds
  const given = isAnswer ? `the default ${String(fallback)}` : String(when)
  throw new RangeError(`RetryAfterError got ${given}: give it ${durationForms}, a valid Date, or a Response`)
}
