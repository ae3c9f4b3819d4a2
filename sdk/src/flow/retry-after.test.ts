import { describe, expect, it, vi } from 'vitest'
import { RetryAfterError } from './index.ts'
import { secondsUntil } from './retry-after.ts'

const now = Date.UTC(2030, 0, 1)
const inTwoMinutes = now + 120_000

describe('The time of the next attempt', () => {
  it.each<[Record<string, string>, number | undefined]>([
    [{ 'retry-after': '120' }, 120],
    [{ 'retry-after': ' 1.5 ' }, 1.5],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': new Date(inTwoMinutes).toUTCString() }, 120],
    [{ 'retry-after': 'Tue, 01 Jan 2019 00:00:00 GMT' }, 0],
    [{ 'retry-after': String(inTwoMinutes / 1000) }, 120],
    [{ 'retry-after-ms': '250', 'retry-after': '1' }, 0.25],
    [{ 'ratelimit-reset': '30' }, 30],
    [{ 'x-ratelimit-reset': String(inTwoMinutes / 1000) }, 120],
    [{ 'x-ratelimit-reset': String(inTwoMinutes) }, 120],
    [{ 'x-ratelimit-reset': '2030-01-01T00:02:00Z' }, 120],
    [{ 'x-ratelimit-reset': '1s' }, 1],
    [{ 'x-ratelimit-retry-after': '7' }, 7],
    [{ 'x-rate-limit-reset': '9' }, 9],
    [{ 'x-ratelimit-reset': '60', 'retry-after': '5' }, 5],
    [{ 'retry-after': 'soon', 'x-ratelimit-reset': '60' }, 60],
    [{ 'retry-after': '-1' }, undefined],
    [{ 'retry-after': '' }, undefined],
    [{ 'retry-after-ms': 'NaN' }, undefined],
    [{}, undefined],
  ])('of headers %o is in %s s', (headers, seconds) => {
    expect(secondsUntil(new Headers(headers), now)).toBe(seconds)
    expect(secondsUntil(new Response(null, { status: 429, headers }), now)).toBe(seconds)
  })

  it('is read from the headers of Node and of axios too', () => {
    expect(secondsUntil({ headers: { 'retry-after': '7' } }, now)).toBe(7)
    expect(secondsUntil({ headers: { get: (name) => (name === 'retry-after' ? 7 : null) } }, now)).toBe(7)
    expect(secondsUntil({ headers: undefined } as never, now)).toBeUndefined()
  })

  it.each([
    [new Date(inTwoMinutes), 120],
    [new Date(now - 1), 0],
    [90, 90],
    ['5m' as const, 300],
  ])('of %s is in %d s', (when, seconds) => expect(secondsUntil(when, now)).toBe(seconds))
})

describe('RetryAfterError', () => {
  it('takes a duration, a date or a response', () => {
    vi.useFakeTimers({ now })
    try {
      expect(new RetryAfterError('2m').seconds).toBe(120)
      expect(new RetryAfterError(new Date(inTwoMinutes)).seconds).toBe(120)
      const response = new Response(null, {
        headers: { 'retry-after': new Date(inTwoMinutes).toUTCString() },
      })
      expect(new RetryAfterError(response)).toMatchObject({ seconds: 120, message: 'Try again after 120 s' })
    } finally {
      vi.useRealTimers()
    }
  })

  it('has a default for a response that does not say when', () => {
    expect(new RetryAfterError(new Response()).seconds).toBe(30)
    expect(new RetryAfterError(new Response(), 'busy', { default: '5m' }).seconds).toBe(300)
  })

  it('keeps its message and its cause, and counts as an attempt unless told otherwise', () => {
    const cause = new Error('429')
    expect(new RetryAfterError(1, 'busy', { cause })).toMatchObject({
      message: 'busy',
      cause,
      countsAsAttempt: true,
    })
    expect(new RetryAfterError(1, undefined, { countsAsAttempt: false }).countsAsAttempt).toBe(false)
    expect('cause' in new RetryAfterError(1)).toBe(false)
  })

  it.each([
    Number.NaN,
    Number.POSITIVE_INFINITY,
    -1,
    'soon' as never,
    '120' as never,
    new Date(Number.NaN),
    null as never,
    undefined as never,
  ])('refuses %s', (when) => {
    expect(() => new RetryAfterError(when)).toThrow(/^RetryAfterError got .+: give it seconds as a number/)
  })

  it('refuses a default that is no duration', () => {
    expect(() => new RetryAfterError(new Response(), 'busy', { default: 'soon' as never })).toThrow(
      'RetryAfterError got the default soon',
    )
  })
})
