import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type ISql, type Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { violations } from './testing/invariants.ts'

/** In the order of `pg_dump`: what foreign keys refer to comes first. */
const tables = [
  'flows',
  'flow_aliases',
  'steps',
  'deps',
  'runs',
  'run_keys',
  'step_states',
  'step_tasks',
  'run_events',
  'run_watches',
  'workers',
  'schedules',
  'wait_assignees',
  'inbox_watches',
  'limits',
  'limit_uses',
  'limit_keys',
  'alarms',
  'run_singletons',
  'kept_results',
]

let stack: LocalSupabase
/** A superuser, who may write files. */
let admin: Sql
/** The role of migrations and of `pg_restore`, no superuser. */
let owner: Sql
let folder: string

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => undefined })
  owner = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
  await admin`grant pg_read_server_files to postgres`
  await owner.unsafe(`
    select pgflow.create_flow('f', broadcast => 'always'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']);
    select pgflow.create_flow('w'),
           pgflow.add_step('w', 'ask', step_type => 'wait', completed_by => 'assignees', assignees_path => 'run', timeout => 60);
    select pgflow.schedule('nightly', 'f', '0 3 * * *')`)
})

afterAll(async () => {
  await Promise.all([admin?.end(), owner?.end()])
  await stack?.stop()
})

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgflow-restore-'))
  await chmod(folder, 0o777) // the server may run as another user
  // Runs that are completed, failed, cancelled, under way and waiting, with keys, watches and an owner.
  await owner.unsafe(`
    select count(*) from pgflow.start_flows(
      'f', '[1, 2, 3, 4]', array['k1', 'k2', 'k3', 'k4'], owner_id => '20000000-0000-4000-8000-000000000001'
    );
    select pgflow.complete_task(run_id, 'a', 0, '1') from pgflow.runs where input = '1';
    select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
      'run_id', run_id, 'step_slug', 'a', 'task_index', 0, 'error', 'broken', 'permanent', true
    ))) from pgflow.runs where input = '2';
    select pgflow.cancel_run(run_id, 'enough') from pgflow.runs where input = '3';
    select pgflow.watch_runs(array[run_id], 'pgflow:watch:me') from pgflow.runs where input = '4';
    select pgflow.start_flow('w', '["20000000-0000-4000-8000-000000000002"]');
    select pgflow.watch_inbox('20000000-0000-4000-8000-000000000002', 'pgflow:user:20000000-0000-4000-8000-000000000002')`)
  await owner`select pgflow.complete_task(run_id, 'b', 0, '2') from pgflow.runs where input = '1'`
})

afterEach(async () => {
  await owner.unsafe(
    'truncate pgflow.runs cascade; delete from pgflow.inbox_watches; delete from pgmq.q_f; delete from realtime.messages',
  )
  await rm(folder, { recursive: true, force: true })
})

/** The columns that `pg_dump` writes: not those that are generated. */
async function columnsOf(table: string): Promise<string> {
  const columns = await admin<{ name: string }[]>`
    select quote_ident(attname) as name from pg_attribute
    where attrelid = ${`pgflow.${table}`}::regclass and attnum > 0 and not attisdropped and attgenerated = ''
    order by attnum`
  return columns.map(({ name }) => name).join(', ')
}

async function dump(): Promise<void> {
  for (const table of tables) {
    await admin.unsafe(`copy pgflow.${table} (${await columnsOf(table)}) to '${folder}/${table}'`)
  }
}

async function restore(sql: ISql): Promise<void> {
  for (const table of tables) {
    await sql.unsafe(`copy pgflow.${table} (${await columnsOf(table)}) from '${folder}/${table}'`)
  }
}

/** Every row of every table. */
async function contents(): Promise<Record<string, unknown[]>> {
  const found: Record<string, unknown[]> = {}
  for (const table of tables) {
    const rows = await admin.unsafe(`select to_jsonb(t) as row from pgflow.${table} t order by t::text`)
    found[table] = rows.map(({ row }) => row)
  }
  return found
}

const eventTables = ['runs', 'step_states', 'run_events']

test.each([
  ['session_replication_role', 'set local session_replication_role = replica', ''],
  [
    'triggers that are disabled',
    eventTables.map((table) => `alter table pgflow.${table} disable trigger user`).join(';'),
    eventTables.map((table) => `alter table pgflow.${table} enable trigger user`).join(';'),
  ],
])('data alone are restored with %s', async (_, before, after) => {
  const dumped = await contents()
  await dump()
  await owner.unsafe(
    `truncate ${tables.map((table) => `pgflow.${table}`).join()}; delete from realtime.messages`,
  )

  await owner.begin(async (sql) => {
    await sql.unsafe(before)
    await restore(sql)
    await sql.unsafe(after)
  })

  expect(await contents()).toEqual(dumped)
  expect(await admin`select from realtime.messages`).toHaveLength(0)
  expect(await violations(owner, ['f'])).toEqual([])

  // The run that was under way goes on, with the next event; a key finds its run.
  const [run] = await owner`
    select run_id from pgflow.start_flow(
      'f', '4', idempotency_key => 'k4', owner_id => '20000000-0000-4000-8000-000000000001'
    )`
  await owner`select pgflow.complete_task(${run!.run_id}, step, 0, '1') from unnest(array['a', 'b']) step`
  const events =
    await owner`select seq, type from pgflow.run_events where run_id = ${run!.run_id} order by seq`
  expect(events.map(({ seq, type }) => `${seq} ${type}`)).toEqual([
    '1 run:started',
    '2 step:started',
    '3 step:completed',
    '4 step:started',
    '5 step:completed',
    '6 run:completed',
  ])
})

test('data alone are refused while the triggers write events themselves', async () => {
  await dump()
  await owner.unsafe(`truncate ${tables.map((table) => `pgflow.${table}`).join()}`)
  await expect(owner.begin(restore)).rejects.toMatchObject({ code: '23505' })
  await owner.begin(async (sql) => {
    await sql.unsafe('set local session_replication_role = replica')
    await restore(sql)
  })
})

test('runs that are truncated leave messages, which the next claims archive', async () => {
  await expect(owner.unsafe('truncate pgflow.runs')).rejects.toMatchObject({ code: '0A000' })
  await owner.unsafe('truncate pgflow.runs cascade')
  expect(await owner`select from pgflow.step_tasks`).toHaveLength(0)
  expect(await owner`select from pgmq.q_f`).not.toHaveLength(0)
  expect(await violations(owner, ['f'])).toEqual([])
  expect(await owner`select from pgmq.q_f`).toHaveLength(0)
})
