import { describe, expect, it, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { schemaVersion } from '../shared/schema-version.ts'
import { CancelledError, LeaseLostError } from './errors.ts'
import { idOf } from './tasks.ts'
import { core, coreForEachTest, start, transport } from './testing/core.ts'
import { databaseError, flow_slug, gate, log } from './testing/memory-transport.ts'

coreForEachTest()

describe('Core', () => {
  it('refills each slot as it gets free, whatever the others do', async () => {
    const slow = gate()
    start(
      new Flow({ slug: flow_slug }).step('slow', () => slow.promise).step('quick', () => 1),
      { concurrency: 2 },
    )
    transport.addTasks('slow', 'quick', 'quick', 'quick')
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.queue).toEqual([])
    expect(transport.outcomes).toEqual(['1', '1', '1'])
    expect(Math.max(...transport.claims.map(({ quantity }) => quantity))).toBe(2)
    slow.open('end')
  })

  it('claims no more than its free slots, and nothing while there are none', async () => {
    const held = gate()
    start(
      new Flow({ slug: flow_slug }).step('held', () => held.promise),
      { concurrency: 3 },
    )
    transport.addTasks('held', 'held', 'held', 'held')
    await vi.advanceTimersByTimeAsync(60_000)
    expect(transport.claims.map(({ quantity }) => quantity)).toEqual([3])
    held.open(0)
  })

  it('polls less and less while idle, once a second in the end', async () => {
    start(new Flow({ slug: flow_slug }).step('a', () => 1))
    await vi.advanceTimersByTimeAsync(10_000)
    const times = transport.claims.map(({ at }) => at - transport.claims[0]!.at)
    expect(times.slice(0, 7)).toEqual([0, 20, 60, 140, 300, 620, 1260].map((at) => expect.closeTo(at, -1.5)))
    expect(times.length).toBeLessThanOrEqual(17)
  })

  it('looks for work at once when it is woken, and polls quickly after a result', async () => {
    const last = gate()
    start(new Flow({ slug: flow_slug }).step('a', () => 1).step('last', () => last.promise))
    transport.addTasks('last')
    await vi.advanceTimersByTimeAsync(10_000)
    transport.addTasks('a')
    const before = transport.claims.length
    core.wake()
    await vi.advanceTimersByTimeAsync(1)
    expect(transport.claims.length).toBeGreaterThan(before)
    await vi.advanceTimersByTimeAsync(10)
    expect(transport.outcomes).toEqual(['1'])

    await vi.advanceTimersByTimeAsync(10_000)
    const idle = transport.claims.length
    last.open(2)
    await vi.advanceTimersByTimeAsync(30)
    expect(transport.outcomes).toEqual(['1', '2'])
    expect(transport.claims.length - idle).toBeGreaterThanOrEqual(2)
  })

  it('settles in one call what is ready together, and what comes meanwhile in the next', async () => {
    const settling = gate()
    const late = [gate(), gate()]
    let started = 0
    start(new Flow({ slug: flow_slug }).step('a', () => 'now').step('late', () => late[started++]!.promise))
    transport.before.settle = () => settling.promise
    transport.addTasks('a', 'a', 'late', 'late', 'a')
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.batches.map((batch) => batch.length)).toEqual([3])
    for (const { open } of late) open('late')
    await vi.advanceTimersByTimeAsync(5)
    settling.open(undefined)
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.batches.map((batch) => batch.length)).toEqual([3, 2])
  })

  it.each([
    databaseError('ECONNRESET', 'read ECONNRESET'),
    databaseError('CONNECTION_CLOSED', 'write CONNECTION_CLOSED'),
    databaseError('40P01', 'deadlock detected'),
    databaseError('40001', 'could not serialize access'),
    databaseError('57P01', 'terminating connection due to administrator command'),
  ])('settles again, and does not run again, what a call could not settle: $message', async (error) => {
    const handler = vi.fn(() => 1)
    start(new Flow({ slug: flow_slug }).step('a', handler))
    let failures = 3
    transport.before.settle = () => {
      if (failures-- > 0) throw error
    }
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(5_000)
    expect(transport.outcomes).toEqual(['1', '1', '1', '1'])
    expect(handler).toHaveBeenCalledTimes(1)
    expect(log.error).toHaveBeenCalledTimes(3)
  })

  it('settles the others when the database refuses one result, which becomes a failed attempt', async () => {
    start(new Flow({ slug: flow_slug }).step('good', () => 'good').step('bad', () => 'bad'))
    transport.before.settle = (results) => {
      if (results.some((result) => 'outputJson' in result && result.outputJson === '"bad"')) {
        throw databaseError('22P05', 'unsupported Unicode escape sequence')
      }
    }
    transport.addTasks('good', 'good', 'bad', 'good', 'good')
    await vi.advanceTimersByTimeAsync(100)
    expect(transport.settled.filter((result) => 'outputJson' in result)).toHaveLength(4)
    expect(transport.settled.filter((result) => 'error' in result)).toEqual([
      expect.objectContaining({
        step_slug: 'bad',
        error: 'step "bad" failed: the database refused its output: unsupported Unicode escape sequence',
      }),
    ])
  })

  it('settles what it can while a run is locked, and sends that run’s result again', async () => {
    start(
      new Flow({ slug: flow_slug }).step('a', () => 1),
      { concurrency: 2 },
    )
    transport.locked.add('run 0')
    transport.addTasks('a', 'a', 'a', 'a')
    await vi.advanceTimersByTimeAsync(20_000)
    expect(transport.settled.map(({ run_id }) => run_id)).toEqual(['run 1', 'run 2', 'run 3'])
    // Its lease is kept, and it takes no slot: both are free.
    expect(transport.extended.at(-1)).toEqual([expect.objectContaining({ run_id: 'run 0' })])
    expect(transport.claims.at(-1)?.quantity).toBe(2)
    expect(transport.batches.flat().length).toBeLessThan(40)
    transport.locked.clear()
    await vi.advanceTimersByTimeAsync(1_000)
    expect(transport.settled.at(-1)).toMatchObject({ run_id: 'run 0', outputJson: '1' })
    expect(log.info).not.toHaveBeenCalled()
  })

  it('reports again the progress that a locked run did not take', async () => {
    const held = gate()
    start(
      new Flow({ slug: flow_slug }).step('a', (_, { progress }) => {
        progress(0.5)
        return held.promise
      }),
    )
    transport.locked.add('run 0')
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(500)
    transport.locked.clear()
    await vi.advanceTimersByTimeAsync(5_000)
    expect(transport.reports).toHaveLength(2)
    expect(transport.reports[1]).toEqual(transport.reports[0])
    held.open(0)
  })

  it('gives up a result that can be settled in no way, and goes on', async () => {
    start(new Flow({ slug: flow_slug }).step('good', () => 'good').step('bad', () => 'bad'))
    transport.before.settle = (results) => {
      if (results.some(({ step_slug }) => step_slug === 'bad')) throw databaseError('P0001', 'not today')
    }
    transport.addTasks('bad', 'good')
    await vi.advanceTimersByTimeAsync(11_000)
    expect(transport.batches.at(-1)).toEqual([expect.objectContaining({ step_slug: 'bad' })])
    expect(log.error).toHaveBeenCalledWith(expect.stringContaining('cannot be settled'), expect.anything())
    expect(transport.extended).toEqual([])
    transport.addTasks('good')
    await vi.advanceTimersByTimeAsync(1_100)
    expect(transport.outcomes.at(-1)).toBe('"good"')
  })

  it('polls with pauses when claims fail, and goes on when they succeed again', async () => {
    start(new Flow({ slug: flow_slug }).step('a', () => 1))
    transport.before.claim = () => {
      throw databaseError('ECONNREFUSED', 'connect ECONNREFUSED')
    }
    await vi.advanceTimersByTimeAsync(60_000)
    expect(transport.claims.length).toBeLessThan(35)
    expect(log.error).toHaveBeenCalledTimes(transport.claims.length)
    transport.before = {}
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(6_000)
    expect(transport.outcomes).toEqual(['1'])
  })

  it('extends the leases of what runs and of what is not settled yet', async () => {
    const running = gate()
    start(new Flow({ slug: flow_slug }).step('running', () => running.promise).step('done', () => 1))
    transport.before.settle = () => {
      throw databaseError('53300', 'too many connections')
    }
    transport.addTasks('running', 'done')
    await vi.advanceTimersByTimeAsync(35_000)
    expect(transport.extended).toHaveLength(7)
    for (const tasks of transport.extended) {
      expect(tasks.map(({ step_slug }) => step_slug)).toEqual(['running', 'done'])
    }
    running.open(1)
  })

  it('tries again soon when it cannot extend its leases', async () => {
    const running = gate()
    start(new Flow({ slug: flow_slug }).step('running', () => running.promise))
    let failures = 2
    transport.before.extend = () => {
      if (failures-- > 0) throw databaseError('08006', 'connection failure')
    }
    transport.addTasks('running')
    await vi.advanceTimersByTimeAsync(6_000)
    expect(transport.extended).toHaveLength(3)
    running.open(1)
  })

  it.each([
    ['another attempt has', null, LeaseLostError],
    ['was given back', 'queued', LeaseLostError],
    ['was cancelled', 'cancelled', CancelledError],
    ['was skipped', 'skipped', CancelledError],
    ['was settled by hand', 'completed', CancelledError],
  ])('aborts the handler of a task that %s, and drops its result', async (_, status, reason) => {
    const seen = gate()
    const lost = new Flow({ slug: flow_slug }).step('lost', (_, { signal }) => {
      signal.addEventListener('abort', () => seen.open(signal.reason))
      return seen.promise.then(() => 'too late')
    })
    start(lost, { concurrency: 1 })
    transport.addTasks('lost')
    transport.closed.set(idOf(transport.queue[0]!), status)
    await vi.advanceTimersByTimeAsync(10_100)
    expect(await seen.promise).toBeInstanceOf(reason)
    expect(transport.batches).toEqual([])
    expect(transport.claims.length).toBeGreaterThan(1)
  })

  it('fails a task of a step that it does not know, for good, and goes on', async () => {
    start(new Flow({ slug: flow_slug }).step('a', () => 1))
    transport.addTasks('b', 'a')
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.batches.flat()).toEqual([
      expect.objectContaining({
        step_slug: 'b',
        permanent: true,
        error: expect.stringContaining('step "b"'),
      }),
      expect.objectContaining({ step_slug: 'a', outputJson: '1' }),
    ])
  })
})

it('The thread that extends leases is told what is held, and when nothing is', async () => {
  const thread = { works: true, add: vi.fn(), replace: vi.fn(), clear: vi.fn() }
  const running = gate()
  start(
    new Flow({ slug: flow_slug }).step('a', () => running.promise),
    { thread },
  )
  transport.addTasks('a')
  await vi.advanceTimersByTimeAsync(5)
  const task = expect.objectContaining({ step_slug: 'a', attempt: 1 })
  expect(thread.add).toHaveBeenCalledExactlyOnceWith([task], [task], expect.any(Number))
  await vi.advanceTimersByTimeAsync(5_000)
  expect(thread.replace).toHaveBeenCalledExactlyOnceWith([task], expect.any(Number))
  expect(thread.clear).not.toHaveBeenCalled()
  running.open('end')
  await vi.advanceTimersByTimeAsync(5_000)
  expect(thread.clear).toHaveBeenCalledTimes(1)
})

describe('A database whose schema does not fit', () => {
  const refusal = databaseError('3F000', 'schema "pgflow" does not exist')

  it('is said at once and each time; a minute later the worker gives up', async () => {
    const ended = vi.fn()
    start(new Flow({ slug: flow_slug }).step('a', () => 1))
    core.ended().catch(ended)
    transport.version = undefined
    transport.before.claim = () => {
      throw refusal
    }
    await vi.advanceTimersByTimeAsync(1_100)
    expect(log.error).toHaveBeenCalledWith(expect.stringContaining('refuses'), {
      error: expect.objectContaining({
        message: expect.stringContaining('supabase db push'),
        cause: refusal,
      }),
      seconds: expect.any(Number),
    })
    await vi.advanceTimersByTimeAsync(58_000)
    expect(log.error.mock.calls.length).toBeLessThan(35)
    expect(ended).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(8_000)
    expect(ended).toHaveBeenCalledWith(
      expect.objectContaining({
        name: 'WorkerFailedError',
        message: expect.stringContaining('supabase db push'),
      }),
    )
  })

  it('loses no result while it is being migrated', async () => {
    const handler = vi.fn(() => 'done')
    start(new Flow({ slug: flow_slug }).step('a', handler))
    transport.version = undefined
    transport.before.settle = () => {
      throw refusal
    }
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(30_000)
    transport.version = schemaVersion
    transport.before = {}
    await vi.advanceTimersByTimeAsync(6_000)
    expect(transport.settled).toMatchObject([{ outputJson: '"done"' }])
    expect(handler).toHaveBeenCalledTimes(1)
  })

  it('is not to blame for what a trigger of the user’s raises', async () => {
    start(new Flow({ slug: flow_slug }).step('a', () => 'done'))
    transport.before.settle = (results) => {
      if (results.some((result) => 'outputJson' in result))
        throw databaseError('42883', 'function audit() does not exist')
    }
    transport.addTasks('a')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(transport.settled).toMatchObject([
      { error: expect.stringContaining('function audit() does not exist') },
    ])
  })
})
