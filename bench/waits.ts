/**
 * Waits and sleeps: how late a sleep ends while one idle worker lives; how long it takes one worker to settle many that are due
 * in the same second; and what many open waits of others cost a claim, and a list of what one user may decide.
 *
 *   npm run bench waits            DUE=100000 OPEN=1000000
 */
import { readFileSync } from 'node:fs'
import { startLocalSupabase } from '@pgflow/local'
import { Flow } from '@pgflow/sdk/flow'
import { startWorker } from '@pgflow/sdk/worker'
import type { ReservedSql } from 'postgres'
import { createChain, startRuns } from './lib/chain.ts'
import { connect, migrations } from './lib/connect.ts'
import { drain } from './lib/drain.ts'
import { cpuOf, median, spread, table } from './measure.ts'

const { DUE = '100000', OPEN = '1000000' } = process.env
const user = '11111111-1111-4111-8111-111111111111'

await using stack = await startLocalSupabase({ migrations: [migrations] })
const sql = connect(stack.dbUrl, 2)
const admin = connect(stack.adminDbUrl, 1)
await sql`select pgflow.create_flow('sleep'), pgflow.add_step('sleep', 'a', step_type => 'sleep', until_path => 'run')`
await createChain(sql)

async function untilEnded(): Promise<void> {
  while ((await sql`select from pgflow.step_tasks where due_at is not null limit 1`).length > 0) {
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const worker = await startWorker({
  connection: stack.dbUrl,
  flows: [new Flow<number>({ slug: 'other' }).step('a', () => 1)],
})

// One at a time
for (let n = 0; n < 20; n++) {
  await sql`
    select pgflow.start_flow('sleep', to_jsonb(extract(epoch from clock_timestamp() + interval '1200 ms')))`
  await untilEnded()
}
const late = await sql<{ ms: number }[]>`
  select extract(epoch from completed_at - due_at)::float8 * 1000 as ms from pgflow.step_states where flow_slug = 'sleep'`

// Many at once
const due = new Date(Date.now() + 3_600_000)
for (let n = 0; n < Number(DUE); n += 1000) {
  await sql`
    select count(*) from pgflow.start_flows(
      'sleep', (select jsonb_agg(${due.getTime() / 1000}::float8) from generate_series(1, 1000))
    )`
}
await sql`update pgflow.step_tasks set due_at = clock_timestamp() where due_at is not null`
const processes = await sql<{ pid: number }[]>`
  select pid from pg_stat_activity where application_name = 'pgflow worker'`
const used = () => processes.reduce((sum, { pid }) => sum + cpuOf(pid), 0) / 1000
const [began, usedBefore] = [performance.now(), used()]
await untilEnded()
const [seconds, processorSeconds] = [(performance.now() - began) / 1000, used() - usedBefore]
await worker.stop()

table(
  ['', 'figure'],
  [
    [
      'a sleep with an idle worker ends late by, ms',
      spread(
        late.map(({ ms }) => ms),
        1,
      ),
    ],
    [
      `${Number(DUE).toLocaleString('en')} that are due at once are settled by one worker within, s`,
      `${seconds.toFixed(1)}, of which ${processorSeconds.toFixed(1)} of the database's processor`,
    ],
  ],
)

// Many that wait, of others
async function costs(): Promise<{ chain: number; claim: number; list: number }> {
  const one: ReservedSql = await sql.reserve()
  const [{ pid }] = await one<[{ pid: number }]>`select pg_backend_pid() as pid`
  // Milliseconds, finer than cpuOf's.
  const spent = () => Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6
  const cpu = async (work: () => Promise<unknown>) => {
    const before = spent()
    await work()
    return spent() - before
  }
  const chain = []
  for (let round = 0; round < 5; round++) {
    chain.push(
      await cpu(async () => {
        await startRuns(one, 'chain', 500)
        await drain(one, 'chain', 100)
      }),
    )
  }
  const claim = await cpu(async () => {
    for (let n = 0; n < 300; n++) {
      await one`select pgflow.settle_and_claim('[]', array['chain', 'wait'], 100, ${crypto.randomUUID()})`
    }
  })
  const list = await cpu(async () => {
    await one`select set_config('request.jwt.claims', ${`{"role": "authenticated", "sub": "${user}"}`}, false)`
    await one`set role authenticated`
    for (let n = 0; n < 100; n++) await one`select pgflow_public.list_waits()`
    await one`reset role`
    await one`select set_config('request.jwt.claims', '', false)`
  })
  one.release()
  return { chain: median(chain) / 1500, claim: claim / 300, list: list / 100 }
}

await sql`
  select pgflow.create_flow('wait'),
         pgflow.add_step('wait', 'a', step_type => 'wait', completed_by => 'assignees', assignees_path => 'run', timeout => 86400)`
await sql`
  select count(*) from pgflow.start_flows('wait', (select jsonb_agg(${user}::text) from generate_series(1, 20)))`
const before = await costs()
// As if they had begun, without events and foreign keys.
await admin.unsafe(`
  set session_replication_role = replica;
  create temp table other as select gen_random_uuid() as run_id, now() - random() * interval '30 days' as at from generate_series(1, ${Number(OPEN)});
  insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, status, waits_for, due_at, queued_at)
  select run_id, 'a', 0, 'wait', 'waiting', 'signal', now() + interval '1 day', at from other;
  insert into pgflow.wait_assignees (run_id, step_slug, user_id, flow_slug, started_at)
  select run_id, 'a', gen_random_uuid(), 'wait', at from other;
  reset session_replication_role`)
await admin`vacuum analyze pgflow.step_tasks, pgflow.wait_assignees`
const after = await costs()
await Promise.all([sql.end(), admin.end()])

const row = (name: string, key: keyof typeof before) => [
  name,
  before[key].toFixed(3),
  after[key].toFixed(3),
  (after[key] / before[key]).toFixed(2),
]
table(
  [
    'processor time of the session, ms',
    'without',
    `beside ${Number(OPEN).toLocaleString('en')} open waits of others`,
    '',
  ],
  [
    row('a step of a chain', 'chain'),
    row('a claim that finds nothing', 'claim'),
    row('a list of 20 waits', 'list'),
  ],
)
