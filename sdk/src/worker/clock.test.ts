import { describe, expect, it, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { core, coreForEachTest, start, transport } from './testing/core.ts'
import { flow_slug, log } from './testing/memory-transport.ts'

coreForEachTest()

describe('A worker', () => {
  const flow = new Flow({ slug: flow_slug }).step('a', () => 1)
  const ticksWithin = async (ms: number) => {
    const before = transport.ticks.length
    await vi.advanceTimersByTimeAsync(ms)
    return transport.ticks.length - before
  }

  it('ticks at the time at which something is due, and looks for tasks then', async () => {
    transport.dueAt = [Date.now() + 12_345]
    start(flow)
    expect(await ticksWithin(12_344)).toBe(0)
    expect(await ticksWithin(1)).toBe(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(transport.claims.at(-1)!.at - transport.ticks[0]!).toBeLessThanOrEqual(1)
    expect(await ticksWithin(60_000)).toBe(0)
  })

  it('learns of an earlier time, and of none any more', async () => {
    transport.dueAt = [Date.now() + 50_000]
    start(flow)
    await vi.advanceTimersByTimeAsync(5_000)
    transport.dueAt.unshift(Date.now() + 2_000)
    expect(await ticksWithin(2_000)).toBe(1)
    transport.dueAt = []
    expect(await ticksWithin(100_000)).toBe(0)
  })

  it('asks when something is due twice a second at most, however busy it is', async () => {
    start(flow)
    for (let ms = 0; ms < 10_000; ms += 10) {
      transport.addTasks('a')
      core.wake()
      await vi.advanceTimersByTimeAsync(10)
    }
    const asked = transport.requests.filter(({ due }) => due).length
    expect(asked).toBeLessThanOrEqual(20)
    expect(asked).toBeGreaterThan(15)
  })

  it('asks with each poll while it is idle, so that it learns of what is due soon', async () => {
    start(flow)
    await vi.advanceTimersByTimeAsync(10_000)
    transport.requests.length = 0
    await vi.advanceTimersByTimeAsync(10_000)
    expect(transport.requests.length).toBeGreaterThan(5)
    expect(transport.requests.filter(({ due }) => !due)).toEqual([])
  })

  it('settles a batch after the other', async () => {
    transport.dueAt = Array.from({ length: 2_500 }, () => Date.now() + 1_000)
    start(flow)
    expect(await ticksWithin(1_005)).toBe(3)
  })

  it('pauses longer and longer where somebody holds what is due, or ticks fail', async () => {
    transport.dueAt = [Date.now()]
    transport.before.tick = () => true
    start(flow)
    const held = await ticksWithin(60_000)
    expect(held).toBeLessThan(30)
    expect(held).toBeGreaterThan(10)
    transport.before.tick = () => {
      throw new Error('no')
    }
    expect(await ticksWithin(60_000)).toBeLessThan(30)
    expect(log.warn).toHaveBeenCalledWith(
      'The worker cannot settle what is due and tries again',
      expect.anything(),
    )
    delete transport.before.tick
    await vi.advanceTimersByTimeAsync(10_000)
    expect(transport.dueAt).toEqual([])
  })
})
