import { type Duration, secondsOf } from '../shared/duration.ts'

/** The headers of a response, in any library. */
export interface ResponseHeaders {
  get(name: string): unknown
}

/** A response of `fetch`, of axios, of Node's `http`, or of another library: headers have lower-case names or a `get`. */
export interface ResponseLike {
  readonly headers: ResponseHeaders | Readonly<Record<string, unknown>>
}

/** When another attempt makes sense: a duration, a time, or what a server answered. */
export type RetryTime = Duration | Date | ResponseHeaders | ResponseLike

/** In the order in which they count: the standard header first, then those that tell when a rate limit is reset. */
const headerNames = [
  'retry-after',
  'ratelimit-reset',
  'x-ratelimit-retry-after',
  'x-ratelimit-reset',
  'x-rate-limit-reset',
]

/**
 * Numbers from here on are no delays, but times since 1970: in seconds (this one is in 2001), or in milliseconds (this
 * one is in 1973; in seconds it would be in the year 5138).
 */
const firstEpochSeconds = 1e9
const firstEpochMilliseconds = 1e11

/**
 * Seconds until the time that `when` names, 0 if it has passed; `undefined` if headers do not name one.
 *
 * @param now milliseconds since 1970
 * @throws RangeError if it is neither a duration nor a valid date
 *
 * @example
 * secondsUntil(new Headers({ 'retry-after': '120' }), Date.now()) // 120
 */
export function secondsUntil(when: RetryTime, now: number): number | undefined {
  if (when instanceof Date) return secondsBetween(now, when.getTime())
  if (typeof when === 'object' && when !== null)
    return secondsIn('headers' in when ? when.headers : when, now)
  return secondsOf(when)
}

function secondsIn(headers: ResponseLike['headers'], now: number): number | undefined {
  const milliseconds = positiveNumber(textOf(headers, 'retry-after-ms'))
  if (milliseconds !== undefined) return milliseconds / 1000
  for (const name of headerNames) {
    const seconds = secondsFrom(textOf(headers, name), now)
    if (seconds !== undefined) return seconds
  }
  return undefined
}

function textOf(headers: ResponseLike['headers'], name: string): string | undefined {
  const value = hasGet(headers) ? headers.get(name) : headers?.[name]
  return typeof value === 'string' || typeof value === 'number' ? String(value).trim() : undefined
}

function hasGet(headers: ResponseLike['headers']): headers is ResponseHeaders {
  return typeof headers?.get === 'function'
}

/** A header is a number, a duration such as `1.5s`, or a date. */
function secondsFrom(text: string | undefined, now: number): number | undefined {
  const number = positiveNumber(text)
  if (number !== undefined) {
    if (number >= firstEpochMilliseconds) return secondsBetween(now, number)
    if (number >= firstEpochSeconds) return secondsBetween(now, number * 1000)
    return number
  }
  // A date has letters or colons: `Date.parse('-1')` is a year.
  if (text === undefined || !/[a-z:]/i.test(text)) return undefined
  return secondsOf(text) ?? secondsBetween(now, Date.parse(text))
}

function positiveNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined
}

function secondsBetween(now: number, then: number): number | undefined {
  return Number.isNaN(then) ? undefined : Math.max(0, then - now) / 1000
}
