import { type Duration, durationForms, secondsOf } from '../shared/duration.ts'
import { nameErrors, PgflowError } from '../shared/errors.ts'
import { type RetryTime, secondsUntil } from './retry-after.ts'

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

/** What a `RetryAfterError` may say besides. */
export interface RetryAfterOptions extends ErrorOptions {
  /** Until the next attempt, where the headers of a response do not say it. @default '30s' */
  readonly default?: Duration
  /** Whether the failed attempt counts against `maxAttempts`. @default true */
  readonly countsAsAttempt?: boolean
}

/**
 * A handler throws it to say when the next attempt makes sense: after a duration, at a `Date`, or when a `Response` (or
 * its `Headers`) says so: `retry-after-ms`, `retry-after` (seconds or a date), and the headers of rate limits
 * (`ratelimit-reset`, `x-ratelimit-reset`, `x-rate-limit-reset`: a delay in seconds, or a time in seconds or milliseconds
 * since 1970). The engine waits for a year at most.
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

  /** Until the next attempt. */
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
