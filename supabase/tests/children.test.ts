import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { contend, createRaces } from './testing/contend.ts'
import { violations } from './testing/invariants.ts'

/** Rounds of each race; for a longer run: `CHILD_ROUNDS=1000 npx vitest run supabase/tests/children.test.ts`. */
const ROUNDS = Number(process.env.CHILD_ROUNDS ?? 20)

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 8, onnotice: () => undefined })
  await createRaces(sql)
  await sql.unsafe(`
    select pgflow.register_flow('{"flow_slug": "child", "steps": [{"step_slug": "work"}]}');
    select pgflow.register_flow('{"flow_slug": "parent", "steps": [
      {"step_slug": "each", "step_type": "map", "map_source": "run", "child_flow": "child"},
      {"step_slug": "after", "deps_slugs": ["each"]}
    ]}');
    -- Completes the task of a child, or fails it, as it is.
    create function race.end_child(parent uuid, index int, error text default null) returns text language sql as $$
      select case when s.applied then 'ended' else 'stale' end
      from pgflow.step_tasks t, pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
        'run_id', t.child_run_id, 'step_slug', 'work', 'task_index', 0
      ) || case when error is null then '{"output": 1}' else jsonb_build_object('error', error, 'permanent', true) end)) s
      where t.run_id = parent and t.step_slug = 'each' and t.task_index = index
    $$`)
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

afterEach(() => sql`delete from pgflow.runs`)

interface Task {
  run_id: string
  flow_slug: string
  step_slug: string
  task_index: number
  attempt: number
  input: unknown
}

type Result = Omit<Task, 'input'> & { output: unknown }

/** One exchange of a worker whose handlers answer with their input: sends results, and answers with those of the next one. */
async function exchange(connection: Sql, results: readonly Result[], quantity: number): Promise<Result[]> {
  const [answer] = await connection<[{ held: Task[]; tasks: Task[] }]>`
    select * from pgflow.settle_and_claim(
      ${connection.json(results as never)}, '{parent,child}', ${quantity}::int, ${randomUUID()}, 60
    )`
  const held = results.filter(({ run_id, step_slug }) =>
    answer.held.some((result) => result.run_id === run_id && result.step_slug === step_slug),
  )
  return [...held, ...answer.tasks.map(({ input, ...task }) => ({ ...task, output: input }))]
}

const goOn = async () => (await sql`select from pgflow.runs where status = 'started' limit 1`).length > 0

/** Ticks until nothing is left to look at. */
async function untilQuiet(): Promise<void> {
  for (;;) {
    await sql`select set_config('pgflow.now', (clock_timestamp() + interval '1 minute')::text, true), pgflow.tick()`
    if ((await sql`select from pgflow.alarms`).length === 0) return
  }
}

test('a thousand children start, end and join in a few exchanges', async () => {
  const inputs = Array.from({ length: 1000 }, (_, n) => n)
  const [run] = await sql<
    { run_id: string }[]
  >`select run_id from pgflow.start_flow('parent', ${sql.json(inputs)})`
  let exchanges = 0
  let results: Result[] = []
  do {
    results = await exchange(sql, results, 250)
    exchanges++
  } while (results.length > 0 || (await goOn()))
  // The first four start and claim, the next four settle.
  expect(exchanges).toBeLessThan(12)
  const [end] = await sql`
    select r.status, (select ss.output from pgflow.step_states ss where ss.run_id = r.run_id and ss.step_slug = 'each') as output
    from pgflow.runs r where r.run_id = ${run!.run_id}`
  expect(end).toEqual({ status: 'completed', output: inputs.map((n) => ({ work: { run: n } })) })
  expect(await violations(sql, ['parent', 'child'])).toEqual([])
})

test('children end on four connections at once, while all of them tick and parents are cancelled and retried', async () => {
  const connections = Array.from({ length: 4 }, () =>
    postgres(stack.dbUrl, { max: 1, onnotice: () => undefined }),
  )
  const inputs = Array.from({ length: 8 }, () => Array.from({ length: 25 }, (_, n) => n))
  const runs = await sql<
    { run_id: string }[]
  >`select run_id from pgflow.start_flows('parent', ${sql.json(inputs)})`
  const work = async (connection: Sql, n: number) => {
    let results: Result[] = []
    let turns = 0
    do {
      results = await exchange(connection, results, 5)
      await connection`select pgflow.tick(20)`
      if (n === 0 && turns++ < 20) {
        const { run_id } = runs[turns % 4]!
        await connection`select pgflow.cancel_run(${run_id})`.catch(unlessOver)
        await connection`select pgflow.retry_run(${run_id})`.catch(unlessOver)
      }
    } while (results.length > 0 || (await goOn()))
  }
  await Promise.all(connections.map(work))
  await Promise.all(connections.map((connection) => connection.end()))
  await untilQuiet()

  const ends = await sql`
    select r.status, jsonb_array_length(ss.output) as children
    from pgflow.runs r join pgflow.step_states ss using (run_id)
    where r.run_id in ${sql(runs.map(({ run_id }) => run_id))} and step_slug = 'each'`
  expect([...ends]).toEqual(inputs.map(() => ({ status: 'completed', children: 25 })))
  expect(await violations(sql, ['parent', 'child'])).toEqual([])
})

const start = async () => {
  const [run] = await sql<[{ run_id: string }]>`select run_id from pgflow.start_flow('parent', '[1]')`
  return run.run_id
}
const statusOf = async (run_id: string) => {
  const [run] = await sql`
    select concat_ws(' ', r.status, ss.status, child.status) as status
    from pgflow.runs r join pgflow.step_states ss using (run_id) join pgflow.step_tasks t using (run_id, step_slug)
    left join pgflow.runs child on child.run_id = t.child_run_id
    where r.run_id = ${run_id} and ss.step_slug = 'each'`
  return run!.status as string
}
const tickOn = (connection: Sql) => connection`select pgflow.tick()`

test('nobody waits for a transaction that holds a parent or a child', async () => {
  const [parent, alone] = [await start(), await start()]
  await tickOn(sql)
  const holder = await sql.reserve()
  const [held] = await sql<[{ run_id: string }]>`select run_id from pgflow.list_children(${alone})`
  await holder`begin`
  await holder`select from pgflow.runs where run_id in (${parent}, ${held.run_id}) for update`
  await sql.begin(async (tx) => {
    await tx`set local lock_timeout = '1s'`
    await tx`select race.end_child(${parent}, 0)`
    await tx`select pgflow.cancel_run(${alone})`
    await tx`select pgflow.tick()`
  })
  expect([await statusOf(parent), await statusOf(alone)]).toEqual([
    'started started completed',
    'cancelled cancelled started',
  ])
  await holder`rollback`
  holder.release()
  await untilQuiet()
  expect([await statusOf(parent), await statusOf(alone)]).toEqual([
    'started completed completed',
    'cancelled cancelled cancelled',
  ])
})

describe('a backend is killed', () => {
  const killed = async (statement: (connection: Sql) => Promise<unknown>) => {
    const connection = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
    const [self] = await connection<[{ pid: number }]>`select pg_backend_pid() as pid`
    await connection`begin`
    await statement(connection)
    await sql`select pg_terminate_backend(${self.pid}, 10000)`
    await connection.end({ timeout: 0 })
  }

  test('between the start of a parent and that of its children', async () => {
    const run_id = await start()
    await killed(tickOn)
    expect(await statusOf(run_id)).toBe('started started')
    await tickOn(sql)
    expect(await statusOf(run_id)).toBe('started started started')
  })

  test('between the end of a child and the settlement of its parent', async () => {
    const run_id = await start()
    await tickOn(sql)
    await sql`select race.end_child(${run_id}, 0)`
    await killed(tickOn)
    expect(await statusOf(run_id)).toBe('started started completed')
    await tickOn(sql)
    expect(await statusOf(run_id)).toBe('started completed completed')
  })

  test('in the exchange that ends a child and settles its parent', async () => {
    const run_id = await start()
    await tickOn(sql)
    const [task] = await sql<Task[]>`
      select c.* from pgflow.claim_tasks('{child}', 100, null) c
      where c.run_id = (select t.child_run_id from pgflow.step_tasks t where t.run_id = ${run_id})`
    const settle = (connection: Sql) => exchange(connection, [{ ...task!, output: 1 }], 0)
    await killed(settle)
    expect(await statusOf(run_id)).toBe('started started started')
    await settle(sql)
    expect(await statusOf(run_id)).toBe('started completed completed')
  })

  test('between the end of a parent and that of its children', async () => {
    const run_id = await start()
    await tickOn(sql)
    await sql`select pgflow.cancel_run(${run_id})`
    await killed(tickOn)
    expect(await statusOf(run_id)).toBe('cancelled cancelled started')
    await tickOn(sql)
    expect(await statusOf(run_id)).toBe('cancelled cancelled cancelled')
  })
})

const tick = 'select to_jsonb((pgflow.tick()).settled)'
const end = `select to_jsonb(race.end_child($1, 0))`
const fail = `select to_jsonb(race.end_child($1, 0, 'broken'))`
const cancel = 'select to_jsonb(status) from pgflow.cancel_run($1)'
const retry = 'select to_jsonb(status) from pgflow.retry_run($1)'
const child = `(select t.child_run_id from pgflow.step_tasks t where t.run_id = $1 and t.step_slug = 'each' and t.task_index = 0)`
const failed = `select pgflow.tick(), race.end_child($1, 0, 'broken'), pgflow.tick()`

/** Each round has a parent of two children; the first one ends, or something else happens to it. */
const races = [
  {
    race: 'children start against the cancelling of their parent',
    arrange: null,
    contenders: [tick, cancel, tick],
  },
  {
    race: 'a child ends against the cancelling of its parent',
    arrange: tick,
    contenders: [end, cancel, tick],
  },
  {
    race: 'a child fails against the end of the other',
    arrange: tick,
    contenders: [fail, `select to_jsonb(race.end_child($1, 1))`, tick],
  },
  {
    race: 'a parent is retried against the retry of its child',
    arrange: failed,
    contenders: [retry, `select to_jsonb(status) from pgflow.retry_run(${child})`, tick],
  },
  {
    race: 'a parent is retried against the cancelling of its children',
    arrange: `select pgflow.tick(), pgflow.cancel_run($1)`,
    contenders: [retry, tick, tick],
  },
  {
    race: 'a child is deleted against its end',
    arrange: tick,
    contenders: [
      `with gone as (delete from pgflow.runs where run_id = ${child} returning 1) select to_jsonb(count(*)) from gone`,
      end,
      tick,
    ],
  },
  {
    race: 'a parent is deleted against the start of its children',
    arrange: null,
    contenders: [
      `with gone as (delete from pgflow.runs where run_id = $1 returning 1) select to_jsonb(count(*)) from gone`,
      tick,
      tick,
    ],
  },
]

test.each(races)('$race', { timeout: 60_000 + 50 * ROUNDS }, async ({ race, arrange, contenders }) => {
  await sql`
    insert into race.rounds
    select ${race}, row_number() over (), run_id from pgflow.start_flows('parent', ${sql.json(Array(ROUNDS).fill([1, 2]))})`
  const outcomes = await contend(sql, race, contenders, arrange)
  const unexpected = outcomes.filter(
    ({ sqlstate }) => sqlstate && sqlstate !== 'PT409' && sqlstate !== 'PT404',
  )
  expect(unexpected).toEqual([])
  await untilQuiet()
  expect(await violations(sql, ['parent', 'child'])).toEqual([])
  // Whoever still goes on, ends; the check has hidden the messages.
  await sql`update pgmq.q_child set vt = clock_timestamp()`
  await sql`update pgmq.q_parent set vt = clock_timestamp()`
  for (let results: Result[] = []; results.length > 0 || (await goOn()); ) {
    results = await exchange(sql, results, 1000)
    await untilQuiet()
  }
  expect(await violations(sql, ['parent', 'child'])).toEqual([])
})

function unlessOver(error: { code?: string }): void {
  if (error.code !== 'PT409') throw error
}
