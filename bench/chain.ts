/**
 * Throughput of a chain of three steps: runs are started, then drained by one worker. Ours goes through
 * settle_and_claim; beside it, in the same run and on the same settings, the SQL of `@pgflow/core` as its own client
 * calls it. Commits are durable.
 *
 *   npm run bench chain            RUNS=1000 ROUNDS=5 BATCH=50
 */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { type Cost, measure, median, spread, table } from './measure.ts'

const { RUNS = '1000', ROUNDS = '5', BATCH = '50' } = process.env
const runs = Number(RUNS)
const batch = Number(BATCH)
const steps = runs * 3
const theirFolder = fileURLToPath(
  new URL('node_modules/@pgflow/core/dist/supabase/migrations', import.meta.url),
)
const ourFolder = fileURLToPath(new URL('../supabase/migrations', import.meta.url))

interface Contender {
  name: string
  sql: Sql
  start(): Promise<unknown>
  drain(): Promise<unknown>
}

async function ours(stack: LocalSupabase, watched: boolean): Promise<Contender> {
  const sql = postgres(stack.dbUrl, { max: 2, onnotice: () => undefined })
  const flow = watched ? 'watched_chain' : 'chain'
  await sql`select pgflow.create_flow(${flow}, broadcast => ${watched ? 'always' : 'never'})`
  for (const [step, deps] of [
    ['a', []],
    ['b', ['a']],
    ['c', ['b']],
  ] as const) {
    await sql`select pgflow.add_step(${flow}, ${step}, ${[...deps]}::text[])`
  }
  return {
    name: `pgflow for Supabase, ${watched ? 'every run broadcast' : 'unwatched'}`,
    sql,
    start: () => sql`
      select count(*) from pgflow.start_flows(${flow}, (select jsonb_agg(g) from generate_series(1, ${runs}::int) g))`,
    async drain() {
      const worker = crypto.randomUUID()
      const loop = async () => {
        let results: object[] = []
        do {
          const [answer] = await sql`
          select tasks from pgflow.settle_and_claim(${sql.json(results as never)}, ${[flow]}, ${batch}, ${worker}::uuid)`
          results = answer?.tasks.map(
            ({ run_id, step_slug, task_index, attempt, input }: Record<string, unknown>) => ({
              run_id,
              step_slug,
              task_index,
              attempt,
              output: (input as { run: unknown }).run,
            }),
          )
        } while (results.length > 0)
      }
      await Promise.all([loop(), loop()])
    },
  }
}

async function theirs(stack: LocalSupabase): Promise<Contender> {
  const sql = postgres(stack.dbUrl, { max: 4, onnotice: () => undefined })
  const worker = crypto.randomUUID()
  await sql`insert into pgflow.workers (worker_id, queue_name, function_name) values (${worker}, 'chain', 'bench')`
  await sql`select pgflow.create_flow('chain')`
  for (const [step, deps] of [
    ['a', []],
    ['b', ['a']],
    ['c', ['b']],
  ] as const) {
    await sql`select pgflow.add_step('chain', ${step}, ${[...deps]}::text[])`
  }
  return {
    name: '@pgflow/core 0.8.1',
    sql,
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
  const costs = contenders.map(() => [] as { start: Cost; drain: Cost }[])

  // One round to warm up; then rounds in turn, so that what else the machine does meets all alike.
  for (let round = 0; round <= Number(ROUNDS); round++) {
    for (const [index, { sql, start, drain }] of contenders.entries()) {
      const cost = { start: await measure(sql, start), drain: await measure(sql, drain) }
      if (round > 0) costs[index]?.push(cost)
    }
  }

  const rates = costs.map((rounds) => rounds.map(({ drain }) => steps / drain.seconds))
  const baseline = median(rates.at(-1) ?? [])
  table(
    ['', 'steps/s', 'ratio', 'starts/s', 'WAL/step, bytes'],
    contenders.map(({ name }, index) => [
      name,
      spread(rates[index] ?? []),
      `${(median(rates[index] ?? []) / baseline).toFixed(1)}×`,
      spread(costs[index]?.map(({ start }) => runs / start.seconds) ?? []),
      spread(costs[index]?.map(({ start, drain }) => (start.wal + drain.wal) / steps) ?? []),
    ]),
  )
  for (const { sql } of contenders) await sql.end()
}

await main()
