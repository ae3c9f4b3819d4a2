import { describe, expect, it, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { core, coreForEachTest, start, transport } from './testing/core.ts'
import { databaseError, flow_slug, gate, log } from './testing/memory-transport.ts'

coreForEachTest()

describe('An idle worker', () => {
  const flow = new Flow({ slug: flow_slug }).step('a', () => 1)

  it.each([
    [true, 2_000],
    [false, 10_000],
  ])('makes one query a second at most; it can listen: %s', async (canListen, afterStart) => {
    transport.canListen = canListen
    start(flow)
    await vi.advanceTimersByTimeAsync(afterStart)
    const before = transport.calls
    await vi.advanceTimersByTimeAsync(100_000)
    expect(transport.calls - before).toBeGreaterThan(90)
    expect(transport.calls - before).toBeLessThanOrEqual(100)
  })

  it('asks to be notified from its second empty poll on, and not while it has work', async () => {
    const held = gate()
    start(
      new Flow({ slug: flow_slug }).step('held', () => held.promise),
      { concurrency: 1 },
    )
    await vi.advanceTimersByTimeAsync(5_000)
    const waiting = transport.requests.map((request) => request.waiting)
    expect(waiting.slice(0, 2)).toEqual([false, true])
    expect(waiting.slice(1)).not.toContain(false)

    transport.addTasks('held')
    transport.tell!(flow_slug)
    await vi.advanceTimersByTimeAsync(5)
    const before = transport.requests.length
    held.open(1)
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.requests[before]!.waiting).toBe(false)
  })

  it('does not ask for it where it cannot listen', async () => {
    transport.canListen = false
    start(flow)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(transport.requests.filter(({ waiting }) => waiting)).toEqual([])
  })

  it.each([200, 1_000, 5_000])(
    'that is not notified finds a task soon that comes %i ms after the last one',
    async (ms) => {
      transport.canListen = false
      start(flow)
      await vi.advanceTimersByTimeAsync(10_000)
      transport.addTasks('a')
      core.wake()
      await vi.advanceTimersByTimeAsync(ms)
      transport.addTasks('a')
      await vi.advanceTimersByTimeAsync(20 + 0.15 * ms)
      expect(transport.queue).toEqual([])
    },
  )

  it('looks for work at once when it is notified, but not each time when that is often', async () => {
    start(flow)
    await vi.advanceTimersByTimeAsync(10_500)
    const before = transport.requests.length
    for (let ms = 0; ms < 1_000; ms++) {
      transport.tell!(flow_slug)
      await vi.advanceTimersByTimeAsync(1)
      if (ms === 4) expect(transport.requests.length - before).toBe(5)
    }
    expect(transport.requests.length - before).toBeLessThanOrEqual(112)
    expect(transport.requests.length - before).toBeGreaterThan(90)
  })

  it('looks for work when it is told of tasks of its flows, or of any', async () => {
    start(flow)
    await vi.advanceTimersByTimeAsync(10_500)
    const looks = async (told: string | undefined) => {
      const before = transport.requests.length
      transport.tell!(told)
      await vi.advanceTimersByTimeAsync(1)
      return transport.requests.length - before
    }
    expect(await looks('another')).toBe(0)
    expect(await looks(flow_slug)).toBe(1)
    expect(await looks(undefined)).toBe(1)
  })

  it('polls where listening fails, and says so', async () => {
    transport.listen = () => Promise.reject(databaseError('53300', 'too many connections'))
    start(flow)
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(10)
    expect(transport.outcomes).toEqual(['1'])
    expect(log.warn).toHaveBeenCalledWith(expect.stringContaining('polls instead'), expect.anything())
  })
})

describe('Results', () => {
  const instant = new Flow({ slug: flow_slug }).step('a', () => 1).step('slow', () => gate().promise)

  const finish: (() => void)[] = []
  const one = new Flow({ slug: flow_slug })
    .step('a', () => new Promise<number>((resolve) => finish.push(() => resolve(1))))
    .step('slow', () => gate().promise)

  it('wait for others while other tasks run and batches are frequent, but not for long', async () => {
    start(one, { settleDelay: 0.05, concurrency: 100 })
    transport.addTasks('slow', ...Array.from({ length: 40 }, () => 'a'))
    await vi.advanceTimersByTimeAsync(5)
    // One after the other, each as soon as the one before is settled.
    for (let batches = 1; batches <= 10; batches++) {
      finish.pop()!()
      await vi.advanceTimersByTimeAsync(1)
      expect(transport.batches, 'at once').toHaveLength(batches)
    }
    await vi.advanceTimersByTimeAsync(30)
    finish.pop()!()
    await vi.advanceTimersByTimeAsync(1)
    expect(transport.batches).toHaveLength(11)
    for (const end of finish.splice(0, 5)) {
      end()
      await vi.advanceTimersByTimeAsync(1)
    }
    expect(transport.batches).toHaveLength(11)
    await vi.advanceTimersByTimeAsync(50)
    expect(transport.batches.slice(11).map(({ length }) => length)).toEqual([5])
    await vi.advanceTimersByTimeAsync(1_000)
    finish.pop()!()
    await vi.advanceTimersByTimeAsync(1)
    expect(transport.batches, 'at once again').toHaveLength(13)
  })

  it('do not wait when nothing else runs, nor when they are many', async () => {
    start(instant, { settleDelay: 50, concurrency: 8 })
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.batches).toHaveLength(1)
    transport.addTasks('slow', 'a', 'a')
    core.wake()
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.batches).toHaveLength(2)
    transport.addTasks('a')
    core.wake()
    await vi.advanceTimersByTimeAsync(40_000)
    expect(transport.batches, 'a poll takes along what is ready').toHaveLength(3)
  })

  it('are settled in batches of a bounded size, in the calls that claim the next tasks', async () => {
    start(instant, { settleBatch: 3, concurrency: 6 })
    transport.addTasks(...Array.from({ length: 12 }, () => 'a'))
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.requests.map(({ results, quantity }) => [results.length, quantity])).toEqual([
      [0, 6],
      [3, 3],
      [3, 3],
      [3, 3],
      [3, 6],
    ])
  })

  it('that are large delay no others', async () => {
    const sent = gate()
    start(new Flow({ slug: flow_slug }).step('large', () => 'x'.repeat(1_000_001)).step('small', () => 1))
    transport.before.settle = (results) =>
      results.some(({ step_slug }) => step_slug === 'large') ? sent.promise : null
    transport.addTasks('large', 'large', 'small', 'small')
    await vi.advanceTimersByTimeAsync(50)
    expect(transport.settled.map(({ step_slug }) => step_slug)).toEqual(['small', 'small'])
    const requests = () => transport.requests.filter(({ apart }) => apart)
    expect(requests()).toMatchObject([{ results: [{ step_slug: 'large' }], quantity: 0 }])
    sent.open(undefined)
    await vi.advanceTimersByTimeAsync(50)
    expect(requests()).toHaveLength(2)
    expect(transport.settled).toHaveLength(4)
    const stopped = vi.fn()
    void core.stop(10).then(stopped)
    await vi.advanceTimersByTimeAsync(50)
    expect(stopped).toHaveBeenCalled()
  })

  it('that are large are sent again when a call fails, and refused ones are failed attempts', async () => {
    start(new Flow({ slug: flow_slug }).step('large', () => 'x'.repeat(1_000_001)))
    const failures = [databaseError('ECONNRESET', 'reset'), databaseError('54000', 'too large')]
    transport.before.settle = () => {
      const failure = failures.shift()
      if (failure) throw failure
    }
    transport.addTasks('large')
    await vi.advanceTimersByTimeAsync(5_000)
    expect(transport.settled).toMatchObject([{ error: expect.stringContaining('too large') }])
  })

  it('are settled though the claim that came with them is refused', async () => {
    const handler = vi.fn(() => 'done')
    start(new Flow({ slug: flow_slug }).step('a', handler))
    transport.addTasks('a')
    let claims = 0
    transport.before.claim = () => {
      if (claims++ > 0) throw databaseError('42P01', 'relation "pgmq.q_flow" does not exist')
    }
    await vi.advanceTimersByTimeAsync(2_000)
    expect(transport.settled).toEqual([expect.objectContaining({ outputJson: '"done"' })])
    expect(handler).toHaveBeenCalledTimes(1)
    expect(claims).toBeGreaterThan(2)
  })
})

describe('Progress', () => {
  it('goes out at once, then the latest of each task once a second, and not after its end', async () => {
    const [one, two] = [gate(), gate()]
    const report: ((value: number, data?: unknown) => void)[] = []
    let started = 0
    start(
      new Flow({ slug: flow_slug }).step('a', (_, { progress }) => {
        report.push(progress)
        return [one, two][started++]!.promise
      }),
    )
    transport.addTasks('a', 'a')
    await vi.advanceTimersByTimeAsync(5)
    report[0]!(0.1)
    report[0]!(0.2)
    report[1]!(0.3, { page: 1 })
    report[0]!(0.4)
    expect(transport.reports.map((reports) => reports.map(({ progress }) => progress))).toEqual([
      [{ value: 0.1 }],
    ])
    await vi.advanceTimersByTimeAsync(1_000)
    expect(transport.reports[1]).toEqual([
      { run_id: 'run 0', step_slug: 'a', task_index: 0, attempt: 1, progress: { value: 0.4 } },
      {
        run_id: 'run 1',
        step_slug: 'a',
        task_index: 0,
        attempt: 1,
        progress: { value: 0.3, data: { page: 1 } },
      },
    ])
    await vi.advanceTimersByTimeAsync(5_000)
    report[0]!(0.5)
    report[0]!(0.6)
    one.open(1)
    await vi.advanceTimersByTimeAsync(5_000)
    report[0]!(0.7)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(transport.reports.slice(2).map((reports) => reports.map(({ progress }) => progress))).toEqual([
      [{ value: 0.5 }],
    ])
    two.open(1)
  })

  it('of many tasks is sent in calls of a bounded size', async () => {
    const running = gate()
    const flow = new Flow({ slug: flow_slug }).step('a', (_, { progress }) => {
      progress(1, 'x'.repeat(16_000))
      return running.promise
    })
    start(flow, { concurrency: 100 })
    transport.addTasks(...Array.from({ length: 100 }, () => 'a'))
    await vi.advanceTimersByTimeAsync(3_000)
    for (const reports of transport.reports) expect(JSON.stringify(reports).length).toBeLessThan(1_100_000)
    expect(transport.reports.flat()).toHaveLength(100)
    running.open(1)
  })

  it('that could not be sent is sent again, unless there is newer', async () => {
    const running = gate()
    let report: (value: number) => void = () => {}
    start(
      new Flow({ slug: flow_slug }).step('a', (_, { progress }) => {
        report = progress
        return running.promise
      }),
    )
    transport.addTasks('a')
    let failures = 2
    transport.before.report = () => {
      if (failures-- > 0) throw databaseError('08006', 'connection failure')
    }
    await vi.advanceTimersByTimeAsync(5)
    report(1)
    await vi.advanceTimersByTimeAsync(500)
    report(2)
    await vi.advanceTimersByTimeAsync(5_000)
    expect(transport.reports.flat().map(({ progress }) => progress.value)).toEqual([1, 2, 2])
    running.open(1)
  })

  it.each([
    ['a value that is no number', Number.NaN, undefined, 'progress got NaN'],
    ['data that is not JSON', 1, { at: 1n }, '$.at is a bigint'],
    ['too much data', 1, 'x'.repeat(20_000), 'progress got data of 20002 characters'],
  ])('with %s is a mistake of the handler', async (_, value, data, message) => {
    start(new Flow({ slug: flow_slug }).step('a', (_, { progress }) => progress(value, data)))
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.outcomes).toEqual([expect.stringContaining(message)])
    expect(transport.reports).toEqual([])
  })
})
