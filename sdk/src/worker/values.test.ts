import { describe, expect, it, vi } from 'vitest'
import { databaseError } from './testing/memory-transport.ts'
import type { ValueRef } from './transport.ts'
import { Values } from './values.ts'

function ref(name: string, version = '1'): ValueRef {
  return { run_id: 'run', name, version }
}

/** Values of ten characters each. */
function values(limit = 1_000, signal: AbortSignal = new AbortController().signal) {
  const fetchValue = vi.fn(async ({ name, version }: ValueRef) =>
    JSON.stringify(`${name}${version}`.padEnd(8)),
  )
  const fetched = () => fetchValue.mock.calls.map(([{ name, version }]) => `${name}${version}`)
  return { values: new Values({ transport: { fetchValue }, limit, signal }), fetchValue, fetched }
}

describe('Values', () => {
  it('fetches a value once, also for many at the same time', async () => {
    const { values: cache, fetched } = values()
    const got = await Promise.all([1, 2, 3].map(() => cache.get(ref('a'))))
    expect(got.map((value) => value.copy())).toEqual(['a1      ', 'a1      ', 'a1      '])
    await cache.get(ref('a'))
    expect(fetched()).toEqual(['a1'])
  })

  it('fetches another version, step or run apart', async () => {
    const { values: cache, fetchValue } = values()
    for (const other of [ref('a'), ref('a', '2'), ref('b'), { ...ref('a'), run_id: 'other' }])
      await cache.get(other)
    expect(fetchValue).toHaveBeenCalledTimes(4)
  })

  it('keeps as much as its limit; what was not used for longest goes', async () => {
    const { values: cache, fetched } = values(30)
    for (const name of ['a', 'b', 'c', 'a', 'd', 'a', 'c', 'b']) await cache.get(ref(name))
    expect(fetched()).toEqual(['a1', 'b1', 'c1', 'd1', 'b1'])
  })

  it('keeps nothing that is larger than its limit', async () => {
    const { values: cache, fetched } = values(9)
    await cache.get(ref('a'))
    await cache.get(ref('a'))
    expect(fetched()).toEqual(['a1', 'a1'])
  })

  it('gives copies that may be changed, and one frozen value for all', async () => {
    const fetchValue = async () => '{"list":[{"n":1}]}'
    const { signal } = new AbortController()
    const value = await new Values({ transport: { fetchValue }, limit: 1_000, signal }).get(ref('a'))
    const [one, two] = [value.copy(), value.copy()] as { list: { n: number }[] }[]
    one!.list[0]!.n = 2
    expect(two).toEqual({ list: [{ n: 1 }] })
    expect(value.frozen()).toBe(value.frozen())
    expect(() => (value.frozen() as { list: unknown[] }).list.push(1)).toThrow(TypeError)
  })

  it('does not keep a failure', async () => {
    const { values: cache, fetchValue } = values()
    fetchValue.mockRejectedValueOnce(databaseError('PT404', 'the value "a" of run … is gone'))
    await expect(cache.get(ref('a'))).rejects.toThrow('is gone')
    expect((await cache.get(ref('a'))).copy()).toBe('a1      ')
  })

  it('tries again what may succeed later, until its worker has to end', async () => {
    const end = new AbortController()
    const { values: cache, fetchValue } = values(1_000, end.signal)
    const lost = databaseError('08006', 'connection failure')
    fetchValue.mockRejectedValueOnce(lost)
    await cache.get(ref('a'))
    expect(fetchValue).toHaveBeenCalledTimes(2)

    fetchValue.mockRejectedValue(lost)
    const failing = cache.get(ref('b'))
    end.abort()
    await expect(failing).rejects.toBe(lost)
  })
})
