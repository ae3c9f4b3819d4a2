import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { Flow, type } from '@pgflow/sdk/flow'
import { startWorker } from '@pgflow/sdk/worker'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 3, onnotice: () => undefined })
  await sql`
    create table public.calls (run text, at timestamptz default now());
    create function public.noted(payload jsonb) returns jsonb language plpgsql as $$
    begin
      insert into public.calls (run) values (payload ->> 'run');
      return payload -> 'run';
    end $$;
    create function public.slow(payload jsonb) returns jsonb language plpgsql as $$
    begin
      perform public.noted(payload), pg_sleep((payload ->> 'run')::float8);
      return payload -> 'run';
    end $$;
    create function public.blocked(payload jsonb) returns jsonb language plpgsql as $$
    begin
      perform public.noted(payload), pg_advisory_xact_lock_shared((payload ->> 'run')::int);
      return payload -> 'run';
    end $$`.simple()
  await define('noted', [{ step_slug: 'a', sql_function: 'public.noted' }])
  await define('slow', [{ step_slug: 'a', sql_function: 'public.slow', timeout: 1 }])
  await define('blocked', [{ step_slug: 'a', sql_function: 'public.blocked' }])
})

afterAll(async () => {
  await sql?.end({ timeout: 1 })
  await stack?.stop()
})

async function define(flow_slug: string, steps: object[]): Promise<void> {
  const definition = { flow_slug, base_delay: 0, steps: steps.map((step) => ({ step_type: 'sql', ...step })) }
  await sql`select pgflow.register_flow(${JSON.stringify(definition)}::text::jsonb)`
}

async function start(flow: string, input: number): Promise<string> {
  const [run] = await sql`select run_id from pgflow.start_flow(${flow}, ${input}::text::jsonb)`
  return run!.run_id
}

async function taskOf(run_id: string) {
  const [task] = await sql`
    select t.status, t.error_message as error, t.attempts_count as attempts, (
      select count(*)::int from public.calls c where c.run = r.input::text
    ) as calls
    from pgflow.step_tasks t join pgflow.runs r using (run_id) where run_id = ${run_id}`
  return task
}

/** A connection whose backend can be found. */
function connect(application_name: string): Sql {
  const connection = postgres(stack.dbUrl, {
    ...{ max: 1, onnotice: () => undefined, backoff: false, connection: { application_name } },
  })
  onTestFinished(() => connection.end({ timeout: 1 }))
  return connection
}

/** As pg_cron does it, in one message: two statements of one transaction. */
async function tick(connection: Sql, before = ''): Promise<number> {
  const results = await connection
    .unsafe(
      `${before} select set_config('statement_timeout', pgflow.call_timeout()::text, true); select settled from pgflow.tick()`,
    )
    .simple()
  return (results.flat() as unknown as { settled?: number }[]).at(-1)!.settled!
}

/** Holds what the functions of runs with this input wait for, until it is let go. */
async function hold(n: number): Promise<() => Promise<void>> {
  const holder = connect('holder')
  await holder`select pg_advisory_lock(${n})`
  return async () => void (await holder`select pg_advisory_unlock(${n})`)
}

/** Resolves when the backend of this name waits for an advisory lock. */
async function untilBlocked(name: string): Promise<void> {
  await vi.waitFor(async () => {
    const waiting = await sql`
      select from pg_stat_activity where application_name = ${name} and wait_event = 'advisory'`
    expect(waiting).toHaveLength(1)
  })
}

test('a call that takes longer than its step allows is a failed attempt; the statement before has its own time', async () => {
  const [short, long] = [await start('slow', 0.6), await start('slow', 30)]
  const connection = connect('timed')
  expect(await tick(connection, 'select pg_sleep(0.6);')).toBe(1)
  expect(await tick(connection)).toBe(1)
  expect(await taskOf(short)).toMatchObject({ status: 'completed', calls: 1 })
  const timed_out = 'step "a" timed out after 1 s'
  expect(await taskOf(long)).toEqual({ status: 'waiting', error: timed_out, attempts: 1, calls: 0 })
  await sql`select pgflow.cancel_run(${long})`
  expect(await tick(connection)).toBe(1)
  expect((await connection`show statement_timeout`)[0]).toEqual({ statement_timeout: '0' })
})

test.each(['pg_cancel_backend', 'pg_terminate_backend'])(
  '%s loses nothing, not even an attempt',
  async (end) => {
    const n = end === 'pg_cancel_backend' ? 1 : 2
    const run_id = await start('blocked', n)
    const release = await hold(n)
    const ticked = tick(connect(end)).catch((error) => error.code)
    await untilBlocked(end)
    await sql.unsafe(`select ${end}(pid) from pg_stat_activity where application_name = '${end}'`)
    expect(await ticked).toBeOneOf(['57014', '57P01', 'CONNECTION_CLOSED'])
    expect(await taskOf(run_id)).toMatchObject({ status: 'waiting', attempts: 0, calls: 0 })
    await release()
    expect(await tick(sql)).toBe(1)
    expect(await taskOf(run_id)).toMatchObject({ status: 'completed', attempts: 1, calls: 1 })
  },
)

test('a run is cancelled and retried while its function runs, which has no effect then; nobody else calls it meanwhile', async () => {
  const run_id = await start('blocked', 3)
  const release = await hold(3)
  const first = tick(connect('first'))
  await untilBlocked('first')
  expect(await sql`select settled, pgflow.next_call_in() as due from pgflow.tick()`).toEqual([
    { settled: 0, due: null },
  ])
  await sql`select pgflow.cancel_run(${run_id})`
  expect(await taskOf(run_id)).toMatchObject({ status: 'cancelled' })
  await sql`select pgflow.retry_run(${run_id})`
  await release()
  expect(await first).toBeGreaterThan(0)
  await tick(sql)
  expect(await taskOf(run_id)).toMatchObject({ status: 'completed', attempts: 1, calls: 1 })
  expect(await sql`select from pgflow.alarms`).toEqual([])
})

test('a run that somebody has locked is not called for, and stops no other', async () => {
  const [held, free] = [await start('noted', 71), await start('noted', 72)]
  const holder = connect('holder of a run')
  await holder.begin(async (tx) => {
    await tx`select from pgflow.runs where run_id = ${held} for update`
    expect(await tick(sql)).toBe(2)
    expect(await taskOf(held)).toMatchObject({ status: 'waiting', attempts: 0 })
    expect(await taskOf(free)).toMatchObject({ status: 'completed', calls: 1 })
  })
  await vi.waitFor(async () => expect(await tick(sql)).toBe(1))
  expect(await taskOf(held)).toMatchObject({ status: 'completed', attempts: 1, calls: 1 })
})

test('connections are lost in the middle of calls: each row is there once', { timeout: 60_000 }, async () => {
  await sql`
    create table public.counts (run int, step text);
    create table public.sums (step text primary key, n int);
    insert into public.sums values ('a', 0), ('b', 0);
    create function public.counted(payload jsonb) returns jsonb language plpgsql as $$
    begin
      insert into public.counts values ((payload ->> 'run')::int, case when payload ? 'a' then 'b' else 'a' end);
      perform pg_sleep(0.002);
      update public.sums set n = n + 1 where step = case when payload ? 'a' then 'b' else 'a' end;
      return payload -> 'run';
    end $$`.simple()
  await define('counted', [
    { step_slug: 'a', sql_function: 'public.counted' },
    { step_slug: 'b', sql_function: 'public.counted', deps_slugs: ['a'] },
  ])
  const runs = 40
  await sql`select pgflow.start_flows('counted', (select jsonb_agg(n) from generate_series(1, ${runs}) n))`
  let isOver = false
  const tickers = ['t1', 't2', 't3'].map(async (name) => {
    const connection = connect(name)
    while (!isOver) await connection`select pgflow.tick()`.catch(() => undefined)
  })
  let kills = 0
  const open = async () =>
    sql`select from pgflow.runs where flow_slug = 'counted' and status = 'started' limit 1`
  while ((await open()).length > 0) {
    // Whoever is in a function at the moment.
    const killed =
      kills > 20
        ? []
        : await sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where application_name in ('t1', 't2', 't3') and wait_event = 'PgSleep' and random() < 0.3`
    kills += killed.length
  }
  isOver = true
  await Promise.all(tickers)
  expect(kills).toBeGreaterThan(5)
  expect(
    await sql`select count(*)::int, count(distinct (run, step))::int as different from public.counts`,
  ).toEqual([{ count: 2 * runs, different: 2 * runs }])
  expect(await sql`select n from public.sums`).toEqual([{ n: runs }, { n: runs }])
  expect(
    await sql`
      select r.status, r.output, count(*)::int from pgflow.runs r where flow_slug = 'counted' and output -> 'b' <> input group by 1, 2`,
  ).toEqual([])
})

test('a worker calls functions beside its other work', async () => {
  const Mixed = new Flow({ slug: 'mixed' })
    .input<number>()
    .step('before', ({ run }) => run + 1)
    .sql({ slug: 'noted', call: 'public.noted', dependsOn: ['before'], output: type<number>() })
    .sql({ slug: 'again', call: 'public.noted', dependsOn: ['noted'], output: type<number>() })
    .step('after', ['again'], ({ again }) => again + 1)
  const Sleeper = new Flow({ slug: 'sleeper' }).sleep({ slug: 'nap', for: 1 }).step('end', ['nap'], () => 1)
  const worker = await startWorker({ flows: [Mixed, Sleeper], connection: stack.dbUrl })
  onTestFinished(() => worker.stop())
  const endOf = async (run_id: string) => {
    const completed = () =>
      sql`select output from pgflow.runs where run_id = ${run_id} and status = 'completed'`
    await vi.waitFor(async () => expect(await completed()).toHaveLength(1), { timeout: 5_000, interval: 20 })
    return (await completed())[0]!.output
  }
  expect(await endOf(await start('mixed', 41))).toEqual({ after: 42 })
  // One that takes long delays neither handlers nor sleeps.
  const release = await hold(4)
  const blocked = await start('blocked', 4)
  await vi.waitFor(async () => {
    expect(await sql`select from pg_locks where locktype = 'advisory' and not granted`).toHaveLength(1)
  })
  expect(await endOf(await start('sleeper', 1))).toEqual({ end: 1 })
  await release()
  expect(await endOf(blocked)).toEqual({ a: 4 })
})
