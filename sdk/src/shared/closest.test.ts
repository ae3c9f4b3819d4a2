import { expect, it } from 'vitest'
import { closest } from './closest.ts'

const names = ['concurrency', 'connection', 'lease', 'log', 'settleDelay', 'sql']

it.each([
  ['concurency', 'concurrency'],
  ['Concurrency', 'concurrency'],
  ['leese', 'lease'],
  ['logs', 'log'],
  ['settleDelayMs', 'settleDelay'],
  ['pool', undefined],
  ['x', undefined],
])('%s may mean %s', (name, meant) => expect(closest(name, names)).toBe(meant))

it('knows none of no names', () => expect(closest('a', [])).toBeUndefined())
