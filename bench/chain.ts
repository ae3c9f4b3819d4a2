/**
 * Throughput of a chain of three steps: runs are started, then drained by one worker. Ours goes through
 * settle_and_claim on two connections, as our worker does; beside it, in the same run and on the same settings, the SQL
 * of `@pgflow/core` as its own client calls it, on ten connections. Commits are durable.
 *
 *   npm run bench chain            RUNS=1000 ROUNDS=5 BATCH=100 CONNECTIONS=2
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { drain } from './lib/drain.ts'
import { type Cost, measure, median, spread, table } from './measure.ts'

const { RUNS = '1000', ROUNDS = '5', BATCH = '100', CONNECTIONS = '2' } = process.env
const runs = Number(RUNS)
const batch = Number(BATCH)
const connections = Number(CONNECTIONS)
const THEIR_CONNECTIONS = 10
const steps = runs * 3
const theirFolder = fileURLToPath(
  new URL('node_modules/@pgflow/core/dist/supabase/migrations', import.meta.url),
)
const ourFolder = fileURLToPath(new URL('../supabase/migrations', import.meta.url))

interface Contender {
  name: string
  sql: Sql
  /** How many statements its client has sent. */
  sent(): number
  start(): Promise<unknown>
  drain(): Promise<unknown>
}

function connect(stack: LocalSupabase, max: number): { sql: Sql; sent: () => number } {
  let count = 0
  const debug = () => {
    count += 1
  }
  return { sql: postgres(stack.dbUrl, { max, debug, onnotice: () => undefined }), sent: () => count }
}

/** Both know the call by the same name. */
async function addSteps(sql: Sql, flow: string): Promise<void> {
  for (const [step, deps] of [
    ['a', []],
    ['b', ['a']],
    ['c', ['b']],
  ] as const) {
    await sql`select pgflow.add_step(${flow}, ${step}, ${[...deps]}::text[])`
  }
}

async function ours(stack: LocalSupabase, watched: boolean): Promise<Contender> {
  const { sql, sent } = connect(stack, connections)
  const flow = watched ? 'watched_chain' : 'chain'
  await sql`select pgflow.create_flow(${flow}, broadcast => ${watched ? 'always' : 'never'})`
  await addSteps(sql, flow)
  return {
    name: `pgflow for Supabase, ${watched ? 'every run broadcast' : 'unwatched'}`,
    sql,
    sent,
    start: () => sql`
      select count(*) from pgflow.start_flows(${flow}, (select jsonb_agg(g) from generate_series(1, ${runs}::int) g))`,
    drain: () => Promise.all(Array.from({ length: connections }, () => drain(sql, flow, batch))),
  }
}

async function theirs(stack: LocalSupabase): Promise<Contender> {
  const { sql, sent } = connect(stack, THEIR_CONNECTIONS)
  const worker = crypto.randomUUID()
  await sql`insert into pgflow.workers (worker_id, queue_name, function_name) values (${worker}, 'chain', 'bench')`
  await sql`select pgflow.create_flow('chain')`
  await addSteps(sql, 'chain')
  return {
    name: '@pgflow/core 0.8.1',
    sql,
    sent,
    start: () => sql`
      select count(*) from generate_series(1, ${runs}::int) g, pgflow.start_flow('chain', to_jsonb(g)) r`,
    async drain() {
      for (;;) {
        const messages = await sql`select msg_id from pgmq.read('chain', 60, ${batch})`
        if (messages.length === 0) return
        const tasks = await sql`
          select * from pgflow.start_tasks('chain', ${messages.map(({ msg_id }) => msg_id)}::bigint[], ${worker}::uuid)`
        await Promise.all(
          tasks.map(
            (task) => sql`
              select pgflow.complete_task(
                run_id => ${task.run_id}::uuid, step_slug => ${task.step_slug}, task_index => ${task.task_index}::int,
                output => ${sql.json(task.input.run)})`,
          ),
        )
      }
    },
  }
}

async function main(): Promise<void> {
  if (!existsSync(theirFolder)) throw new Error('Install the peers first: npm install --prefix bench')
  await using ourStack = await startLocalSupabase({ migrations: [ourFolder] })
  await using theirStack = await startLocalSupabase({ migrations: [theirFolder] })
  const contenders = [await ours(ourStack, true), await ours(ourStack, false), await theirs(theirStack)]
  const costs = contenders.map(() => [] as { start: Cost; drain: Cost; statements: number }[])

  // One round to warm up; then rounds in turn, so that what else the machine does meets all alike.
  for (let round = 0; round <= Number(ROUNDS); round++) {
    for (const [index, { name, sql, sent, start, drain }] of contenders.entries()) {
      const startCost = await measure(sql, start)
      const before = sent()
      const drainCost = await measure(sql, drain)
      const [open] = await sql`select count(*)::int as runs from pgflow.runs where status <> 'completed'`
      if (open?.runs !== 0) throw new Error(`${name} left ${open?.runs} runs open`)
      if (round > 0) costs[index]?.push({ start: startCost, drain: drainCost, statements: sent() - before })
    }
  }

  const rates = costs.map((rounds) => rounds.map(({ drain }) => steps / drain.seconds))
  const baseline = median(rates.at(-1) ?? [])
  table(
    ['', 'steps/s', 'ratio', 'starts/s', 'WAL/step, bytes', 'round trips/step'],
    contenders.map(({ name }, index) => [
      name,
      spread(rates[index] ?? []),
      `${(median(rates[index] ?? []) / baseline).toFixed(1)}×`,
      spread(costs[index]?.map(({ start }) => runs / start.seconds) ?? []),
      spread(costs[index]?.map(({ start, drain }) => (start.wal + drain.wal) / steps) ?? []),
      median(costs[index]?.map(({ statements }) => statements / steps) ?? []).toFixed(3),
    ]),
  )
  for (const { sql } of contenders) await sql.end()
}

await main()
