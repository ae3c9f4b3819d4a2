import { describe, expect, it } from 'vitest'
import { describeError, summaryOf } from './error-description.ts'
import { toJson } from './json.ts'

function cycle(): object {
  const value: { self?: object } = {}
  value.self = value
  return value
}

describe('describeError', () => {
  it('takes name, message and stack from an error', () => {
    const error = new RangeError('too far')
    expect(describeError(error)).toEqual({ name: 'RangeError', message: 'too far', stack: error.stack })
  })

  it('takes them from an object like an error too', () => {
    expect(describeError({ message: 'no rows', code: 'PGRST116' })).toEqual({
      name: 'Error',
      message: 'no rows',
      code: 'PGRST116',
    })
  })

  it.each<[unknown, string]>([
    ['a string', 'a string'],
    [undefined, 'undefined was thrown'],
    [null, 'null was thrown'],
    [0, '0 was thrown'],
    [1n, '1 was thrown'],
    [Symbol('s'), 'Symbol(s) was thrown'],
    [() => 1, 'A function was thrown'],
    [{ code: 7 }, 'An object was thrown: {"code":7}'],
    [cycle(), 'An object was thrown: it is not JSON'],
    ['', 'An empty string was thrown'],
    [new Error(''), 'Error without a message'],
  ])('%s', (thrown, message) => {
    expect(describeError(thrown)).toMatchObject({ name: 'Error', message })
  })

  it('never throws', () => {
    const hostile = () => {
      throw new Error('trap')
    }
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    const values: unknown[] = [
      new Proxy({}, { get: hostile, ownKeys: hostile, getPrototypeOf: hostile, has: hostile }),
      new Proxy(new Error('x'), { get: hostile }),
      proxy,
      Object.create(null),
      { toString: hostile, valueOf: hostile, toJSON: hostile, [Symbol.toPrimitive]: hostile },
      Object.defineProperties(new Error('x'), {
        stack: { get: hostile },
        message: { get: hostile },
        name: { get: hostile },
      }),
      { message: { toString: hostile }, name: 5, stack: [] },
      { message: cycle() },
      Object.assign(() => 1, { toString: hostile }),
    ]
    for (const value of values) {
      const { name, message } = describeError(value)
      expect([typeof name, typeof message]).toEqual(['string', 'string'])
      expect(message).not.toBe('')
    }
  })

  it('gives text that Postgres can store, of at most 8,000 characters', () => {
    const error = Object.assign(new Error(`a\0b\uD800c${'x'.repeat(1_000_000)}`), { name: 'N\0' })
    const described = describeError(error)
    expect(described.name).toBe('N\uFFFD')
    expect(described.message).toMatch(/^a\uFFFDb\uFFFDcx+…$/)
    expect(described.message).toHaveLength(8_000)
    expect(described.stack).toHaveLength(8_000)
    expect(toJson(described)).toBe(JSON.stringify(described))
  })

  it('does not leave half a pair where it cuts', () => {
    expect(describeError('😀'.repeat(5_000)).message).toMatch(/\uFFFD…$|😀…$/)
    expect(() => toJson(describeError(`x${'😀'.repeat(5_000)}`))).not.toThrow()
  })

  it('keeps causes, and the errors of an AggregateError, with their codes', () => {
    const refused = (address: string) =>
      Object.assign(new Error(`connect ECONNREFUSED ${address}`), { code: 'ECONNREFUSED' })
    const all = Object.assign(new AggregateError([refused('::1:1'), refused('127.0.0.1:1')]), {
      code: 'ECONNREFUSED',
    })
    const described = describeError(new TypeError('fetch failed', { cause: all }))
    expect(described).toMatchObject({
      name: 'TypeError',
      message: 'fetch failed',
      cause: {
        name: 'AggregateError',
        message: 'ECONNREFUSED',
        code: 'ECONNREFUSED',
        errors: [
          { message: 'connect ECONNREFUSED ::1:1', code: 'ECONNREFUSED', stack: expect.any(String) },
          { message: 'connect ECONNREFUSED 127.0.0.1:1' },
        ],
      },
    })
    expect(summaryOf(described)).toBe(
      'fetch failed: ECONNREFUSED: connect ECONNREFUSED ::1:1; connect ECONNREFUSED 127.0.0.1:1',
    )
  })

  it('ends at a cycle of causes', () => {
    const inner = new Error('inner')
    const outer = new Error('outer', { cause: inner })
    inner.cause = outer
    const described = describeError(outer)
    expect(described).toMatchObject({ message: 'outer', cause: { message: 'inner' } })
    expect(described.cause).not.toHaveProperty('cause')
    const own = new AggregateError([], 'all')
    own.errors.push(own)
    expect(describeError(own).errors).toEqual([])
  })

  it('keeps ten inner errors at most, each of a bounded size', () => {
    const long = Array.from(
      { length: 1_000 },
      () => new Error('x'.repeat(100_000), { cause: 'y'.repeat(100_000) }),
    )
    const described = describeError(new AggregateError(long, 'many'))
    expect(JSON.stringify(described).length).toBeLessThan(40_000)
    expect(described.errors).toHaveLength(5)
    expect(summaryOf(described).length).toBeLessThan(1_100)
  })

  it('does not throw at causes that cannot be read', () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(describeError(new Error('outer', { cause: proxy }))).toMatchObject({
      message: 'outer',
      cause: { message: 'An object was thrown: it is not JSON' },
    })
  })
})

describe('summaryOf', () => {
  it('does not repeat what the message says already', () => {
    const cause = new Error('it is full')
    expect(summaryOf(describeError(new Error('cannot write: it is full', { cause })))).toBe(
      'cannot write: it is full',
    )
    expect(summaryOf(describeError(new Error('alone')))).toBe('alone')
  })

  it('has at most 8,000 characters', () => {
    const described = describeError(new Error('x'.repeat(8_000), { cause: new Error('y') }))
    expect(summaryOf(described)).toHaveLength(8_000)
  })
})
