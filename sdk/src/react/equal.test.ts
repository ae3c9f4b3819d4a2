import { expect, it } from 'vitest'
import { isEqual } from './equal.ts'

const date = new Date()

it.each<[unknown, unknown]>([
  [1, 1],
  [Number.NaN, Number.NaN],
  [null, null],
  [[], []],
  [{ a: [1, { b: 'c' }] }, { a: [1, { b: 'c' }] }],
  [
    { a: 1, b: 2 },
    { b: 2, a: 1 },
  ],
  [date, date],
])('%j equals %j', (a, b) => expect(isEqual(a, b)).toBe(true))

it.each<[unknown, unknown]>([
  [1, '1'],
  [null, undefined],
  [null, {}],
  [[], {}],
  [[1], [1, 2]],
  [{ a: 1 }, { a: 1, b: undefined }],
  [{ a: undefined }, { b: undefined }],
  [{ a: [1, { b: 'c' }] }, { a: [1, { b: 'd' }] }],
  [date, new Date(date)],
])('%j does not equal %j', (a, b) => expect(isEqual(a, b)).toBe(false))
