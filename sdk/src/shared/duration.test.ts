import { expect, it } from 'vitest'
import { secondsOf } from './duration.ts'

it.each([
  [0, 0],
  [90, 90],
  [0.5, 0.5],
  [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
  ['250ms', 0.25],
  ['70ms', 0.07],
  ['90s', 90],
  ['5m', 300],
  ['1.5h', 5400],
  ['3d', 259_200],
])('%s is %d seconds', (duration, seconds) => {
  expect(secondsOf(duration)).toBe(seconds)
})

it.each([
  -1,
  Number.NaN,
  '',
  '5',
  '5 m',
  '-5m',
  '5M',
  '1e3s',
  'soon',
  '5mm',
  '.5s',
  null,
  undefined,
  {},
  ['5m'],
])('%s is no duration', (value) => {
  expect(secondsOf(value)).toBeUndefined()
})
