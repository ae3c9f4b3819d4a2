import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type AnyFlow, Flow } from '../flow/index.ts'
import type { Json } from '../flow/json-types.ts'
import { startWorker, TimeoutError, type Worker, type WorkerSettings } from './index.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'
import { startProxy } from './testing/proxy.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

/** Slugs that no other test has. */
let flows = 0
const newSlug = () => `flow_${++flows}`

async function newWorker(flow: AnyFlow, settings: WorkerSettings = {}, url = db.url): Promise<Worker> {
  const worker = await startWorker({ connection: url, flows: [flow], ...settings })
  onTestFinished(() => worker.stop({ gracePeriod: 0 }))
  return worker
}

function gate() {
  let open: () => void = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open }
}

describe('A worker does not have a defect that another engine had:', () => {
  it('outputs that are false, 0, empty or look like JSON come back as they are', async () => {
    const outputs: Json[] = [null, false, 0, '', [], {}, '123', '{"a": 1}', 'null', { a: null }]
    const slug = newSlug()
    const flow = new Flow<number>({ slug })
      .step('give', ({ run }) => outputs[run]!)
      .step('take', ['give'], (input) => input)
    await newWorker(flow)
    const run_ids = await db.startRuns(
      slug,
      outputs.map((_, n) => n),
    )
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(runs.map(({ output }) => output)).toEqual(outputs.map((give, run) => ({ take: { run, give } })))
  })

  it('a NUL in an output or an error, and `throw undefined`, do not break settling', async () => {
    const slug = newSlug()
    const cases: (() => unknown)[] = [
      () => 'a\0b',
      () => {
        throw new Error('a\0b')
      },
      () => {
        throw undefined
      },
      () => 'fine',
    ]
    const flow = new Flow<number>({ slug, maxAttempts: 1 }).step('work', ({ run }) => cases[run]!() as string)
    await newWorker(flow)
    const run_ids = await db.startRuns(slug, [0, 1, 2, 3])
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(runs.map(({ status }) => status)).toEqual(['failed', 'failed', 'failed', 'completed'])
    expect(runs.map(({ error }) => error)).toEqual([
      expect.stringContaining('$ has a NUL character'),
      expect.stringContaining('a\uFFFDb'),
      expect.stringContaining('undefined was thrown'),
      null,
    ])
  })

  it('one slow task stops neither polling nor heartbeats, and no second worker gets it', async () => {
    const slug = newSlug()
    const slow = gate()
    const executions: number[] = []
    const flow = new Flow<number>({ slug }).step('work', async ({ run }) => {
      executions.push(run)
      if (run === 0) await slow.opened
      return run
    })
    await newWorker(flow, { concurrency: 2, lease: 1 })
    const [first] = await db.startRuns(slug, [0])
    const leases = () => db.sql<{ vt: Date }[]>`
      select q.vt from pgflow.step_tasks t join ${db.sql(`pgmq.q_${slug}`)} q on q.msg_id = t.message_id
      where t.run_id = ${first!} and t.status = 'started'`
    const { vt } = await until(leases)
    await newWorker(flow, { concurrency: 2, lease: 1 })
    const others = await db.startRuns(slug, [1, 2, 3, 4, 5])
    await Promise.all(others.map((run_id) => db.runEnded(run_id)))
    await until(async () => (await leases()).filter((lease) => lease.vt.getTime() > vt.getTime() + 2_000))
    slow.open()
    expect(await db.runEnded(first!)).toMatchObject({ output: { work: 0 } })
    expect(executions.toSorted()).toEqual([0, 1, 2, 3, 4, 5])
  })

  it('an error of the settling call is not taken for one of the handler', async () => {
    const slug = newSlug()
    await db.sql.unsafe(`
      create sequence public.settlements;
      create function public.deadlock_twice() returns trigger language plpgsql as $$
      begin
        if nextval('public.settlements') <= 2 then
          raise exception 'deadlock detected' using errcode = '40P01';
        end if;
        return null;
      end $$;
      create trigger deadlock_twice after update on pgflow.step_tasks for each row
      when (new.flow_slug = '${slug}' and new.status = 'completed') execute function public.deadlock_twice();
    `)
    let executions = 0
    await newWorker(new Flow({ slug }).step('work', () => ++executions))
    const run_id = await db.startRun(slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({ output: { work: 1 } })
    expect(executions).toBe(1)
    expect(await db.tasksOf(run_id)).toMatchObject([{ attempts_count: 1, error_message: null }])
    const [row] = await db.sql`select last_value::int as settlements from public.settlements`
    expect(row).toEqual({ settlements: 3 })
  })

  it('its connections are closed after what ran is settled', async () => {
    const slug = newSlug()
    const [running, finish] = [gate(), gate()]
    const flow = new Flow({ slug }).step('work', async () => {
      running.open()
      await finish.opened
      return 'settled'
    })
    const worker = await newWorker(flow)
    const run_id = await db.startRun(slug, null)
    await running.opened
    const stopped = worker.stop()
    finish.open()
    await stopped
    const [row] = await db.sql`select status, output from pgflow.runs where run_id = ${run_id}`
    expect(row).toEqual({ status: 'completed', output: { work: 'settled' } })
    await until(async () => {
      const open = await db.sql`select from pg_stat_activity where application_name = 'pgflow worker'`
      return open.length === 0 ? [open] : []
    })
  })

  it('timeouts are enforced, and an AbortError of the handler’s own is a failed attempt', async () => {
    const slug = newSlug()
    const reasons: unknown[] = []
    const flow = new Flow<string>({ slug, maxAttempts: 1, timeout: 1 }).step(
      'work',
      async ({ run }, { signal }) => {
        if (run === 'own') AbortSignal.abort().throwIfAborted()
        await once(signal, 'abort')
        reasons.push(signal.reason)
        return 'too late'
      },
    )
    await newWorker(flow)
    const run_ids = await db.startRuns(slug, ['own', 'endless'])
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(runs.map(({ error }) => error)).toEqual([
      expect.stringContaining('AbortError'),
      'step "work" timed out after 1 s',
    ])
    expect(reasons).toEqual([expect.any(TimeoutError)])
  })

  it('a step that it does not know fails its run and says so; what comes with it is done', async () => {
    const slug = newSlug()
    await newWorker(new Flow({ slug }).step('known', () => 'done'))
    await db.sql`select pgflow.add_step(${slug}, 'unknown', array['known'])`
    const run_id = await db.startRun(slug, null)
    expect(await db.runEnded(run_id)).toMatchObject({
      status: 'failed',
      error: expect.stringMatching(/^step "unknown" is not in the flow .* deploy the worker/),
    })
    expect(await db.tasksOf(run_id)).toMatchObject([
      { step_slug: 'known', status: 'completed' },
      { step_slug: 'unknown', status: 'failed', attempts_count: 1 },
    ])
  })

  it('polls that fail are repeated with pauses, and an idle worker makes one query a second', async () => {
    const proxy = await startProxy(db.url)
    onTestFinished(() => proxy[Symbol.asyncDispose]())
    const slug = newSlug()
    const errors: { seconds: number }[] = []
    const log = {
      debug() {},
      info() {},
      warn() {},
      error: (_: string, data?: object) => errors.push(data as never),
    }
    await newWorker(
      new Flow({ slug }).step('work', () => 1),
      { log },
      proxy.url,
    )
    await db.sql.unsafe('alter table pgflow.workers rename to hidden')
    await until(async () => (errors.length >= 4 ? [errors] : []))
    await db.sql.unsafe('alter table pgflow.hidden rename to workers')
    for (const [n, { seconds }] of errors.entries()) {
      expect(seconds).toBeGreaterThanOrEqual(0.05 * 2 ** n)
      expect(seconds).toBeLessThanOrEqual(0.1 * 2 ** n)
    }
    expect(await db.runEnded(await db.startRun(slug, null))).toMatchObject({ output: { work: 1 } })

    const polls = async (quantity: number) => {
      const before = proxy.queries()
      await until(async () => (proxy.queries() >= before + quantity ? [proxy] : []))
    }
    await polls(8)
    const began = performance.now()
    await polls(2)
    expect(performance.now() - began).toBeGreaterThan(1_000)
  })

  it('eight workers open sixteen connections at most', async () => {
    const slug = newSlug()
    const flow = new Flow<number>({ slug }).step('count', async () => {
      const [row] = await db.sql<{ count: number }[]>`
        select count(*)::int as count from pg_stat_activity where application_name = 'pgflow worker'`
      return row!.count
    })
    await Promise.all(Array.from({ length: 8 }, () => newWorker(flow, { concurrency: 20 })))
    const run_ids = await db.startRuns(
      slug,
      Array.from({ length: 100 }, (_, n) => n),
    )
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    const counts = runs.map(({ output }) => (output as { count: number }).count)
    expect(Math.max(...counts)).toBeLessThanOrEqual(16)
  })
})
