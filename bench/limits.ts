/**
 * What limits do, and what they cost.
 *
 * 1. Fairness: 20 tenants, one of them with 100 times the load of each other one. Jain's index over what each gets while it has tasks,
 *    counted in rounds; then with a worker whose handler takes some milliseconds, also how long the others wait.
 * 2. Tasks with one key, with one of 100 keys and with two keys beside tasks without: throughput, processor time, log.
 * 3. A map of 10,000 items with `concurrency: 20` beside one without, and how many messages are in the queue at most.
 * 4. Eight connections that work on tasks of one key and of 100 keys: throughput, deadlocks.
 *
 *   npm run bench limits             PARTS=fairness,keys,map,contention TASKS=10000 ROUNDS=5
 *
 * What flows without limits pay is in `npm run bench before`.
 */
import { startLocalSupabase } from '@pgflow/local'
import { Flow } from '@pgflow/sdk/flow'
import { startWorker } from '@pgflow/sdk/worker'
import type { Sql } from 'postgres'
import { connect, migrations } from './lib/connect.ts'
import { jainOf, sharesOf } from './lib/fairness.ts'
import { drainLimited, exchanged, type Task } from './lib/tasks.ts'
import { cpuOf, measure, median, percentile, spread, table } from './measure.ts'

const { PARTS = 'fairness,keys,map,contention', TASKS = '10000', ROUNDS = '5' } = process.env
const tasks = Number(TASKS)
const rounds = Number(ROUNDS)
const parts = PARTS.split(',')

await using stack = await startLocalSupabase({ migrations: [migrations] })
const sql = connect(stack.dbUrl, 10)

async function register(flow_slug: string, limits: readonly object[] = [], step: object = {}): Promise<void> {
  const definition = {
    flow_slug,
    steps: [{ step_slug: 'work', ...step }],
    ...(limits.length > 0 && { limits }),
  }
  await sql`select pgflow.register_flow(${sql.json(definition as never)})`
}

/** Starts runs of as many tenants, one after another. */
async function startFor(flow: string, count: number, tenants: number): Promise<void> {
  for (let n = 0; n < count; n += 1000) {
    await sql`
      select count(*) from pgflow.start_flows(${flow}, (
        select jsonb_agg(jsonb_build_object('tenant', n % ${tenants}::int)) from generate_series(1, ${Math.min(1000, count - n)}::int) n
      ))`
  }
}

async function open(flow: string): Promise<number> {
  const [row] = await sql`
    select count(*)::int as runs from pgflow.runs r where r.flow_slug = ${flow} and r.status = 'started'`
  return row?.runs
}

async function untilEnded(flow: string): Promise<void> {
  while ((await open(flow)) > 0) await new Promise((resolve) => setTimeout(resolve, 20))
}

const byTenant = (running: number) => [{ by_path: 'run.tenant', running }]

async function fairness(): Promise<void> {
  const load = { tenants: 20, tasks: 10, slots: 20 }
  await register('crowd')
  await register('crowd_limited', byTenant(1))
  const counted = []
  for (const flow of ['crowd', 'crowd_limited']) {
    counted.push(jainOf(await sharesOf(sql, flow, load)))
    await sql`select pgflow.cancel_run(r.run_id) from pgflow.runs r where r.flow_slug = ${flow} and r.status = 'started'`
  }
  const timed = []
  for (const flow of ['crowd', 'crowd_limited']) timed.push(await flood(flow, load.tenants, load.tasks))
  table(
    ['20 tenants, one with 100 times the load', 'without a limit', 'one task a tenant at a time'],
    [
      ["Jain's index, counted in rounds of 20", ...counted.map((index) => index.toFixed(2))],
      ["Jain's index, tasks a second of a worker", ...timed.map(({ index }) => index.toFixed(2))],
      ['the others wait for a task, median, ms', ...timed.map(({ waits }) => median(waits).toFixed(0))],
      ['p99, ms', ...timed.map(({ waits }) => percentile(waits, 99).toFixed(0))],
      ['tasks a second of all', ...timed.map(({ rate }) => rate.toFixed(0))],
    ],
  )
  console.log()
}

/** The flood first, then the others, through one worker with 20 slots whose handler takes 10 ms. */
async function flood(flow_slug: string, tenants: number, count: number) {
  await sql`delete from pgflow.runs r where r.flow_slug = ${flow_slug}`
  const [began] = await sql`select clock_timestamp() as at`
  await startFor(flow_slug, count * 100, 1)
  for (let tenant = 1; tenant < tenants; tenant++) {
    await sql`
      select count(*) from pgflow.start_flows(
        ${flow_slug}, (select jsonb_agg(jsonb_build_object('tenant', ${tenant}::int)) from generate_series(1, ${count}::int))
      )`
  }
  const limited = flow_slug.endsWith('_limited')
  const flow = new Flow<{ tenant: number }>({
    slug: flow_slug,
    ...(limited && { limits: [{ by: 'run.tenant', running: 1 }] }),
  }).step('work', () => new Promise<number>((resolve) => setTimeout(resolve, 10, 1)))
  const worker = await startWorker({ connection: stack.dbUrl, flows: [flow], concurrency: 20, log: false })
  // Until the others are done; the flood goes on alone.
  await untilDone(flow_slug)
  const shares = await sql<{ rate: number }[]>`
    select count(t.completed_at) / extract(epoch from max(t.completed_at) - ${began?.at})::float8 as rate
    from pgflow.step_tasks t
    join pgflow.runs r using (run_id)
    where t.flow_slug = ${flow_slug}
    group by r.input ->> 'tenant'`
  const waits = await sql<{ ms: number }[]>`
    select extract(epoch from t.started_at - r.started_at)::float8 * 1000 as ms
    from pgflow.step_tasks t
    join pgflow.runs r using (run_id)
    where t.flow_slug = ${flow_slug} and r.input ->> 'tenant' <> '0'`
  const [all] = await sql`
    select count(t.completed_at) / extract(epoch from max(t.completed_at) - min(t.started_at))::float8 as rate
    from pgflow.step_tasks t
    where t.flow_slug = ${flow_slug}`
  await worker.stop()
  await sql`select pgflow.cancel_run(r.run_id) from pgflow.runs r where r.flow_slug = ${flow_slug} and r.status = 'started'`
  return {
    index: jainOf(shares.map(({ rate }) => rate)),
    waits: waits.map(({ ms }) => ms),
    rate: Number(all?.rate),
  }
}

async function untilDone(flow: string): Promise<void> {
  const left = () => sql`
    select from pgflow.runs r where r.flow_slug = ${flow} and r.status = 'started' and r.input ->> 'tenant' <> '0' limit 1`
  while ((await left()).length > 0) await new Promise((resolve) => setTimeout(resolve, 20))
}

interface Drained {
  seconds: number
  wal: number
  /** Milliseconds of the server's processors. */
  cpu: number
}

/** What it costs to drain a flow over some connections. */
async function drained(flow: string, connections: number, batch: number): Promise<Drained> {
  const pools = Array.from({ length: connections }, () => connect(stack.dbUrl, 1))
  await Promise.all(pools.map((pool) => pool`select 1`))
  const before = cpuOf(stack.postgres.pid)
  const cost = await measure(sql, () => Promise.all(pools.map((pool) => drainLimited(pool, flow, batch))))
  const cpu = cpuOf(stack.postgres.pid) - before
  await Promise.all(pools.map((pool) => pool.end()))
  if ((await open(flow)) > 0) throw new Error(`${flow} is left open`)
  return { ...cost, cpu }
}

async function keys(): Promise<void> {
  const flows = {
    'without a limit': ['plain', []],
    'one key, 200 at a time': ['one_key', [{ running: 200 }]],
    '100 keys, 5 at a time each': ['many_keys', byTenant(5)],
    'two keys, 200 and 5 at a time': ['two_keys', [{ running: 200 }, ...byTenant(5)]],
    'a rate that is not reached': ['rated', [{ rate_count: 1_000_000, rate_period: 1 }]],
  } as const
  const costs = new Map<string, Drained[]>()
  for (const [slug, limits] of Object.values(flows)) await register(slug, limits)
  for (let round = 0; round <= rounds; round++) {
    for (const [name, [slug]] of round % 2 ? Object.entries(flows) : Object.entries(flows).reverse()) {
      await startFor(slug, tasks, 100)
      const cost = await drained(slug, 2, 100)
      if (round > 0) costs.set(name, [...(costs.get(name) ?? []), cost])
    }
  }
  table(
    [
      `${tasks.toLocaleString('en')} tasks, 2 connections`,
      'tasks/s',
      'of those without',
      'CPU of Postgres a task, ms',
      'WAL a task, bytes',
    ],
    Object.keys(flows).map((name) => {
      const found = costs.get(name)!
      return [
        name,
        spread(found.map(({ seconds }) => tasks / seconds)),
        spread(
          found.map(({ seconds }, round) => costs.get('without a limit')![round]!.seconds / seconds),
          2,
        ),
        spread(
          found.map(({ cpu }) => cpu / tasks),
          2,
        ),
        spread(found.map(({ wal }) => wal / tasks)),
      ]
    }),
  )
  console.log()
}

async function map(): Promise<void> {
  const source = { step_type: 'map', map_source: 'run' }
  await register('fan', [], source)
  await register('fan_limited', [], { ...source, concurrency: 20 })
  const start = (flow: string) => sql`
    select run_id from pgflow.start_flow(${flow}, (select jsonb_agg(n) from generate_series(1, ${tasks}::int) n))`

  // Untimed, a call at a time: how many messages there are after each.
  const [{ run_id } = { run_id: '' }] = await start('fan_limited')
  let [most, found]: [number, Task[]] = [0, []]
  do {
    found = await exchanged(sql, 'fan_limited', found, 100)
    const [row] = await sql`select count(*)::int as messages from pgmq.q_fan_limited`
    most = Math.max(most, row?.messages)
  } while (most > 0 && (await open('fan_limited')) > 0)
  const [items] =
    await sql`select jsonb_array_length(output -> 'work') as count from pgflow.runs where run_id = ${run_id}`
  if (items?.count !== tasks) throw new Error(`the map has ${items?.count} outputs`)

  const ways = [
    ['by SQL, calls of 20', (flow: string) => drained(flow, 1, 20)],
    ['by SQL, calls of 100', (flow: string) => drained(flow, 1, 100)],
    ['a worker with 20 slots, 5 ms an item', (flow: string) => worked(flow, 20, 5)],
    ['a worker with its defaults, no work', (flow: string) => worked(flow, undefined, 0)],
  ] as const
  const rows = []
  for (const [name, run] of ways) {
    const costs: Record<string, Drained[]> = { fan: [], fan_limited: [] }
    for (let round = 0; round <= rounds; round++) {
      for (const flow of round % 2 ? ['fan', 'fan_limited'] : ['fan_limited', 'fan']) {
        await start(flow)
        const cost = await run(flow)
        if (round > 0) costs[flow]!.push(cost)
      }
    }
    const ratios = (of: keyof Drained) =>
      costs.fan_limited!.map((cost, round) => cost[of] / costs.fan![round]![of])
    rows.push([
      name,
      spread(
        costs.fan!.map(({ seconds }) => seconds),
        2,
      ),
      spread(
        costs.fan_limited!.map(({ seconds }) => seconds),
        2,
      ),
      spread(ratios('seconds'), 2),
      spread(ratios('cpu'), 2),
      spread(ratios('wal'), 2),
    ])
  }
  table(
    [
      `a map of ${tasks.toLocaleString('en')}, seconds`,
      'without',
      '`concurrency: 20`',
      'times',
      'CPU of Postgres, times',
      'WAL, times',
    ],
    rows,
  )
  console.log(`\nWith \`concurrency: 20\`, at most ${most} messages are in the queue.\n`)
}

/** What it costs to drain a flow of a map by a worker. */
async function worked(flow_slug: string, concurrency: number | undefined, ms: number): Promise<Drained> {
  const handler = (): number | Promise<number> =>
    ms === 0 ? 1 : new Promise((resolve) => setTimeout(resolve, ms, 1))
  const flow = new Flow<number[]>({ slug: flow_slug }).map(
    { slug: 'work', items: 'run', ...(flow_slug.endsWith('_limited') && { concurrency: 20 }) },
    handler,
  )
  const before = cpuOf(stack.postgres.pid)
  const cost = await measure(sql, async () => {
    const worker = await startWorker({
      connection: stack.dbUrl,
      flows: [flow],
      log: false,
      ...(concurrency && { concurrency }),
    })
    await untilEnded(flow_slug)
    await worker.stop()
  })
  return { ...cost, cpu: cpuOf(stack.postgres.pid) - before }
}

async function contention(): Promise<void> {
  const flows = {
    'without a limit': 'plain_8',
    'one key, 400 at a time': 'one_8',
    '100 keys, 5 at a time each': 'many_8',
  }
  await register('plain_8')
  await register('one_8', [{ running: 400 }])
  await register('many_8', byTenant(5))
  const deadlocks = async (on: Sql) => {
    const [row] = await on`select deadlocks::int from pg_stat_database where datname = current_database()`
    return row?.deadlocks as number
  }
  const costs = new Map<string, (Drained & { deadlocks: number })[]>()
  for (let round = 0; round <= rounds; round++) {
    for (const [name, flow] of Object.entries(flows)) {
      await startFor(flow, tasks, 100)
      const before = await deadlocks(sql)
      const cost = await drained(flow, 8, 50)
      await sql`select pg_stat_force_next_flush()`
      const row = { ...cost, deadlocks: (await deadlocks(sql)) - before }
      if (round > 0) costs.set(name, [...(costs.get(name) ?? []), row])
    }
  }
  table(
    [
      `${tasks.toLocaleString('en')} tasks, 8 connections`,
      'tasks/s',
      'CPU of Postgres a task, ms',
      'deadlocks',
    ],
    [...costs].map(([name, found]) => [
      name,
      spread(found.map(({ seconds }) => tasks / seconds)),
      spread(
        found.map(({ cpu }) => cpu / tasks),
        2,
      ),
      String(found.reduce((sum, one) => sum + one.deadlocks, 0)),
    ]),
  )
}

const all: Readonly<Record<string, () => Promise<void>>> = { fairness, keys, map, contention }
for (const part of parts) {
  const run = all[part]
  if (!run) throw new Error(`PARTS has no ${part}, only ${Object.keys(all)}`)
  await run()
}
await sql.end()
