import { describe, expect, it, vi } from 'vitest'
import { NotJsonError, toJson } from './index.ts'

function refusal(value: unknown): NotJsonError {
  try {
    toJson(value)
  } catch (error) {
    expect(error).toBeInstanceOf(NotJsonError)
    return error as NotJsonError
  }
  throw new Error('the value was accepted')
}

function cycle(): Record<string, unknown> {
  const value: Record<string, unknown> = { list: [] }
  ;(value.list as unknown[]).push({ back: value })
  return value
}

function nested(levels: number): unknown {
  let value: unknown = 1
  for (let level = 0; level < levels; level++) value = [value]
  return value
}

describe('toJson gives what JSON.stringify gives', () => {
  const shared = { n: 1 }
  it.each<[string, unknown]>([
    ['null', null],
    ['false', false],
    ['zero', 0],
    ['minus zero', -0],
    ['an empty string', ''],
    ['numbers', [1, -1.5, 1e300, 5e-324, 2 ** 53]],
    ['strings with quotes, escapes and line separators', '"\\\n\u0001\u2028'],
    ['characters beyond the basic plane', '😀 \u{10FFFF}'],
    ['text that looks like JSON', ['123', '{"a":1}', 'null']],
    ['an empty array', []],
    ['an empty object', {}],
    ['nested values', { a: [{ b: { c: [true, null] } }] }],
    ['the key __proto__', JSON.parse('{"__proto__":{"a":1},"constructor":2}')],
    ['an object without a prototype', Object.assign(Object.create(null), { a: 1 })],
    ['undefined properties, which are left out', { a: undefined, b: 1 }],
    ['symbol keys, which are left out', { [Symbol('s')]: 1, b: 1 }],
    ['a date', new Date(0)],
    ['a date inside', { at: new Date(1e12) }],
    ['a URL', { url: new URL('https://example.com/a?b=c') }],
    ['toJSON that gives undefined for a property', { a: { toJSON: () => undefined }, b: 1 }],
    [
      'toJSON that is told its key',
      { a: { toJSON: (key: string) => key }, list: [{ toJSON: (key: string) => key }] },
    ],
    ['toJSON that gives an object with a date', { toJSON: () => ({ at: new Date(0) }) }],
    ['a function with toJSON', Object.assign(() => 1, { toJSON: () => 'f' })],
    ['boxed primitives', [Object(1), Object('a'), Object(false)]],
    ['the same object twice', [shared, shared, { shared }]],
    [
      'own properties of a class',
      new (class {
        a = 1
        b() {
          return 2
        }
      })(),
    ],
    ['a buffer', Buffer.from('ab')],
  ])('%s', (_, value) => {
    expect(toJson(value)).toBe(JSON.stringify(value))
  })

  it('calls toJSON once', () => {
    let calls = 0
    toJson({ a: { toJSON: () => ++calls } })
    expect(calls).toBe(1)
  })

  it('stores nothing as null', () => {
    expect(toJson(undefined)).toBe('null')
    expect(toJson({ toJSON: () => undefined })).toBe('null')
  })
})

describe('toJson refuses, with the path,', () => {
  it.each<[string, unknown, string, RegExp]>([
    ['a function', () => 1, '$', /is a function/],
    ['a symbol', Symbol('s'), '$', /is a symbol/],
    ['a nested function', { a: [0, 1, 2, { b: () => 1 }] }, '$.a[3].b', /is a function/],
    ['a bigint', { n: 1n }, '$.n', /is a bigint/],
    ['a boxed bigint', { n: Object(1n) }, '$.n', /is a bigint/],
    ['NaN', [Number.NaN], '$[0]', /is NaN/],
    ['an invalid date', { at: new Date(Number.NaN) }, '$.at', /is an invalid Date/],
    ['an infinite number', { a: { b: Number.NEGATIVE_INFINITY } }, '$.a.b', /is -Infinity/],
    ['a boxed NaN', Object(Number.NaN), '$', /is NaN/],
    ['NUL in a string', ['a', 'b\0'], '$[1]', /NUL/],
    ['half a surrogate pair', { text: 'x\uD800y' }, '$.text', /surrogate/],
    ['halves in the wrong order', '\uDC00\uD800', '$', /surrogate/],
    ['NUL in a key', { 'a\0': 1 }, '$["a\uFFFD"]', /has a key with a NUL/],
    ['half a surrogate pair in a key', { a: { '\uDFFF': 1 } }, '$.a["\uFFFD"]', /has a key with/],
    ['undefined in an array', { list: [1, undefined] }, '$.list[1]', /is undefined/],
    ['a hole in an array', new Array(1), '$[0]', /is undefined/],
    ['toJSON that gives undefined in an array', [{ toJSON: () => undefined }], '$[0]', /is undefined/],
    ['toJSON that gives a bigint', { a: { toJSON: () => 1n } }, '$.a', /bigint/],
    ['a map', { a: new Map([[1, 2]]) }, '$.a', /is a Map/],
    ['a set', new Set([1]), '$', /is a Set/],
    ['a promise that was not awaited', { a: Promise.resolve(1) }, '$.a', /await it/],
    ['an error', { error: new TypeError('x') }, '$.error', /is an Error/],
    ['a regular expression', { a: /x/ }, '$.a', /is a RegExp/],
    ['bytes', { a: new Uint8Array(2) }, '$.a', /is a Uint8Array/],
    ['a cycle', cycle(), '$.list[0].back', /contains itself/],
    ['keys that are no names', { 'a b': { '': () => 1 } }, '$["a b"][""]', /function/],
  ])('%s', (_, value, path, reason) => {
    const error = refusal(value)
    expect(error.path).toBe(path)
    expect(error.message.startsWith(`${path} `)).toBe(true)
    expect(error.message).toMatch(reason)
    expect(error.code).toBe('not_json')
  })

  it('what cannot be read, with its cause', () => {
    const cause = new Error('no')
    const thrower = {
      get b() {
        throw cause
      },
    }
    expect(refusal({ a: thrower })).toMatchObject({ path: '$.a.b', cause })
    expect(
      refusal([
        {
          toJSON: () => {
            throw cause
          },
        },
      ]),
    ).toMatchObject({ path: '$[0]', cause })
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(refusal({ proxy }).path).toBe('$.proxy')
  })

  it('what is nested too deeply, however deeply', () => {
    expect(toJson(nested(1000))).toBe(JSON.stringify(nested(1000)))
    expect(refusal(nested(1001)).message).toMatch(/more than 1000 levels deep/)
    expect(refusal(nested(1_000_000)).message.length).toBeLessThan(8_000)
    const endless = { toJSON: () => ({ again: endless }) }
    expect(refusal(endless).message).toMatch(/levels deep/)
  })
})

describe('A limit', () => {
  it.each<[unknown, number]>([
    ['é', 4],
    [['a', 'b'], 9],
    [{ a: 1 }, 7],
    [[1, 2, null], 10],
  ])('%j has %d bytes', (value, bytes) => {
    expect(toJson(value, bytes)).toBe(JSON.stringify(value))
    expect(() => toJson(value, bytes - 1)).toThrow(`$ is more than ${bytes - 1} bytes of JSON`)
  })

  it('is noticed long before all is written', () => {
    const reads = vi.fn(() => 'x'.repeat(1_000))
    const item = Object.defineProperty({}, 'text', { enumerable: true, get: reads })
    expect(() => toJson(Array(100_000).fill(item), 2 ** 20)).toThrow('$ is more than 1 MB of JSON')
    expect(reads.mock.calls.length).toBeLessThan(1_100)
  })
})
