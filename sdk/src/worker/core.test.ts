import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type AnyFlow, Flow } from '../flow/index.ts'
import { Core, type CoreOptions } from './core.ts'
import { LeaseLostError, WorkerStoppedError } from './errors.ts'
import { idOf } from './tasks.ts'
import type {
  ClaimedTask,
  Lease,
  ProgressReport,
  Result,
  TaskKey,
  Transport,
  ValueRef,
  Work,
  WorkRequest,
} from './transport.ts'

const flow_slug = 'flow'

/** A database of a few lines, with a fake clock's patience. */
class MemoryTransport implements Transport {
  readonly queue: ClaimedTask[] = []
  readonly claims: { at: number; quantity: number }[] = []
  readonly batches: Result[][] = []
  readonly extended: TaskKey[][] = []
  readonly requests: (WorkRequest & { at: number })[] = []
  readonly settled: Result[] = []
  readonly returned: TaskKey[] = []
  readonly reports: ProgressReport[][] = []
  /** The statuses of tasks that are no longer their attempts'. */
  readonly closed = new Map<string, string | null>()
  /** Called before a call has an effect; what it throws or waits for happens to the call. */
  before: Partial<
    Record<'claim' | 'settle' | 'extend' | 'handBack', (results: readonly Result[]) => unknown>
  > = {}

  addTasks(...steps: string[]): void {
    for (const step_slug of steps) {
      const run_id = `run ${this.queue.length}`
      this.queue.push({
        run_id,
        step_slug,
        task_index: 0,
        attempt: 1,
        flow_slug,
        input: { run: null },
        refs: null,
        timeout: 60,
      })
    }
  }

  async settleAndClaim(request: WorkRequest): Promise<Work> {
    const { results, quantity } = request
    this.requests.push({ at: Date.now(), ...request })
    if (quantity > 0) this.claims.push({ at: Date.now(), quantity })
    if (results.length > 0) {
      this.batches.push([...results])
      await this.before.settle?.(results)
    }
    if (quantity > 0) await this.before.claim?.([])
    this.settled.push(...results)
    return { stale: [], tasks: this.queue.splice(0, quantity) }
  }

  async heartbeat(_: string, tasks: readonly TaskKey[]): Promise<Lease[]> {
    this.extended.push([...tasks])
    await this.before.extend?.([])
    return tasks.map((task) => {
      const status = this.closed.get(idOf(task))
      return { ...task, active: status === undefined, status: status === undefined ? 'started' : status }
    })
  }

  async handBack(tasks: readonly TaskKey[]): Promise<void> {
    this.returned.push(...tasks)
    await this.before.handBack?.([])
  }

  async reportProgress(reports: readonly ProgressReport[]): Promise<void> {
    this.reports.push([...reports])
  }

  async fetchValue(ref: ValueRef): Promise<string> {
    return JSON.stringify(ref.name)
  }

  async defineFlow(): Promise<void> {}
  async registerWorker(): Promise<void> {}
  async stopWorker(): Promise<void> {}
  async close(): Promise<void> {}

  /** What was settled, in order, without the keys. */
  get outcomes(): string[] {
    return this.batches.flat().map((result) => ('error' in result ? result.error : result.outputJson))
  }
}

/** A handler whose runs are ended by the test. */
function gate() {
  let open: (value: unknown) => void = () => {}
  const promise = new Promise<unknown>((resolve) => {
    open = resolve
  })
  return { promise, open: (value: unknown) => open(value) }
}

function databaseError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code })
}

const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() }

describe('Core', () => {
  let transport: MemoryTransport
  let core: Core

  function startCore(flow: AnyFlow, options: Partial<CoreOptions> = {}): void {
    core = new Core({
      transport,
      flows: [flow],
      workerId: 'worker',
      concurrency: 10,
      lease: 30,
      log,
      resources: {},
      settleBatch: 100,
      settleDelayMs: 10,
      inlineLimit: 65_536,
      cacheLimit: 1_000_000,
      ...options,
    })
    core.start()
  }

  beforeEach(() => {
    vi.clearAllMocks()
    vi.useFakeTimers()
    transport = new MemoryTransport()
  })

  afterEach(async () => {
    transport.before = {}
    const stopped = core.stop(0)
    await vi.runAllTimersAsync()
    await stopped
    expect(vi.getTimerCount()).toBe(0)
    vi.useRealTimers()
  })

  it('refills each slot as it gets free, whatever the others do', async () => {
    const slow = gate()
    startCore(
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
    startCore(
      new Flow({ slug: flow_slug }).step('held', () => held.promise),
      { concurrency: 3 },
    )
    transport.addTasks('held', 'held', 'held', 'held')
    await vi.advanceTimersByTimeAsync(60_000)
    expect(transport.claims.map(({ quantity }) => quantity)).toEqual([3])
    held.open(0)
  })

  it('polls less and less while idle, once a second in the end', async () => {
    startCore(new Flow({ slug: flow_slug }).step('a', () => 1))
    await vi.advanceTimersByTimeAsync(10_000)
    const times = transport.claims.map(({ at }) => at - transport.claims[0]!.at)
    expect(times.slice(0, 7)).toEqual([0, 20, 60, 140, 300, 620, 1260].map((at) => expect.closeTo(at, -1.5)))
    expect(times.length).toBeLessThanOrEqual(17)
  })

  it('looks for work at once when it is woken, and polls quickly after a result', async () => {
    const last = gate()
    startCore(new Flow({ slug: flow_slug }).step('a', () => 1).step('last', () => last.promise))
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
    startCore(
      new Flow({ slug: flow_slug }).step('a', () => 'now').step('late', () => late[started++]!.promise),
    )
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
    startCore(new Flow({ slug: flow_slug }).step('a', handler))
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
    startCore(new Flow({ slug: flow_slug }).step('good', () => 'good').step('bad', () => 'bad'))
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

  it('gives up a result that can be settled in no way, and goes on', async () => {
    startCore(new Flow({ slug: flow_slug }).step('good', () => 'good').step('bad', () => 'bad'))
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
    startCore(new Flow({ slug: flow_slug }).step('a', () => 1))
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
    startCore(new Flow({ slug: flow_slug }).step('running', () => running.promise).step('done', () => 1))
    transport.before.settle = () => {
      throw databaseError('53300', 'too many connections')
    }
    transport.addTasks('running', 'done')
    await vi.advanceTimersByTimeAsync(35_000)
    expect(transport.extended).toHaveLength(3)
    for (const tasks of transport.extended) {
      expect(tasks.map(({ step_slug }) => step_slug)).toEqual(['running', 'done'])
    }
    running.open(1)
  })

  it('tries again soon when it cannot extend its leases', async () => {
    const running = gate()
    startCore(new Flow({ slug: flow_slug }).step('running', () => running.promise))
    let failures = 2
    transport.before.extend = () => {
      if (failures-- > 0) throw databaseError('08006', 'connection failure')
    }
    transport.addTasks('running')
    await vi.advanceTimersByTimeAsync(11_000)
    expect(transport.extended).toHaveLength(3)
    running.open(1)
  })

  it('aborts the handler of a lost lease and drops its result', async () => {
    const seen = gate()
    const lost = new Flow({ slug: flow_slug }).step('lost', (_, { signal }) => {
      signal.addEventListener('abort', () => seen.open(signal.reason))
      return seen.promise.then(() => 'too late')
    })
    startCore(lost, { concurrency: 1 })
    transport.addTasks('lost')
    transport.closed.set(idOf(transport.queue[0]!), null)
    await vi.advanceTimersByTimeAsync(10_100)
    expect(await seen.promise).toBeInstanceOf(LeaseLostError)
    expect(transport.batches).toEqual([])
    expect(transport.claims.length).toBeGreaterThan(1)
  })

  it('stops when what runs is settled, and claims nothing meanwhile', async () => {
    const running = gate()
    startCore(new Flow({ slug: flow_slug }).step('running', () => running.promise))
    transport.addTasks('running')
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(25).then(stopped)
    transport.addTasks('running')
    await vi.advanceTimersByTimeAsync(15_000)
    expect(stopped).not.toHaveBeenCalled()
    expect(transport.extended).toHaveLength(1)
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
    startCore(stubborn)
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
    startCore(new Flow({ slug: flow_slug }).step('a', () => 1))
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
    startCore(new Flow({ slug: flow_slug }).step('a', handler))
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

  it('fails a task of a step that it does not know, for good, and goes on', async () => {
    startCore(new Flow({ slug: flow_slug }).step('a', () => 1))
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
