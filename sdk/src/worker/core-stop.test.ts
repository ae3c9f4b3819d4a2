import { describe, expect, it, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { WorkerStoppedError } from './errors.ts'
import { core, coreForEachTest, start, transport } from './testing/core.ts'
import { databaseError, flow_slug, gate } from './testing/memory-transport.ts'

coreForEachTest()

describe('Core.stop', () => {
  it('stops when what runs is settled, and claims nothing meanwhile', async () => {
    const running = gate()
    start(new Flow({ slug: flow_slug }).step('running', () => running.promise))
    transport.addTasks('running')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(25).then(stopped)
    transport.addTasks('running')
    await vi.advanceTimersByTimeAsync(14_000)
    expect(stopped).not.toHaveBeenCalled()
    expect(transport.extended).toHaveLength(2)
    running.open('done')
    await vi.advanceTimersByTimeAsync(5)
    expect(stopped).toHaveBeenCalled()
    expect(transport.outcomes).toEqual(['"done"'])
    expect(transport.queue).toHaveLength(1)
  })

  it('aborts what still runs after the grace period, and leaves it to other workers', async () => {
    const reasons: unknown[] = []
    const stubborn = new Flow({ slug: flow_slug }).step('stubborn', (_, { signal }) => {
      signal.addEventListener('abort', () => reasons.push(signal.reason))
      return gate().promise
    })
    start(stubborn)
    transport.addTasks('stubborn', 'stubborn')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(20).then(stopped)
    await vi.advanceTimersByTimeAsync(19_000)
    expect(reasons).toEqual([])
    await vi.advanceTimersByTimeAsync(1_000)
    expect(reasons).toEqual([expect.any(WorkerStoppedError), expect.any(WorkerStoppedError)])
    expect(stopped).toHaveBeenCalled()
    expect(transport.batches).toEqual([])
  })

  it('ends sooner when it is told so, even if the database does not answer', async () => {
    start(new Flow({ slug: flow_slug }).step('a', () => 1))
    transport.before.settle = () => gate().promise
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(1_000).then(stopped)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(stopped).not.toHaveBeenCalled()
    void core.stop(0)
    await vi.advanceTimersByTimeAsync(2_100)
    expect(stopped).toHaveBeenCalled()
  })

  it('does not start what it is given after the grace period', async () => {
    const handler = vi.fn(() => 1)
    const claiming = gate()
    start(new Flow({ slug: flow_slug }).step('a', handler))
    transport.before.claim = () => claiming.promise
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(1).then(stopped)
    await vi.advanceTimersByTimeAsync(1_100)
    claiming.open(undefined)
    await vi.advanceTimersByTimeAsync(5)
    expect(stopped).toHaveBeenCalled()
    expect(transport.queue).toEqual([])
    expect(handler).not.toHaveBeenCalled()
  })

  it('hands back what still runs after the grace period, and settles what is ready', async () => {
    const ready = gate()
    start(
      new Flow({ slug: flow_slug }).step('ready', () => ready.promise).step('stubborn', () => gate().promise),
    )
    transport.addTasks('ready', 'stubborn', 'stubborn')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(20).then(stopped)
    await vi.advanceTimersByTimeAsync(19_999)
    expect(transport.returned).toEqual([])
    ready.open('ready')
    await vi.advanceTimersByTimeAsync(20)
    expect(transport.returned.map(({ run_id }) => run_id)).toEqual(['run 1', 'run 2'])
    expect(transport.outcomes).toEqual(['"ready"'])
    expect(stopped).toHaveBeenCalled()
  })

  it('hands back at once what a claim gives it meanwhile', async () => {
    const handler = vi.fn()
    const claiming = gate()
    start(new Flow({ slug: flow_slug }).step('a', handler))
    transport.before.claim = () => claiming.promise
    transport.addTasks('a', 'a')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(25).then(stopped)
    claiming.open(undefined)
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.returned).toHaveLength(2)
    expect(handler).not.toHaveBeenCalled()
    expect(stopped).toHaveBeenCalled()
  })

  it.each<[string, () => unknown]>([
    ['fails', () => Promise.reject(databaseError('08006', 'connection failure'))],
    ['does not answer', () => gate().promise],
  ])('ends though handing back %s', async (_, handBack) => {
    start(new Flow({ slug: flow_slug }).step('stubborn', () => gate().promise))
    transport.before.handBack = handBack
    transport.addTasks('stubborn')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(1).then(stopped)
    await vi.advanceTimersByTimeAsync(3_100)
    expect(stopped).toHaveBeenCalled()
  })

  it('does not wait for the end of a pause after a failed poll', async () => {
    start(new Flow({ slug: flow_slug }).step('a', () => 1))
    transport.before.claim = () => {
      throw databaseError('ECONNREFUSED', 'connect ECONNREFUSED')
    }
    await vi.advanceTimersByTimeAsync(60_000)
    const stopped = vi.fn()
    void core.stop(25).then(stopped)
    await vi.advanceTimersByTimeAsync(5)
    expect(stopped).toHaveBeenCalled()
  })
})
