import { EventEmitter, once } from 'node:events'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { Flow } from '../flow/index.ts'
import { isTransient } from './faults.ts'
import { startWorker } from './index.ts'
import { openTransport } from './open.ts'
import type { WorkerConnection } from './options.ts'
import { keyOf } from './tasks.ts'
import { migrations } from './testing/database.ts'
import type { ClaimedTask, Result, Transport, WorkRequest } from './transport.ts'

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({ migrations: [migrations], fsync: false })
  sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} })
})
afterAll(async () => {
  await sql?.end({ timeout: 1 })
  await stack?.stop()
})

const connections: [string, () => WorkerConnection][] = [
  ['postgres', () => ({ connection: stack.dbUrl })],
  ['postgres, through a transaction pooler', () => ({ connection: stack.poolerUrl })],
  ['RPC with a secret key', () => ({ url: stack.url, secretKey: stack.secretKey })],
  ['RPC with the older service_role key', () => ({ url: `${stack.url}/`, secretKey: stack.serviceRoleKey })],
]

const values = [null, false, 0, '', '123', '{"a": 1}', [], {}, 1e300, -0.1, 'it’s "quoted" \\ 😀', [[null]]]

const worker_id = '30000000-0000-4000-8000-000000000001'
let flows = 0

describe.each(connections)('The transport over %s', (_, connection) => {
  let transport: Transport
  let flow_slug: string

  beforeAll(async () => {
    transport = openTransport(connection())
  })
  afterAll(() => transport.close())

  /** A flow of the test's own. */
  async function newFlow(options: { maxAttempts?: number } = {}) {
    flow_slug = `contract_${++flows}`
    const flow = new Flow<unknown>({ slug: flow_slug, ...options })
      .step('a', ({ run }) => run)
      .step('b', ['a'], ({ a }) => a)
    await transport.defineFlow(flow)
    return flow
  }

  async function start(input: unknown = null): Promise<string> {
    const [run] = await sql`
      select run_id from pgflow.start_flow(${flow_slug}, ${JSON.stringify(input)}::text::jsonb)`
    return run!.run_id
  }

  async function work(results: readonly Result[], more: Partial<WorkRequest> = {}) {
    return transport.settleAndClaim({
      results,
      flow_slugs: [flow_slug],
      quantity: 10,
      worker_id,
      lease: 30,
      inline_limit: 65_536,
      waiting: false,
      ...more,
    })
  }

  async function claim(more: Partial<WorkRequest> = {}): Promise<ClaimedTask[]> {
    return [...(await work([], more)).tasks]
  }

  it('defines a flow, again too, and says what differs from it', async () => {
    await transport.defineFlow(await newFlow())
    expect(await sql`select step_slug from pgflow.steps where flow_slug = ${flow_slug} order by 1`).toEqual([
      { step_slug: 'a' },
      { step_slug: 'b' },
    ])
    const other = new Flow<null>({ slug: flow_slug }).step('a', () => 1)
    const error = await transport.defineFlow(other).catch((error) => error)
    expect(error).toMatchObject({ code: 'PT409' })
    expect(isTransient(error)).toBe(false)
  })

  it('claims tasks with all that a handler needs', async () => {
    await newFlow()
    const input = { n: 1.5, text: 'ünïcode "quoted" \\ 😀', nothing: null }
    const run_id = await start(input)
    expect(await claim()).toMatchObject([
      {
        ...{ flow_slug, run_id, step_slug: 'a', task_index: 0, attempt: 1 },
        ...{ timeout: 60, input: { run: input }, refs: null },
      },
    ])
    expect(await claim()).toEqual([])
  })

  it('settles and claims at once, and tells what was stale', async () => {
    await newFlow()
    await start()
    const [task] = await claim()
    const old = { ...keyOf(task!), attempt: 0, outputJson: '"old"' }
    const { stale, tasks } = await work([old, { ...keyOf(task!), outputJson: '"new"' }])
    expect(stale).toEqual([keyOf(old)])
    expect(tasks).toMatchObject([{ step_slug: 'b', input: { a: 'new' } }])
  })

  it('calls functions of SQL steps, each in a call of its own', async () => {
    await sql`create or replace function public.called(payload jsonb) returns jsonb language sql return payload`
    const flow = new Flow<number>({ slug: `calls_${++flows}`, timeout: 3 })
      .sql({ slug: 'a', call: 'public.called' })
      .sql({ slug: 'b', call: 'public.called', dependsOn: ['a'] })
    flow_slug = flow.slug
    await transport.defineFlow(flow)
    const run_id = await start(5)
    expect(await transport.tick()).toMatchObject({ settled: 0 })
    expect(await work([], { due: true })).toMatchObject({ next_call_in: expect.any(Number) })
    expect(await transport.callFunctions()).toMatchObject({ settled: 1, next_due_in: expect.any(Number) })
    expect(await transport.callFunctions()).toEqual({ settled: 1, next_due_in: null })
    expect(await transport.callFunctions()).toEqual({ settled: 0, next_due_in: null })
    expect(await sql`select output from pgflow.runs where run_id = ${run_id}`).toEqual([
      { output: { b: { run: 5, a: { run: 5 } } } },
    ])
  })

  it('settles without claiming', async () => {
    await newFlow()
    await start()
    const [task] = await claim()
    expect(await work([{ ...keyOf(task!), outputJson: '1' }], { quantity: 0 })).toMatchObject({
      stale: [],
      held: [],
      tasks: [],
    })
    expect(await claim()).toMatchObject([{ step_slug: 'b' }])
  })

  it('completes waits', async () => {
    flow_slug = `contract_${++flows}`
    await transport.defineFlow(new Flow({ slug: flow_slug }).wait({ slug: 'a' }))
    const run_id = await start()
    await transport.completeWait({ run_id, step_slug: 'a', outputJson: '{"a":1.50}' })
    const [run] = await sql`select status, output::text from pgflow.runs where run_id = ${run_id}`
    expect(run).toEqual({ status: 'completed', output: '{"a": {"a": 1.50}}' })
    await expect(transport.completeWait({ run_id, step_slug: 'a', outputJson: '2' })).rejects.toMatchObject({
      code: 'PT409',
    })
  })

  it.each(values.map((value) => [value]))('carries %j in both directions', async (value) => {
    await newFlow()
    await start(value)
    const [task] = await claim()
    expect(task!.input).toEqual({ run: value })
    const { tasks } = await work([{ ...keyOf(task!), outputJson: JSON.stringify(value) }])
    expect(tasks[0]!.input).toEqual({ run: value, a: value })
  })

  it('settles failures: with a delay, for good, and with what was thrown', async () => {
    await newFlow({ maxAttempts: 5 })
    const run_id = await start()
    const [first] = await claim()
    const thrown = { name: 'TypeError', message: 'no', stack: 'TypeError: no\n    at …' }
    const { tasks } = await work([{ ...keyOf(first!), error: 'first', thrown, retry_delay: 0 }])
    expect(tasks).toMatchObject([{ attempt: 2 }])
    const [row] =
      await sql`select last_error from pgflow.step_tasks where run_id = ${run_id} and step_slug = 'a'`
    expect(row!.last_error).toEqual(thrown)
    await work([{ ...keyOf(tasks[0]!), error: 'second', permanent: true }])
    expect(await sql`select status, error from pgflow.runs where run_id = ${run_id}`).toEqual([
      { status: 'failed', error: 'second' },
    ])
  })

  it('extends leases and tells which tasks are lost', async () => {
    await newFlow()
    const run_id = await start()
    await transport.registerWorker({ worker_id: crypto.randomUUID(), name: 'w', flow_slugs: [flow_slug] })
    const [task] = await claim({ lease: 1 })
    const key = keyOf(task!)
    const leases = await transport.heartbeat(worker_id, [key, { ...key, attempt: 9 }], 1000)
    expect(leases).toEqual([
      { ...key, active: true, status: 'started' },
      { ...key, attempt: 9, active: false, status: null },
    ])
    const [hidden] = await sql.unsafe(`select vt > now() + interval '900 s' as long from pgmq.q_${flow_slug}`)
    expect(hidden).toEqual({ long: true })
    await sql`select pgflow.cancel_run(${run_id}, 'enough')`
    expect(await transport.heartbeat(worker_id, [key], 1)).toEqual([
      { ...key, active: false, status: 'cancelled' },
    ])
    expect(await transport.heartbeat(worker_id, [], 1)).toEqual([])
  })

  it('settles what is due, and says when something is', async () => {
    await newFlow()
    await sql`select pgflow.add_step(${flow_slug}, 'c', array['b'], step_type => 'sleep', sleep_for => 3600)`
    const run_id = await start()
    for (const quantity of [1, 1]) {
      const [task] = await claim({ quantity })
      const { next_due_in } = await work([{ ...keyOf(task!), outputJson: '1' }], { quantity: 0, due: true })
      if (task!.step_slug === 'b') expect(next_due_in).toBeGreaterThan(0)
    }
    await sql`update pgflow.step_tasks set due_at = clock_timestamp() where run_id = ${run_id} and due_at is not null`
    expect(await transport.tick()).toEqual({ settled: 1, next_due_in: null })
    expect(await sql`select status from pgflow.runs where run_id = ${run_id}`).toEqual([
      { status: 'completed' },
    ])
  })

  it('hands tasks back: they can be claimed at once, and the attempt does not count', async () => {
    await newFlow({ maxAttempts: 1 })
    await start()
    const [task] = await claim()
    await transport.handBack([keyOf(task!)])
    expect(await claim()).toMatchObject([{ step_slug: 'a', attempt: 2 }])
  })

  it('reports progress', async () => {
    await newFlow()
    const run_id = await start()
    const [task] = await claim()
    const data = { page: 3 }
    await transport.reportProgress([{ ...keyOf(task!), progress: { value: 0.5, data } }])
    const [state] = await sql`
      select progress from pgflow.step_states where run_id = ${run_id} and step_slug = 'a'`
    expect(state!.progress).toEqual({ value: 0.5, data })
  })

  it('leaves large values out and fetches them as they are', async () => {
    await newFlow()
    const large = { text: 'x'.repeat(100_000), small: '"' }
    const run_id = await start(large)
    const [task] = await claim({ inline_limit: 1000 })
    expect(task!.input).toEqual({})
    const version = task!.refs!.run!
    expect(JSON.parse(await transport.fetchValue({ run_id, name: 'run', version }))).toEqual(large)
    const gone = await transport.fetchValue({ run_id, name: 'run', version: '0' }).catch((error) => error)
    expect(gone).toMatchObject({ code: 'PT404' })
  })

  it('lists the worker until it stops', async () => {
    const id = crypto.randomUUID()
    await transport.registerWorker({ worker_id: id, name: 'it’s me', flow_slugs: ['f', 'g'] })
    await transport.heartbeat(id, [], 30)
    await transport.stopWorker(id)
    expect(
      await sql`
        select name, flow_slugs, stopped_at is not null as has_stopped from pgflow.workers where worker_id = ${id}`,
    ).toEqual([{ name: 'it’s me', flow_slugs: ['f', 'g'], has_stopped: true }])
  })

  it('tells what the database refuses from what may succeed later', async () => {
    await newFlow()
    await start()
    const [task] = await claim()
    const refused = await work([{ ...keyOf(task!), outputJson: '"\\u0000"' }]).catch((error) => error)
    expect(refused).toMatchObject({ code: '22P05' })
    expect(isTransient(refused)).toBe(false)
    expect(await work([{ ...keyOf(task!), outputJson: '"fine"' }])).toMatchObject({ stale: [] })
  })

  it('asks one thing at a time of many', async () => {
    await newFlow()
    await Promise.all(Array.from({ length: 20 }, () => start()))
    const claims = await Promise.all(Array.from({ length: 20 }, () => claim({ quantity: 1 })))
    const runs = claims.flat().map(({ run_id }) => run_id)
    expect(new Set(runs).size).toBe(runs.length)
  })

  it('says that it is closed', async () => {
    const other = openTransport(connection())
    await other.heartbeat(worker_id, [], 30)
    await other.close()
    await expect(other.heartbeat(worker_id, [], 30)).rejects.toThrow()
  })
})

describe('A worker with a key', () => {
  const flows = [new Flow<null>({ slug: 'keyed' }).step('a', () => 1)]

  it('runs flows', async () => {
    const worker = await startWorker({ url: stack.url, secretKey: stack.secretKey, flows })
    onTestFinished(() => worker.stop())
    const channel = new EventEmitter()
    const ended = once(channel, 'end')
    await sql.listen('keyed', () => channel.emit('end'))
    await sql.unsafe(`
      create function public.tell() returns trigger language plpgsql as $$
      begin
        perform pg_notify('keyed', '');
        return null;
      end $$;
      create trigger tell after update of status on pgflow.runs for each row execute function public.tell()`)
    const [run] = await sql`select run_id from pgflow.start_flow('keyed', 'null')`
    await ended
    expect(await sql`select status, output from pgflow.runs where run_id = ${run!.run_id}`).toEqual([
      { status: 'completed', output: { a: 1 } },
    ])
  })

  it('that is not secret does not start', async () => {
    const starting = startWorker({ url: stack.url, secretKey: stack.publishableKey, flows })
    await expect(starting).rejects.toMatchObject({
      code: 'worker_not_started',
      message: expect.stringContaining('permission denied for schema pgflow_worker'),
    })
  })

  it('that nobody knows does not start', async () => {
    const starting = startWorker({ url: stack.url, secretKey: 'sb_secret_guess', flows })
    await expect(starting).rejects.toThrow('Invalid API key')
  })

  it('needs the schema to be exposed, and says so', async () => {
    await using closed = await startLocalSupabase({ schemas: ['public'], fsync: false })
    const starting = startWorker({ url: closed.url, secretKey: closed.secretKey, flows })
    await expect(starting).rejects.toThrow('Add pgflow_worker to the exposed schemas')
  })
})

describe('A database that is away', () => {
  it.each(connections)('is a failure that may pass, over %s', async (_, connection) => {
    const transport = openTransport(connection())
    onTestFinished(() => transport.close())
    await transport.heartbeat(worker_id, [], 30)
    await stack.postgres.kill()
    const failure = await transport.heartbeat(worker_id, [], 30).catch((error) => error)
    expect(failure).toBeInstanceOf(Error)
    expect(isTransient(failure)).toBe(true)
    await stack.postgres.start()
    expect(await persistently(() => transport.heartbeat(worker_id, [], 30))).toEqual([])
  })
})

/** As the worker does: a connection that was lost fails once more. */
async function persistently<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  while (true) {
    try {
      return await ask()
    } catch (error) {
      if (!isTransient(error)) throw error
    }
  }
}
