import { runInNewContext } from 'node:vm'
import { describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import {
  type AnyFlow,
  type BatchContext,
  Flow,
  type Json,
  NonRetryableError,
  RetryAfterError,
} from '../flow/index.ts'
import { TimeoutError } from '../shared/errors.ts'
import { concurrencyFor } from './batches.ts'
import { CancelledError, WorkerStoppedError } from './errors.ts'
import { idOf } from './tasks.ts'
import { core, coreForEachTest, start, transport } from './testing/core.ts'
import { flow_slug, gate, log } from './testing/memory-transport.ts'
import type { ClaimedTask, Result } from './transport.ts'

coreForEachTest()

type Handler = (numbers: readonly number[], context: BatchContext) => unknown

/** A flow with a batch of numbers; each run has the number as its id. */
function flowOf(handler: Handler, batch: object = { size: 3, wait: 1 }, options = {}): AnyFlow {
  // What a handler must not return is tried, too.
  const flow = new Flow({ slug: flow_slug }) as any
  return flow.map({ slug: 'a', batch, ...options }, handler)
}

function addTasks(...inputs: Json[]): ClaimedTask[] {
  const tasks = inputs.map((input, task_index) => ({
    ...{ run_id: `run ${JSON.stringify(input)}`, step_slug: 'a', task_index, attempt: 1 },
    ...{ flow_slug, input, refs: null, timeout: 60 },
  }))
  transport.queue.push(...tasks)
  core.wake()
  return tasks
}

/** What was settled, by run. */
const settled = () =>
  Object.fromEntries(
    transport.settled.map((result) => [
      result.run_id.slice(4),
      'error' in result ? result.error : JSON.parse(result.outputJson),
    ]),
  )

const resultOf = (run: string) => transport.settled.find(({ run_id }) => run_id === `run ${run}`) as Result

const double: Handler = (numbers) => numbers.map((n) => 2 * n)

describe('A batch', () => {
  it('runs at once when it is full, else when its first task has waited, and has results by position', async () => {
    const handler = vi.fn(double)
    start(flowOf(handler))
    addTasks(1, 2, 3, 4)
    await vi.advanceTimersByTimeAsync(5)
    expect(handler.mock.calls.map(([numbers]) => numbers)).toEqual([[1, 2, 3]])
    expect(settled()).toEqual({ 1: 2, 2: 4, 3: 6 })

    await vi.advanceTimersByTimeAsync(900)
    addTasks(5)
    await vi.advanceTimersByTimeAsync(50)
    expect(handler).toHaveBeenCalledTimes(1)
    await vi.advanceTimersByTimeAsync(50)
    expect(handler.mock.lastCall![0]).toEqual([4, 5])
    expect(settled()).toMatchObject({ 4: 8, 5: 10 })
    expect(handler).toHaveBeenCalledTimes(2)
  })

  it('waits for 50 ms by default, and takes no more slots than the worker has', async () => {
    const handler = vi.fn(double)
    start(flowOf(handler, { size: 100 }), { concurrency: 2 })
    addTasks(1, 2, 3)
    await vi.advanceTimersByTimeAsync(45)
    expect(handler).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(10)
    expect(handler.mock.calls.map(([numbers]) => numbers)).toEqual([[1, 2]])
  })

  it('has tasks of one step of one flow only', async () => {
    const handler = vi.fn(double)
    const other = vi.fn((payloads: readonly { run: number }[]) => payloads.map(({ run }) => -run))
    start((flowOf(handler) as any).step({ slug: 'b', batch: { size: 3, wait: 1 } }, other))
    const tasks = addTasks(1, 2)
    transport.queue.push({ ...tasks[0]!, run_id: 'run 7', step_slug: 'b', input: { run: 7 } })
    await vi.advanceTimersByTimeAsync(1_050)
    expect(handler.mock.calls.map(([numbers]) => numbers)).toEqual([[1, 2]])
    expect(other.mock.calls.map(([payloads]) => payloads)).toEqual([[{ run: 7 }]])
    expect(settled()).toEqual({ 1: 2, 2: 4, 7: -7 })
  })

  it('fails the task alone whose result is an error, by the usual rules', async () => {
    const results = [
      ...[1, new TypeError('two'), new RetryAfterError('7s', 'three', { countsAsAttempt: false })],
      ...[new NonRetryableError('four'), runInNewContext("new Error('five')"), { name: 'a', message: 'b' }],
    ]
    start(flowOf(() => results, { size: 6, wait: 1 }))
    addTasks(1, 2, 3, 4, 5, 6)
    await vi.advanceTimersByTimeAsync(5)
    expect(settled()).toEqual({
      1: 1,
      2: 'step "a" failed: TypeError: two',
      3: 'step "a" failed: three',
      4: 'step "a" failed: four',
      5: 'step "a" failed: five',
      6: { name: 'a', message: 'b' },
    })
    expect(resultOf('2')).toMatchObject({ thrown: { name: 'TypeError', stack: expect.any(String) } })
    expect(resultOf('2')).not.toHaveProperty('permanent')
    expect(resultOf('3')).toMatchObject({ retry_delay: 7, uncounted: true })
    expect(resultOf('4')).toMatchObject({ permanent: true })
    expect(log.warn).toHaveBeenCalledTimes(4)
  })

  it.each<[string, () => unknown, string, object]>([
    ['fewer results', () => [1], 'the handler returned 1 results for 3 payloads: return one for each', {}],
    ['more results', async () => [1, 2, 3, 4], 'the handler returned 4 results for 3 payloads', {}],
    ['no array', () => ({ 0: 1, length: 3 }), 'the handler returned an object: return an array', {}],
    ['nothing', () => undefined, 'the handler returned undefined: return an array', {}],
    [
      'an error for all',
      () => Promise.reject(new RetryAfterError(9, 'too many')),
      'too many',
      { retry_delay: 9 },
    ],
  ])('fails all of its tasks for %s, and is logged once', async (_, handler, message, more) => {
    start(flowOf(handler))
    addTasks(1, 2, 3)
    await vi.advanceTimersByTimeAsync(5)
    for (const run of ['1', '2', '3']) {
      const result = expect.objectContaining({ error: expect.stringContaining(message), ...more })
      expect(resultOf(run)).toEqual(result)
    }
    expect(log.warn).toHaveBeenCalledExactlyOnceWith('A batch failed', {
      ...{ flow_slug, step_slug: 'a', tasks: 3 },
      error: expect.objectContaining({ message: expect.stringContaining(message) }),
    })
  })

  it('has the step’s timeout, from the start of the call', async () => {
    const signals: AbortSignal[] = []
    const flow = flowOf(
      (_, { signal, tasks }) => {
        signals.push(signal, ...tasks.map((task) => task.signal))
        return gate().promise
      },
      { size: 3, wait: 90 },
    )
    start(flow)
    addTasks(1, 2)
    await vi.advanceTimersByTimeAsync(90_005)
    expect(signals).toHaveLength(3)
    await vi.advanceTimersByTimeAsync(59_900)
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false, false])
    await vi.advanceTimersByTimeAsync(500)
    for (const { reason } of signals) expect(reason).toBeInstanceOf(TimeoutError)
    expect(settled()).toEqual({ 1: 'step "a" timed out after 60 s', 2: 'step "a" timed out after 60 s' })
    expect(log.warn).toHaveBeenCalledTimes(1)
  })

  it('awaits promises among the results, which types refuse, each for its task', async () => {
    start(flowOf(() => [1, Promise.reject(new Error('two')), gate().promise]))
    addTasks(1, 2, 3)
    await vi.advanceTimersByTimeAsync(20)
    expect(settled()).toEqual({ 1: 1, 2: 'step "a" failed: two' })
    await vi.advanceTimersByTimeAsync(60_500)
    expect(settled()).toMatchObject({ 3: 'step "a" timed out after 60 s' })
  })

  it('goes on without a task that is closed meanwhile, until all are', async () => {
    let context: BatchContext | undefined
    const end = gate()
    start(
      flowOf((_, given) => {
        context = given
        return end.promise
      }),
    )
    const [first] = addTasks(1, 2, 3)
    await vi.advanceTimersByTimeAsync(5)
    transport.closed.set(idOf(first!), 'cancelled')
    await vi.advanceTimersByTimeAsync(5_000)
    expect(context!.tasks.map(({ signal }) => signal.aborted)).toEqual([true, false, false])
    expect(context!.signal.aborted).toBe(false)
    end.open([10, 20, 30])
    await vi.advanceTimersByTimeAsync(20)
    expect(settled()).toEqual({ 2: 20, 3: 30 })
    expect(log.warn).not.toHaveBeenCalled()
  })

  it('is aborted when all of its tasks are closed', async () => {
    const aborted = gate()
    start(
      flowOf((_, { signal }) => {
        signal.addEventListener('abort', () => aborted.open(signal.reason))
        return gate().promise
      }),
    )
    for (const task of addTasks(1, 2, 3)) transport.closed.set(idOf(task), 'cancelled')
    await vi.advanceTimersByTimeAsync(5_005)
    expect(await aborted.promise).toBeInstanceOf(CancelledError)
    expect(transport.batches).toEqual([])
  })

  it('keeps leases while it is gathered, and does not get what is closed meanwhile', async () => {
    const handler = vi.fn(double)
    start(flowOf(handler, { size: 4, wait: 12 }))
    const [first] = addTasks(1, 2, 3)
    await vi.advanceTimersByTimeAsync(5)
    transport.closed.set(idOf(first!), 'cancelled')
    await vi.advanceTimersByTimeAsync(6_000)
    expect(transport.extended).toEqual([
      [1, 2, 3].map((n) => expect.objectContaining({ run_id: `run ${n}` })),
    ])
    // Its place is free again.
    addTasks(4, 5)
    await vi.advanceTimersByTimeAsync(5)
    expect(handler.mock.calls.map(([numbers]) => numbers)).toEqual([[2, 3, 4, 5]])
    expect(settled()).toEqual({ 2: 4, 3: 6, 4: 8, 5: 10 })
  })

  it('validates each payload before, and each result after', async () => {
    const handler = vi.fn(double)
    const schemas = { input: z.number(), output: z.number().max(5) }
    start(flowOf(handler, { size: 3, wait: 1 }, schemas))
    addTasks(1, 'two', 2, 3)
    await vi.advanceTimersByTimeAsync(5)
    expect(handler.mock.calls.map(([numbers]) => numbers)).toEqual([[1, 2, 3]])
    expect(settled()).toMatchObject({ 1: 2, 2: 4 })
    expect(resultOf('"two"')).toMatchObject({ permanent: true, error: expect.stringContaining('its input') })
    expect(resultOf('3')).toMatchObject({ permanent: true, error: expect.stringContaining('its output') })
  })

  it('says of each task whose it is, reports its progress, and gives its payload', async () => {
    let context: BatchContext | undefined
    start(
      flowOf(async (numbers, given) => {
        context = given
        for (const [index, task] of given.tasks.entries()) {
          task.progress(index / 10, await task.payload())
          task.log.info('one')
        }
        given.log.info('all')
        return numbers
      }),
      { resources: { db: 1 } },
    )
    addTasks(7, 8)
    transport.queue.splice(0, 2, ...transport.queue.map((task) => ({ ...task, refs: { run: 'a' } })))
    await vi.advanceTimersByTimeAsync(1_050)
    expect(context).toMatchObject({
      flowSlug: flow_slug,
      stepSlug: 'a',
      workerId: 'worker',
      resources: { db: 1 },
    })
    expect(context!.tasks).toMatchObject([
      { runId: 'run 7', taskIndex: 0, attempt: 1 },
      { runId: 'run 8', taskIndex: 1, attempt: 1 },
    ])
    expect(transport.reports.flat()[0]).toMatchObject({
      run_id: 'run 7',
      progress: { value: 0, data: { run: 'run' }, task_index: 0 },
    })
    expect(log.info.mock.calls.map(([text, data]) => [text, data.run_id])).toEqual([
      ['one', 'run 7'],
      ['one', 'run 8'],
      ['all', undefined],
    ])
    expect(log.info).toHaveBeenLastCalledWith('all', { flow_slug, step_slug: 'a' })
  })

  it('runs at once when the worker stops, and is handed back after the grace period', async () => {
    const signals: AbortSignal[] = []
    start(
      flowOf(
        (_, { signal }) => {
          signals.push(signal)
          return gate().promise
        },
        { size: 3, wait: 600 },
      ),
    )
    addTasks(1, 2)
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(2).then(stopped)
    await vi.advanceTimersByTimeAsync(5)
    expect(signals.map(({ aborted }) => aborted)).toEqual([false])
    await vi.advanceTimersByTimeAsync(2_000)
    expect(signals[0]!.reason).toBeInstanceOf(WorkerStoppedError)
    expect(transport.returned.map(({ run_id }) => run_id)).toEqual(['run 1', 'run 2'])
    expect(transport.batches).toEqual([])
    expect(stopped).toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })

  it('is handed back where the worker stops without a grace period', async () => {
    const handler = vi.fn(() => gate().promise)
    start(flowOf(handler, { size: 3, wait: 600 }))
    addTasks(1, 2)
    await vi.advanceTimersByTimeAsync(5)
    const stopped = vi.fn()
    void core.stop(0).then(stopped)
    await vi.advanceTimersByTimeAsync(5)
    expect(transport.returned).toHaveLength(2)
    expect(handler).not.toHaveBeenCalled()
    expect(stopped).toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('The concurrency of a worker', () => {
  const flows = [flowOf(double, { size: 300, wait: 1 }), flowOf(double, { size: 20, wait: 1 })]

  it('is that of its largest batch at least', () => {
    expect(concurrencyFor(flows, undefined)).toBe(300)
    expect(concurrencyFor(flows.slice(1), undefined)).toBe(200)
    expect(concurrencyFor(flows, 300)).toBe(300)
  })

  it('is refused where a batch would never be full', () => {
    expect(() => concurrencyFor(flows, 299)).toThrow(
      expect.objectContaining({
        code: 'worker_not_started',
        message:
          'concurrency is 299, but the step "a" of the flow "flow" has batches of 300: make it 300 or more, or the batches smaller',
      }),
    )
  })
})
