import { expect, it } from 'vitest'
import { RateLimit } from './rate-limit.ts'

it('lets an idle project spend a minute at once, then nothing until the minute has passed', () => {
  const limit = new RateLimit()
  const admitted = Array.from({ length: 1300 }, () => limit.admits(5, 100, 0)).filter(Boolean)
  expect(admitted).toHaveLength(1201)
  expect(limit.admits(1, 100, 59_999)).toBe(false)
  expect(limit.admits(1, 100, 60_000)).toBe(true)
})

it('is never exceeded without a limit', () => {
  const limit = new RateLimit()
  expect(limit.admits(1_000_000, Number.POSITIVE_INFINITY, 0)).toBe(true)
  expect(limit.admits(1, Number.POSITIVE_INFINITY, 0)).toBe(true)
})
