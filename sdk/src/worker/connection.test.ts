import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { Flow } from '../flow/index.ts'
import { startWorker } from './index.ts'
import { openTransport } from './open.ts'
import { openPostgresTransport } from './postgres.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'
import { startProxy } from './testing/proxy.ts'
import { Notifier } from './time.ts'
import type { Transport, WorkRequest } from './transport.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

/** Slugs that no other test has. */
let flows = 0
const newSlug = () => `flow_${++flows}`

function newTransport(url: string): Transport {
  const transport = openTransport({ connection: url })
  onTestFinished(() => transport.close())
  return transport
}

async function newProxy(url = db.url) {
  const proxy = await startProxy(url)
  onTestFinished(() => proxy[Symbol.asyncDispose]())
  return proxy
}

function request(flow_slug: string, more: Partial<WorkRequest> = {}): WorkRequest {
  return {
    results: [],
    flow_slugs: [flow_slug],
    quantity: 10,
    worker_id: crypto.randomUUID(),
    lease: 30,
    inline_limit: 65_536,
    waiting: false,
    ...more,
  }
}

/** A worker without a core, which keeps what it is told. */
async function newListener(flow_slug: string) {
  const transport = newTransport(db.url)
  const worker_id = crypto.randomUUID()
  const told: (string | undefined)[] = []
  const notifier = new Notifier()
  const works = await transport.listen!((slug) => {
    told.push(slug)
    notifier.notify()
  })
  expect(works).toBe(true)
  await transport.defineFlow(new Flow({ slug: flow_slug }).step('a', () => 1).step('b', ['a'], () => 2))
  await transport.registerWorker({ worker_id, name: 'listener', flow_slugs: [flow_slug] })
  return {
    transport,
    work: (more: Partial<WorkRequest>) =>
      transport.settleAndClaim(request(flow_slug, { worker_id, quantity: 1, ...more })),
    /** What was told until now, in order: notifications of different transactions do not overtake each other. */
    async told() {
      const end = crypto.randomUUID()
      await db.sql.notify('pgflow_tasks', end)
      while (told.at(-1) !== end) await notifier.wait(Number.POSITIVE_INFINITY)
      return told.splice(0).slice(0, -1)
    },
    async next() {
      if (told.length === 0) await notifier.wait(Number.POSITIVE_INFINITY)
      return told.shift()
    },
  }
}

describe('A worker that waits for tasks', () => {
  it('is told of them once a transaction, and only while it waits', async () => {
    const [slug, other] = [newSlug(), newSlug()]
    const listener = await newListener(slug)
    await listener.transport.defineFlow(new Flow({ slug: other }).step('a', () => 1))
    await db.startRun(slug, 0)
    expect(await listener.told()).toEqual([])

    expect((await listener.work({ waiting: true })).tasks).toHaveLength(1)
    await db.startRun(slug, 1)
    expect(await listener.told(), 'it has got work').toEqual([])

    expect((await listener.work({ waiting: true })).tasks).toHaveLength(1)
    expect((await listener.work({ waiting: true })).tasks).toEqual([])
    await db.startRuns(slug, [2, 3, 4])
    await db.startRun(other, 5)
    expect(await listener.told()).toEqual([slug])
  })

  it('is told of what a settlement, a retry or another worker makes ready', async () => {
    const slug = newSlug()
    const listener = await newListener(slug)
    const run_id = await db.startRun(slug, null)
    const { tasks } = await listener.work({})
    await listener.work({ waiting: true })
    await listener.transport.handBack(tasks)
    expect(await listener.told()).toEqual([slug])

    const [task] = (await listener.work({})).tasks
    await listener.work({ waiting: true })
    await db.sql`select pgflow.complete_task(${run_id}, 'a', ${task!.task_index}, '1')`
    expect(await listener.told()).toEqual([slug])

    await listener.work({})
    await db.sql`select pgflow.cancel_run(${run_id})`
    await listener.work({ waiting: true })
    await db.sql`select pgflow.retry_run(${run_id})`
    expect(await listener.told()).toEqual([slug])
  })

  it('is told that it may have missed some when its connection was lost', async () => {
    const slug = newSlug()
    const listener = await newListener(slug)
    await db.sql`select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen pgflow_tasks'`
    expect(await listener.next()).toBeUndefined()
    await listener.work({ waiting: true })
    await db.startRun(slug, null)
    expect(await listener.next()).toBe(slug)
  })

  it('finds out that nothing is heard through a transaction pooler, prepares no statement there, and polls', async () => {
    const slug = newSlug()
    const proxy = await newProxy(db.poolerUrl)
    const transport = newTransport(proxy.url)
    expect(await transport.listen!(() => {})).toBe(false)
    await transport.defineFlow(new Flow({ slug: newSlug() }).step('a', () => 1))
    const before = proxy.roundTrips()
    await transport.defineFlow(new Flow({ slug: newSlug() }).step('a', () => 1))
    expect(proxy.roundTrips() - before, 'it asks for the types first').toBe(2)
    const flow = new Flow({ slug }).step('a', () => 'polled')
    const worker = await startWorker({ connection: db.poolerUrl, flows: [flow] })
    onTestFinished(() => worker.stop())
    expect(await db.runEnded(await db.startRun(slug, null))).toMatchObject({ output: { a: 'polled' } })
  })
})

describe('The connections of a worker', () => {
  it.each([
    [1, 1],
    [2, 2],
    [undefined, 3],
  ])(
    'are never more than maxConnections, %s, allows; the third is open while many tasks end',
    async (maxConnections, most) => {
      const slug = newSlug()
      const [{ since } = { since: '' }] = await db.sql<
        { since: string }[]
      >`select clock_timestamp()::text as since`
      const open = async () => {
        const [row] = await db.sql<{ count: number }[]>`
        select count(*)::int as count from pg_stat_activity
        where application_name = 'pgflow worker' and backend_start > ${since}::timestamptz`
        return row!.count
      }
      const counts: number[] = []
      const flow = new Flow<number>({ slug }).step('count', async ({ run }, { progress }) => {
        progress(1)
        if (run % 20 === 0) counts.push(await open())
      })
      const worker = await startWorker({
        connection: db.url,
        flows: [flow],
        ...(maxConnections && { maxConnections }),
      })
      onTestFinished(() => worker.stop())
      await db.runEnded(await db.startRun(slug, 0))
      expect(await open()).toBe(Math.min(most, 2))
      await db.startRuns(
        slug,
        Array.from({ length: 600 }, (_, n) => n),
      )
      await until(
        () => db.sql`
        select from pgflow.runs where flow_slug = ${slug} having count(*) filter (where status = 'started') = 0`,
      )
      expect(Math.max(...counts)).toBe(most)
    },
  )

  it('make one query of settling and claiming', async () => {
    const slug = newSlug()
    const proxy = await newProxy()
    const transport = newTransport(proxy.url)
    await transport.defineFlow(new Flow({ slug }).step('a', () => 1))
    await db.startRuns(slug, [1, 2, 3])
    const before = proxy.queries()
    const { tasks } = await transport.settleAndClaim(request(slug))
    expect([tasks.length, proxy.queries() - before]).toEqual([3, 1])
    const results = tasks.map(({ run_id, step_slug, task_index, attempt }) => {
      return { run_id, step_slug, task_index, attempt, outputJson: '1' }
    })
    expect(await transport.settleAndClaim(request(slug, { results }))).toEqual({
      stale: [],
      held: [],
      tasks: [],
    })
    expect(proxy.queries() - before).toBe(2)
  })

  it('wait for one answer a call, once the statement of a session is prepared', async () => {
    const slug = newSlug()
    const proxy = await newProxy()
    const transport = newTransport(proxy.url)
    expect(await transport.listen!(() => {})).toBe(true)
    await transport.defineFlow(new Flow({ slug }).step('a', () => 1))
    await transport.settleAndClaim(request(slug))
    const before = proxy.roundTrips()
    await transport.settleAndClaim(request(slug))
    expect(proxy.roundTrips() - before).toBe(1)
  })

  it('settle the other runs, and keep the leases, while a run is locked', async () => {
    const slug = newSlug()
    const finish = new Map<string, (value: string) => void>()
    const flow = new Flow<string>({ slug }).step('work', ({ run }) => {
      return new Promise<string>((resolve) => finish.set(run, resolve))
    })
    const worker = await startWorker({ connection: db.url, flows: [flow], lease: 1 })
    onTestFinished(() => worker.stop())
    const [slow, quick] = await db.startRuns(slug, ['slow', 'quick'])
    const leases = () => db.sql<{ vt: Date }[]>`
      select q.vt from pgflow.step_tasks t join ${db.sql(`pgmq.q_${slug}`)} q on q.msg_id = t.message_id
      where t.run_id = ${quick!} and t.status = 'started'`
    const { vt } = await until(leases)
    await until(async () => (finish.size === 2 ? [finish] : []))

    await db.sql.begin(async (sql) => {
      await sql`select from pgflow.runs where run_id = ${quick!} for update`
      finish.get('quick')!('quick')
      await until(async () => (await leases()).filter((lease) => lease.vt.getTime() > vt.getTime() + 2_000))
      finish.get('slow')!('slow')
      expect(await db.runEnded(slow!)).toMatchObject({ output: { work: 'slow' } })
    })
    expect(await db.runEnded(quick!)).toMatchObject({ output: { work: 'quick' } })
    const tasks = await db.sql`select attempts_count from pgflow.step_tasks where flow_slug = ${slug}`
    expect([...tasks]).toEqual([{ attempts_count: 1 }, { attempts_count: 1 }])
  })

  it('are replaced when they do not answer any more', async () => {
    const slug = newSlug()
    const proxy = await newProxy()
    const patience = { patience: 2, freePatience: 2 }
    const transport = openPostgresTransport({ connection: proxy.url }, patience)
    onTestFinished(() => transport.close())
    const worker_id = crypto.randomUUID()
    await transport.defineFlow(new Flow({ slug }).step('a', () => 1))
    await transport.registerWorker({ worker_id, name: 'patient', flow_slugs: [slug] })
    const told: (string | undefined)[] = []
    expect(await transport.listen!((flow_slug) => told.push(flow_slug))).toBe(true)

    proxy.freeze()
    const silence = 'The database did not answer for 2 s'
    const work = request(slug, { worker_id, waiting: true })
    await expect(transport.settleAndClaim(work)).rejects.toThrow(silence)
    expect(await transport.settleAndClaim(work)).toEqual({ stale: [], held: [], tasks: [] })
    await expect(transport.heartbeat(worker_id, [], 30)).rejects.toThrow(silence)
    expect(await transport.heartbeat(worker_id, [], 30)).toEqual([])
    await until(async () => (told.length > 0 ? [told] : []))
    await transport.settleAndClaim(work)
    await db.startRun(slug, null)
    await until(async () => (told.length > 1 ? [told] : []))
    expect(told).toEqual([undefined, slug])
  })

  it('may be cut at any time: nothing is run twice', async () => {
    const slug = newSlug()
    const proxy = await newProxy()
    const executed: unknown[] = []
    const flow = new Flow<number>({ slug }).step('work', async ({ run }) => {
      executed.push(run)
      if (run % 7 === 0) proxy.cut()
      return run
    })
    const worker = await startWorker({ connection: proxy.url, flows: [flow], concurrency: 2, lease: 2 })
    onTestFinished(() => worker.stop())
    const inputs = Array.from({ length: 30 }, (_, n) => n)
    const run_ids = await db.startRuns(slug, inputs)
    const runs = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
    expect(runs.map(({ output }) => output)).toEqual(inputs.map((work) => ({ work })))
    expect(executed.length).toBe(new Set(executed).size)
  })
})

describe('A large value', () => {
  it('of 5 MB that 1,000 tasks of a map need crosses the wire once', async () => {
    const slug = newSlug()
    const proxy = await newProxy()
    const size = 5_000_000
    const flow = new Flow({ slug })
      .step('book', () => ({ text: 'x'.repeat(size) }))
      .step('pages', ['book'], ({ book }) => Array.from({ length: 1_000 }, (_, n) => [n, book.text.length]))
      .map({ slug: 'words', dependsOn: ['book'], items: 'pages' }, async (page, { payload }) => {
        const { book } = (await payload()) as { book: { text: string } }
        return [...page.slice(0, 1), book.text.length]
      })
    const worker = await startWorker({ connection: proxy.url, flows: [flow], concurrency: 100 })
    onTestFinished(() => worker.stop())
    const { status, output } = await db.runEnded(await db.startRun(slug, null))
    expect(status).toBe('completed')
    const { words } = output as { words: number[][] }
    expect(words).toEqual(Array.from({ length: 1_000 }, (_, n) => [n, size]))
    expect(proxy.received()).toBeGreaterThan(size)
    expect(proxy.received()).toBeLessThan(1.5 * size)
  })

  it('is merged into the payload of a single step, as its own copy; a small one comes along', async () => {
    const slug = newSlug()
    const add = (run: string[], small: string[]) => ({ length: run.push('more'), small })
    const flow = new Flow<string[]>({ slug })
      .step('small', () => ['s'])
      .step('first', ['small'], ({ run, small }) => add(run, small))
      .step('second', ['small'], ({ run, small }) => add(run, small))
    const worker = await startWorker({ connection: db.url, flows: [flow], inlineLimit: 100, concurrency: 1 })
    onTestFinished(() => worker.stop())
    const input = Array.from({ length: 200 }, (_, n) => String(n))
    expect(await db.runEnded(await db.startRun(slug, input))).toMatchObject({
      output: { first: { length: 201, small: ['s'] }, second: { length: 201, small: ['s'] } },
    })
  })

  it('that is gone fails the attempt, which says so', async () => {
    const slug = newSlug()
    const flow = new Flow<string>({ slug, baseDelay: 0 })
      .step('first', () => 'x'.repeat(1_000))
      .step('second', ['first'], ({ first }, { attempt }) => [first.length, attempt])
    await db.sql.unsafe(`
      create function public.spoil() returns trigger language plpgsql as $$
      begin
        update pgflow.step_states set completed_at = completed_at - interval '1 s'
        where run_id = new.run_id and step_slug = 'first';
        return null;
      end $$;
      create trigger spoil after update on pgflow.step_tasks for each row
      when (new.flow_slug = '${slug}' and new.step_slug = 'second' and new.status = 'started' and new.attempts_count = 1)
      execute function public.spoil();
    `)
    const worker = await startWorker({ connection: db.url, flows: [flow], inlineLimit: 100 })
    onTestFinished(() => worker.stop())
    const run_id = await db.startRun(slug, '')
    expect(await db.runEnded(run_id)).toMatchObject({ output: { second: [1_000, 2] } })
    const [event] = await db.sql`
      select data ->> 'error' as error from pgflow.run_events where run_id = ${run_id} and type = 'step:retrying'`
    expect(event!.error).toMatch(
      /"second" failed: its input "first" cannot be fetched: the value "first" of run .* is gone/,
    )
  })
})
