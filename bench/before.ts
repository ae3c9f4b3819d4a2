/**
 * What a change of the engine costs: a chain of three steps, with the migrations of this checkout and with those of
 * another, in turn within one run. Each has a database in which nobody watches anything, and one in which a user watches
 * every run. Commits are durable.
 *
 *   git archive <commit> supabase/migrations | tar x -C /tmp/before
 *   BEFORE=/tmp/before/supabase/migrations npm run bench before            RUNS=1000 ROUNDS=10 BATCH=100 CONNECTIONS=2
 */
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import type { Sql } from 'postgres'
import { createChain } from './lib/chain.ts'
import { connect, migrations } from './lib/connect.ts'
import { drain } from './lib/drain.ts'
import { type Cost, cpuOf, measure, spread, table } from './measure.ts'

const { BEFORE, RUNS = '1000', ROUNDS = '10', BATCH = '100', CONNECTIONS = '2' } = process.env
if (!BEFORE) throw new Error('BEFORE names the folder of the other migrations')
const runs = Number(RUNS)
const steps = runs * 3
const connections = Number(CONNECTIONS)
const topic = 'pgflow:user:11111111-1111-4111-8111-111111111111'

interface Contender {
  sql: Sql
  watched: boolean
  /** The server's process. */
  pid: number
  /** `cpu` in milliseconds of the server's processors. */
  costs: (Cost & { cpu: number })[]
  messages: number
}

/** Version 2 has a watch for each run; from version 3 on it names a topic. */
async function hasTopics(sql: Sql): Promise<boolean> {
  const columns = await sql`
    select from pg_attribute where attrelid = 'pgflow.run_watches'::regclass and attname = 'topic'`
  return columns.length > 0
}

async function contend({ sql, watched }: Contender): Promise<void> {
  const started = await sql<{ run_id: string }[]>`
    select run_id from pgflow.start_flows('chain', (select jsonb_agg(g) from generate_series(1, ${runs}::int) g))`
  if (watched) {
    const watches = started.map(({ run_id }) => ({ run_id, watched_until: new Date(Date.now() + 300_000) }))
    const rows = (await hasTopics(sql)) ? watches.map((watch) => ({ ...watch, topic })) : watches
    await sql`insert into pgflow.run_watches ${sql(rows)}`
  }
  await Promise.all(Array.from({ length: connections }, () => drain(sql, 'chain', Number(BATCH))))
}

async function messagesIn(sql: Sql): Promise<number> {
  const [row] = await sql`select count(*)::int as messages from realtime.messages`
  return row?.messages
}

async function prepare(stack: LocalSupabase, watched: boolean): Promise<Contender> {
  const sql = connect(stack.dbUrl, connections)
  await createChain(sql)
  return { sql, watched, pid: stack.postgres.pid, costs: [], messages: 0 }
}

await using unwatchedBefore = await startLocalSupabase({ migrations: [BEFORE] })
await using unwatchedNow = await startLocalSupabase({ migrations: [migrations] })
await using watchedBefore = await startLocalSupabase({ migrations: [BEFORE] })
await using watchedNow = await startLocalSupabase({ migrations: [migrations] })
const contenders = [
  await prepare(unwatchedBefore, false),
  await prepare(unwatchedNow, false),
  await prepare(watchedBefore, true),
  await prepare(watchedNow, true),
]

// One round to warm up; then rounds in turn, each in the opposite order of the one before.
for (let round = 0; round <= Number(ROUNDS); round++) {
  for (const contender of round % 2 ? contenders : [...contenders].reverse()) {
    const { sql, costs, pid } = contender
    const before = await messagesIn(sql)
    const cpu = cpuOf(pid)
    const cost = await measure(sql, () => contend(contender))
    contender.messages = (await messagesIn(sql)) - before
    const [open] = await sql`select count(*)::int as runs from pgflow.runs where status <> 'completed'`
    if (open?.runs !== 0) throw new Error(`${open?.runs} runs are left open`)
    if (round > 0) costs.push({ ...cost, cpu: cpuOf(pid) - cpu })
  }
}

table(
  [
    '',
    'steps/s, start included',
    'of before',
    'CPU of Postgres/step, ms',
    'WAL/step, bytes',
    'messages a run',
  ],
  contenders.map(({ watched, costs, messages }, index) => {
    const before = contenders[index - (index % 2)]?.costs ?? []
    return [
      `${watched ? 'every run watched by one user' : 'nobody watches'}, ${index % 2 ? 'now' : 'before'}`,
      spread(costs.map(({ seconds }) => steps / seconds)),
      spread(
        costs.map(({ seconds }, round) => (before[round]?.seconds ?? Number.NaN) / seconds),
        2,
      ),
      spread(
        costs.map(({ cpu }) => cpu / steps),
        3,
      ),
      spread(costs.map(({ wal }) => wal / steps)),
      (messages / runs).toFixed(2),
    ]
  }),
)
for (const { sql } of contenders) await sql.end()
