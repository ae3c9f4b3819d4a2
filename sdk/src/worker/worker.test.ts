import { once } from 'node:events'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { z } from 'zod'
import { type AnyFlow, type Context, Flow } from '../flow/index.ts'
import type { Json } from '../flow/json-types.ts'
import {
  CancelledError,
  NonRetryableError,
  RetryAfterError,
  startWorker,
  TimeoutError,
  type Worker,
} from './index.ts'
import type { WorkerConnection } from './options.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'
import { gate } from './testing/memory-transport.ts'
import { closedPort } from './testing/port.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

async function runningWorker(flow: AnyFlow, settings: { concurrency?: number } = {}): Promise<Worker> {
  const worker = await startWorker({ connection: db.url, flows: [flow], ...settings })
  onTestFinished(() => worker.stop({ gracePeriod: 0 }))
  return worker
}

/** Slugs that no other test has. */
let flows = 0
const newSlug = () => `flow_${++flows}`

describe('A worker', () => {
  it('runs a diamond: each step gets the input and the outputs of its deps', async () => {
    const slug = newSlug()
    const diamond = new Flow<{ n: number }>({ slug })
      .step('top', ({ run }) => run.n + 1)
      .step('left', ['top'], ({ top }) => top * 2)
      .step('right', ['top'], async ({ run, top }) => ({ sum: run.n + top }))
      .step('bottom', ['left', 'right'], (payload) => payload)
    await runningWorker(diamond)
    const run_id = await db.startRun(slug, { n: 1 })
    expect(await db.runEnded(run_id)).toEqual({
      run_id,
      status: 'completed',
      output: { bottom: { run: { n: 1 }, left: 4, right: { sum: 3 } } },
      error: null,
    })
  })

  it('gives a handler its context, with the resources that it was started with', async () => {
    const slug = newSlug()
    const contexts: object[] = []
    const flow = new Flow<null, { greeting: string }>({ slug }).step('only', (_, context) => {
      contexts.push(context)
      return context.resources.greeting
    })
    const resources = { greeting: 'hello' }
    const worker = await startWorker({ connection: db.url, flows: [flow], resources })
    onTestFinished(() => worker.stop())
    const run_id = await db.startRun(slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({ output: { only: 'hello' } })
    expect(contexts).toEqual([
      {
        signal: expect.any(AbortSignal),
        attempt: 1,
        runId: run_id,
        flowSlug: slug,
        stepSlug: 'only',
        taskIndex: 0,
        workerId: worker.workerId,
        log: expect.anything(),
        resources,
        progress: expect.any(Function),
        payload: expect.any(Function),
        waitUrl: expect.any(Function),
        idempotencyKey: `${run_id}:only:0`,
        once: expect.any(Function),
        transaction: expect.any(Function),
      },
    ])
  })

  it.each([
    '"123"',
    '"{}"',
    '""',
    '"null"',
    '0',
    'false',
    'null',
    '[]',
    '{"a": [1, "1", null]}',
    '"\\u2028ü😀"',
  ])('stores and passes on %s as it is', async (text) => {
    const slug = newSlug()
    const value = JSON.parse(text)
    const seen: unknown[] = []
    const flow = new Flow<unknown>({ slug })
      .step('first', ({ run }): unknown => run)
      .step('second', ['first'], ({ run, first }): unknown => {
        seen.push(run, first)
        return first
      })
    await runningWorker(flow)
    const run_id = await db.startRun(slug, value)
    expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { second: value } })
    expect(seen).toEqual([value, value])
    const [row] = await db.sql`
        select output = ${text}::text::jsonb as is_same
        from pgflow.step_states where run_id = ${run_id} and step_slug = 'first'`
    expect(row).toEqual({ is_same: true })
  })

  it('stores a large output, and refuses one that is larger than its limit', async () => {
    const slug = newSlug()
    const flow = new Flow<number>({ slug, maxAttempts: 1 }).step('work', ({ run }) => 'x'.repeat(run))
    const outputLimit = 2_000_000
    const worker = await startWorker({ connection: db.url, flows: [flow], outputLimit })
    onTestFinished(() => worker.stop())
    const [large, larger] = await db.startRuns(slug, [outputLimit - 2, outputLimit - 1])
    const { status, output } = await db.runEnded(large!)
    expect([status, (output as { work: string }).work.length]).toEqual(['completed', outputLimit - 2])
    expect((await db.runEnded(larger!)).error).toMatch(
      /\$ is more than 2000000 bytes of JSON, the limit of outputs/,
    )
  })

  it('stores null for a handler that returns nothing', async () => {
    const slug = newSlug()
    await runningWorker(new Flow({ slug }).step('only', () => {}))
    expect(await db.runEnded(await db.startRun(slug, 1))).toMatchObject({ output: { only: null } })
  })

  it('runs many flows', async () => {
    const slugs = [newSlug(), newSlug()]
    const both = slugs.map((slug) =>
      new Flow({ slug }).step('only', (_, { stepSlug }) => `${slug} ${stepSlug}`),
    )
    const worker = await startWorker({ connection: db.url, flows: both })
    onTestFinished(() => worker.stop())
    for (const slug of slugs) {
      const run = await db.runEnded(await db.startRun(slug, null))
      expect(run).toMatchObject({ output: { only: `${slug} only` } })
    }
  })

  it('shares many runs with another one; each task runs once', async () => {
    const slug = newSlug()
    const calls = new Map<string, number>()
    const busy = new Set<string>()
    let start = () => {}
    const bothAreBusy = new Promise<void>((resolve) => {
      start = resolve
    })
    const count = async (_: unknown, { runId, stepSlug, workerId }: Context) => {
      const key = `${runId} ${stepSlug}`
      calls.set(key, (calls.get(key) ?? 0) + 1)
      if (busy.add(workerId).size === 2) start()
      await bothAreBusy
      return stepSlug
    }
    const flow = new Flow({ slug })
      .step('a', count)
      .step('b', ['a'], count)
      .step('c', ['a'], count)
      .step('d', ['b', 'c'], count)
    // Fewer slots than there are runs: no worker takes all of them.
    const few = { concurrency: 50 }
    const workers = [await runningWorker(flow, few), await runningWorker(flow, few)]
    const run_ids = await db.startRuns(slug, Array(200).fill(null))
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(runs.filter(({ status }) => status !== 'completed')).toEqual([])
    expect(calls.size).toBe(800)
    expect([...calls.values()].filter((times) => times !== 1)).toEqual([])

    const [recorded] = await db.sql`
      select count(*)::int as events, count(distinct (run_id, step_slug))::int as steps
      from pgflow.run_events join pgflow.runs using (run_id)
      where flow_slug = ${slug} and type = 'step:completed'`
    expect(recorded).toEqual({ events: 800, steps: 800 })
    const shares = await db.sql`
      select last_worker_id from pgflow.step_tasks where flow_slug = ${slug} and attempts_count = 1
      group by last_worker_id`
    expect(shares.map(({ last_worker_id }) => last_worker_id).sort()).toEqual(
      workers.map(({ workerId }) => workerId).sort(),
    )
    const [connections] = await db.sql`
      select count(*)::int as open from pg_stat_activity where application_name = 'pgflow worker'`
    expect(connections!.open).toBeLessThanOrEqual(6)
  })
})

describe('A step with batches', () => {
  it('has one call for tasks of several runs; one that fails is retried alone', async () => {
    const slug = newSlug()
    const calls: string[] = []
    const flow = new Flow<string[]>({ slug, baseDelay: 0 })
      .map({ slug: 'upper', batch: { size: 100, wait: '10ms' } }, async (texts, { tasks }) => {
        calls.push(texts.toSorted().join(''))
        return texts.map((text, n) =>
          text === 'c' && tasks[n]!.attempt === 1 ? new TypeError('not yet') : text.toUpperCase(),
        )
      })
      .step({ slug: 'sizes', batch: { size: 2 } }, (payloads) =>
        payloads.map(({ run }) => ({ size: run.length, of: payloads.length })),
      )
    await runningWorker(flow)
    // They begin in one transaction, so that one claim gets all of their tasks.
    const runs = await db.startRuns(slug, [
      ['a', 'b', 'c'],
      ['d', 'e'],
    ])
    const ended = await Promise.all(runs.map((run_id) => db.runEnded(run_id)))
    expect(ended).toMatchObject([
      { output: { upper: ['A', 'B', 'C'], sizes: { size: 3, of: 2 } } },
      { output: { upper: ['D', 'E'], sizes: { size: 2, of: 2 } } },
    ])
    expect(calls).toEqual(['abcde', 'c'])
    const retried = await db.sql`
      select input, attempts_count, last_error ->> 'name' as error from pgflow.step_tasks
      where run_id = any (${runs}) and attempts_count <> 1`
    expect([...retried]).toEqual([{ input: 'c', attempts_count: 2, error: 'TypeError' }])
  })
})

describe('A loop', () => {
  it('takes turns, each with the state that the last one returned and attempts of its own', async () => {
    const slug = newSlug()
    const state = z.object({ n: z.number(), at: z.coerce.date() })
    const turns: object[] = []
    const flow = new Flow<{ by: number }>({ slug, baseDelay: 0 })
      .step('first', () => ({ n: 0, at: '2030-01-01' }))
      .loop(
        { slug: 'count', start: 'first', input: state, until: { done: true } },
        async ({ n, at }, { taskIndex, attempt, payload, progress }) => {
          turns.push({ n, taskIndex, attempt })
          if (n === 2 && attempt === 1) throw new Error('not yet')
          if (n === 2) progress(0.5)
          const { run } = await payload()
          return { n: n + run.by, at: new Date(at.getTime() + 1), done: n === 3 }
        },
      )
    await runningWorker(flow)
    const run_id = await db.startRun(slug, { by: 1 })
    expect(await db.runEnded(run_id)).toMatchObject({
      output: { count: { n: 4, at: '2030-01-01T00:00:00.004Z', done: true } },
    })
    expect(turns).toEqual([
      { n: 0, taskIndex: 0, attempt: 1 },
      { n: 1, taskIndex: 1, attempt: 1 },
      { n: 2, taskIndex: 2, attempt: 1 },
      { n: 2, taskIndex: 2, attempt: 2 },
      { n: 3, taskIndex: 3, attempt: 1 },
    ])
  })
})

describe('The context of a handler', () => {
  it('tells how far the step is: the latest stays with it, and becomes an event', async () => {
    const slug = newSlug()
    const flow = new Flow({ slug }).step('read', async (_, { progress, runId }) => {
      progress(0.25, { page: 1 })
      const stored = () => db.sql<{ progress: Json }[]>`
        select progress from pgflow.step_states where run_id = ${runId} and progress is not null`
      return (await until(stored)).progress
    })
    await runningWorker(flow)
    const run_id = await db.startRun(slug, null)
    const progress = { value: 0.25, data: { page: 1 } }
    expect(await db.runEnded(run_id)).toMatchObject({ output: { read: progress } })
    const events = await db.sql`
      select event ->> 'step_slug' as step_slug, event -> 'progress' as progress
      from pgflow.run_event_records where run_id = ${run_id} and event ->> 'type' = 'step:progress'`
    expect([...events]).toEqual([{ step_slug: 'read', progress }])
  })

  it('logs with the ids of the task', async () => {
    const slug = newSlug()
    const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() }
    const flow = new Flow({ slug }).step('speak', (_, context) => {
      for (const level of ['debug', 'info', 'warn', 'error'] as const) context.log[level]('Hello', { level })
    })
    const worker = await startWorker({ connection: db.url, flows: [flow], log })
    onTestFinished(() => worker.stop())
    const run_id = await db.startRun(slug, null)
    await db.runEnded(run_id)
    for (const level of ['debug', 'info', 'warn', 'error'] as const) {
      const data = { run_id, step_slug: 'speak', task_index: 0, attempt: 1, level }
      expect(log[level]).toHaveBeenCalledWith('Hello', data)
    }
  })

  it('may have a log that fails: the worker goes on', async () => {
    const slug = newSlug()
    const fail = () => {
      throw new Error('the disk is full')
    }
    const log = { debug: fail, info: fail, warn: fail, error: fail }
    const flow = new Flow({ slug, baseDelay: 0 }).step('work', (_, { attempt }) => {
      if (attempt === 1) throw new Error('once')
      return attempt
    })
    const worker = await startWorker({ connection: db.url, flows: [flow], log })
    onTestFinished(() => worker.stop())
    expect(await db.runEnded(await db.startRun(slug, null))).toMatchObject({ output: { work: 2 } })
  })

  it('gives a map’s handler what it would get otherwise, frozen; a single step’s what it got', async () => {
    const slug = newSlug()
    const flow = new Flow<{ words: string[] }>({ slug })
      .step('count', async (input, { payload }) => (input === (await payload()) ? input.run.words.length : 0))
      .map({ slug: 'each', dependsOn: ['count'], items: 'run.words' }, async (word, { payload }) => {
        const input = await payload()
        return { word, input, isFrozen: Object.isFrozen((input as { run: object }).run) }
      })
    await runningWorker(flow)
    const run = { words: ['a', 'b'] }
    const { output } = await db.runEnded(await db.startRun(slug, run))
    const input = { run, count: 2 }
    expect(output).toEqual({
      each: [
        { word: 'a', input, isFrozen: true },
        { word: 'b', input, isFrozen: true },
      ],
    })
  })
})

describe('A handler that fails', () => {
  const cyclic: { self?: unknown } = {}
  cyclic.self = cyclic
  const fails = (thrown: unknown) => () => {
    throw thrown
  }

  const cases: Record<string, { handler: () => unknown; reason: string }> = {
    error: { handler: fails(new Error('boom')), reason: 'failed: boom' },
    type_error: { handler: fails(new TypeError('no such thing')), reason: 'TypeError: no such thing' },
    rejection: { handler: async () => Promise.reject(new Error('later')), reason: 'failed: later' },
    own_abort: { handler: () => AbortSignal.abort().throwIfAborted(), reason: 'AbortError' },
    string: { handler: fails('just text'), reason: 'just text' },
    nothing: { handler: fails(undefined), reason: 'undefined was thrown' },
    null: { handler: fails(null), reason: 'null was thrown' },
    thrown_cycle: { handler: fails(cyclic), reason: 'object was thrown' },
    nul_in_error: { handler: fails(new Error('a\0b')), reason: 'a\uFFFDb' },
    function: { handler: () => () => 1, reason: '$ is a function' },
    cycle: { handler: () => cyclic, reason: '$.self contains itself' },
    bigint: { handler: () => ({ big: 1n }), reason: '$.big is a bigint' },
    nan: { handler: () => [Number.NaN], reason: '$[0] is NaN' },
    nul: { handler: () => ({ text: 'a\0b' }), reason: '$.text has a NUL' },
  }

  it('has its attempts, then fails the run with step and reason; what runs beside it is settled', async () => {
    const [slug, good] = [newSlug(), newSlug()]
    const failing = new Flow<string>({ slug, maxAttempts: 2, baseDelay: 0 }).step('work', ({ run }) =>
      cases[run]!.handler(),
    )
    const fine = new Flow<number>({ slug: good }).step('work', ({ run }) => run)
    const worker = await startWorker({ connection: db.url, flows: [failing, fine], concurrency: 50 })
    onTestFinished(() => worker.stop())
    const names = Object.keys(cases)
    const failing_ids = await db.startRuns(slug, names)
    const fine_ids = await db.startRuns(
      good,
      names.map((_, index) => index),
    )

    for (const [index, name] of names.entries()) {
      const run_id = failing_ids[index]!
      const { status, error } = await db.runEnded(run_id)
      expect([name, status], error ?? '').toEqual([name, 'failed'])
      expect(error, name).toContain('"work"')
      expect(error, name).toContain(cases[name]!.reason)
      const [task] = await db.tasksOf(run_id)
      expect(task, name).toMatchObject({ status: 'failed', attempts_count: 2 })
      expect(task!.error_message, name).toContain(cases[name]!.reason)
      expect(await db.runEnded(fine_ids[index]!)).toMatchObject({ output: { work: index } })
    }
  })

  it('leaves name, message and stack of what it threw with the task, bounded, and no stack with the run', async () => {
    const slug = newSlug()
    const flow = new Flow({ slug, maxAttempts: 1 }).step('work', () => {
      throw new TypeError('long '.repeat(10_000))
    })
    await runningWorker(flow)
    const run_id = await db.startRun(slug, null)
    const { error } = await db.runEnded(run_id)
    expect(error).toMatch(/^step "work" failed: TypeError: long long/)
    expect(error).not.toContain('worker.test.ts')
    const [task] = await db.sql`select last_error from pgflow.step_tasks where run_id = ${run_id}`
    const { name, message, stack } = task!.last_error
    expect(name).toBe('TypeError')
    expect(message).toHaveLength(8_000)
    expect(stack).toHaveLength(8_000)
  })

  it('may succeed at a later attempt', async () => {
    const slug = newSlug()
    const flow = new Flow({ slug, baseDelay: 0 }).step('work', (_, { attempt }) => {
      if (attempt < 3) throw new Error(`attempt ${attempt}`)
      return attempt
    })
    await runningWorker(flow)
    const run_id = await db.startRun(slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { work: 3 } })
    expect(await db.tasksOf(run_id)).toMatchObject([{ attempts_count: 3 }])
  })

  it('fails for good, too, when its NonRetryableError is that of another copy of the package', async () => {
    vi.resetModules()
    const copy = await import('../flow/index.ts')
    expect(copy.NonRetryableError).not.toBe(NonRetryableError)
    const slug = newSlug()
    await runningWorker(
      new Flow({ slug }).step('work', fails(new copy.NonRetryableError('the page is gone'))),
    )
    const run_id = await db.startRun(slug, null)
    await db.runEnded(run_id)
    expect(await db.tasksOf(run_id)).toMatchObject([{ status: 'failed', attempts_count: 1 }])
  })

  it('fails for good when it throws a NonRetryableError', async () => {
    const slug = newSlug()
    await runningWorker(new Flow({ slug }).step('work', fails(new NonRetryableError('the page is gone'))))
    const run_id = await db.startRun(slug, null)
    const { status, error } = await db.runEnded(run_id)
    expect(status).toBe('failed')
    expect(error).toContain('the page is gone')
    expect(await db.tasksOf(run_id)).toMatchObject([{ status: 'failed', attempts_count: 1 }])
  })

  it('says when it is tried again by a RetryAfterError', async () => {
    const slug = newSlug()
    const flow = new Flow({ slug, baseDelay: 100_000 }).step('work', (_, { attempt }) => {
      if (attempt === 1) throw new RetryAfterError(0)
      return attempt
    })
    await runningWorker(flow)
    expect(await db.runEnded(await db.startRun(slug, null))).toMatchObject({ output: { work: 2 } })
  })

  it('uses up no attempt by a RetryAfterError that says so', async () => {
    const slug = newSlug()
    const flow = new Flow({ slug, maxAttempts: 1 }).step('work', (_, { attempt }) => {
      if (attempt < 3) throw new RetryAfterError(0, 'busy', { countsAsAttempt: false })
      return attempt
    })
    await runningWorker(flow)
    expect(await db.runEnded(await db.startRun(slug, null))).toMatchObject({ output: { work: 3 } })
  })

  it('is tried again by a RetryAfterError that does not count until the deadline of its step, and is aborted then', async () => {
    const slug = newSlug()
    const aborted = gate()
    const flow = new Flow<string[]>({ slug, maxAttempts: 1 }).map(
      { slug: 'each', deadline: '1s' },
      async (item, { attempt, signal }) => {
        if (item === 'later') throw new RetryAfterError('1h', 'busy', { countsAsAttempt: false })
        if (attempt < 3) throw new RetryAfterError(0, 'busy', { countsAsAttempt: false })
        await once(signal, 'abort')
        aborted.open(signal.reason)
      },
    )
    const worker = await startWorker({ connection: db.url, flows: [flow], lease: 1 })
    onTestFinished(() => worker.stop({ gracePeriod: 0 }))
    const run_id = await db.startRun(slug, ['now', 'later'])
    expect(await db.runEnded(run_id)).toMatchObject({
      status: 'failed',
      error: 'step "each" has exceeded its deadline of 1 s',
    })
    expect(await db.tasksOf(run_id)).toMatchObject([
      { status: 'cancelled', attempts_count: 3 },
      { status: 'cancelled', attempts_count: 1 },
    ])
    expect(await aborted.promise).toBeInstanceOf(CancelledError)
  })

  it('says why: its run has the causes of what it threw, and its task all of them', async () => {
    const port = await closedPort()
    const slug = newSlug()
    const fetches = async () => (await fetch(`http://127.0.0.1:${port}`)).status
    await runningWorker(new Flow({ slug, maxAttempts: 1 }).step('work', fetches))
    const run_id = await db.startRun(slug, null)
    const { error } = await db.runEnded(run_id)
    expect(error).toBe(`step "work" failed: TypeError: fetch failed: connect ECONNREFUSED 127.0.0.1:${port}`)
    const [task] = await db.sql`select last_error from pgflow.step_tasks where run_id = ${run_id}`
    expect(task!.last_error).toMatchObject({ name: 'TypeError', cause: { code: 'ECONNREFUSED' } })
  })

  it('may throw what cannot be looked at', async () => {
    const slug = newSlug()
    const flow = new Flow<number>({ slug, maxAttempts: 1 }).step('work', ({ run }, { log }) => {
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      log.info('a proxy', proxy)
      if (run === 0) throw proxy
      return run === 1 ? (proxy as never) : run
    })
    await runningWorker(flow)
    const runs = await Promise.all((await db.startRuns(slug, [0, 1, 2])).map((run_id) => db.runEnded(run_id)))
    expect(runs.map(({ status }) => status)).toEqual(['failed', 'failed', 'completed'])
  })

  it('is also one whose output the database refuses, here by a trigger; what comes with it is settled', async () => {
    const slug = newSlug()
    await db.sql.unsafe(`
      create function public.cast_output() returns trigger language plpgsql as $$
      begin
        perform (new.output #>> '{}')::int;
        return new;
      end $$;
      create trigger cast_output before update on pgflow.step_states
      for each row when (new.flow_slug = '${slug}') execute function public.cast_output();
    `)
    const flow = new Flow<number>({ slug, baseDelay: 0 }).step('work', ({ run }, { attempt }) =>
      run === 5 && attempt === 1 ? 'not a number' : attempt,
    )
    await runningWorker(flow)
    const run_ids = await db.startRuns(slug, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(runs.map(({ output }) => output)).toEqual([1, 1, 1, 1, 1, 2, 1, 1, 1, 1].map((work) => ({ work })))
    const [event] = await db.sql`
      select data ->> 'error' as error from pgflow.run_events where run_id = ${run_ids[5]!} and type = 'step:retrying'`
    expect(event!.error).toBe(
      'step "work" failed: the database refused its output: invalid input syntax for type integer: "not a number"',
    )
  })

  it('is timed out, even if it ignores its signal', async () => {
    const slug = newSlug()
    const reasons: unknown[] = []
    const flow = new Flow({ slug, maxAttempts: 1, timeout: 1 }).step('stubborn', (_, { signal }) => {
      signal.addEventListener('abort', () => reasons.push(signal.reason))
      return new Promise<null>(() => {})
    })
    await runningWorker(flow, { concurrency: 1 })
    const { status, error } = await db.runEnded(await db.startRun(slug, null))
    expect(status).toBe('failed')
    expect(error).toContain('step "stubborn" timed out after 1 s')
    expect(reasons).toEqual([expect.any(TimeoutError)])
  })

  it('is aborted when its run has ended, and its result ignored', async () => {
    const slug = newSlug()
    const flow = new Flow({ slug }).step('held', async (_, { signal, runId }) => {
      const aborted = once(signal, 'abort')
      const result = {
        run_id: runId,
        step_slug: 'held',
        task_index: 0,
        attempt: 1,
        error: 'by hand',
        permanent: true,
      }
      await db.sql`select pgflow.settle_tasks(results => ${JSON.stringify([result])}::text::jsonb)`
      await aborted
      reasons.push(signal.reason)
    })
    const reasons: unknown[] = []
    const worker = await startWorker({ connection: db.url, flows: [flow], lease: 1 })
    const run_id = await db.startRun(slug, null)
    const run = await db.runEnded(run_id)
    expect(run).toMatchObject({ status: 'failed', error: expect.stringContaining('by hand') })
    await worker.stop()
    expect(reasons).toEqual([expect.any(CancelledError)])
    expect(await db.runEnded(run_id)).toEqual(run)
  })
})

describe('The connection of a worker', () => {
  it('may break while a step runs: its result is settled later, and the step not run again', async () => {
    const slug = newSlug()
    const handler = vi.fn(async () => {
      await db.sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgflow worker'`
      return 'done'
    })
    await runningWorker(new Flow({ slug }).step('work', handler))
    const run_id = await db.startRun(slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { work: 'done' } })
    expect(handler).toHaveBeenCalledTimes(1)
    expect(await db.tasksOf(run_id)).toMatchObject([{ attempts_count: 1 }])
  })

  it.each<[string, () => WorkerConnection]>([
    ['a URL', () => ({ connection: db.url })],
    ['a secret key', () => ({ url: db.stack.url, secretKey: db.stack.secretKey })],
  ])('may lose its schema, which is said at once; no result is lost, over %s', async (_, connection) => {
    const slug = newSlug()
    const handler = vi.fn(async () => {
      await db.sql`alter schema pgflow rename to away`
      return 'done'
    })
    const said = gate()
    const error = (message: string, data?: { error?: Error }) => {
      if (message.includes('refuses') && data?.error?.message.includes('supabase db push')) said.open(message)
    }
    const log = { debug() {}, info() {}, warn() {}, error }
    const flows = [new Flow({ slug, maxAttempts: 1 }).step('work', handler)]
    const worker = await startWorker({ ...connection(), flows, log })
    onTestFinished(() => worker.stop())
    const run_id = await db.startRun(slug, null)
    await said.promise
    await db.sql`alter schema away rename to pgflow`
    expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { work: 'done' } })
    expect(handler).toHaveBeenCalledTimes(1)
  })

  it('may be the user’s, set up in any way; it stays open', async () => {
    const slug = newSlug()
    const sql = postgres(db.url, { max: 1, transform: postgres.camel, onnotice: () => {} })
    onTestFinished(() => sql.end())
    const flow = new Flow<{ snake_case: string }>({ slug }).step('work_hard', ({ run }) => run)
    const worker = await startWorker({ sql, flows: [flow] })
    const run_id = await db.startRun(slug, { snake_case: '"1"' })
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work_hard: { snake_case: '"1"' } } })
    await worker.stop()
    expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })
})

describe('Worker.stop', () => {
  it('claims no more, lets what runs finish, settles it; a second call waits for the same end', async () => {
    const slug = newSlug()
    let stopped: Promise<unknown> = Promise.resolve()
    const flow = new Flow({ slug }).step('work', async () => {
      stopped = Promise.all([worker.stop(), worker.stop()])
      await db.startRun(slug, null)
      return 'settled'
    })
    const worker: Worker = await startWorker({ connection: db.url, flows: [flow] })
    const run_id = await db.startRun(slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: 'settled' } })
    await stopped
    const runs = await db.sql`select status from pgflow.runs where flow_slug = ${slug} order by started_at`
    expect(runs.map(({ status }) => status)).toEqual(['completed', 'started'])
    const [row] = await db.sql`
      select stopped_at is not null as has_stopped from pgflow.workers where worker_id = ${worker.workerId}`
    expect(row).toEqual({ has_stopped: true })
  })

  it('is what `stopped` waits for', async () => {
    const worker = await runningWorker(new Flow({ slug: newSlug() }).step('work', () => 1))
    const stopped = vi.fn()
    void worker.stopped.then(stopped)
    await db.sql`select 1`
    expect(stopped).not.toHaveBeenCalled()
    await worker.stop()
    expect(stopped).toHaveBeenCalledOnce()
  })

  it('is called by the signal', async () => {
    const slug = newSlug()
    const controller = new AbortController()
    const flow = new Flow({ slug }).step('work', () => controller.abort())
    const { signal } = controller
    const worker = await startWorker({ connection: db.url, flows: [flow], signal })
    await db.runEnded(await db.startRun(slug, null))
    await worker.stop()
    await expect(startWorker({ connection: db.url, flows: [flow], signal })).rejects.toBe(signal.reason)
  })
})
