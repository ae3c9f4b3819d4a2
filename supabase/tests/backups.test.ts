import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { PGlite } from '@electric-sql/pglite'
import { pgmq } from '@electric-sql/pglite-pgmq'
import { pgDump } from '@electric-sql/pglite-tools/pg_dump'
import { startLocalSupabase } from '@pgflow/local'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { violations } from './testing/invariants.ts'

const folder = fileURLToPath(new URL('../migrations/', import.meta.url))
const RUNS = 30

/** A database that is backed up while runs are in all states. pg_dump comes as WebAssembly, and works on this one only. */
let source: PGlite

beforeAll(async () => {
  source = await PGlite.create({ extensions: { pgmq } })
  await source.exec(
    'create role anon; create role authenticated; create role service_role; create extension pgmq',
  )
  for (const file of readdirSync(folder).sort()) await source.exec(readFileSync(folder + file, 'utf8'))
  await source.exec(`
    select pgflow.create_flow('f'), pgflow.add_step('f', 'a', step_type => 'map'), pgflow.add_step('f', 'b', array['a']);
    select count(*) from pgflow.start_flows('f', (select jsonb_agg(jsonb_build_array(n, 1)) from generate_series(1, ${RUNS}) n));
    select count(*) from pgflow.claim_tasks('{f}', 40, null);
    select pgflow.settle_tasks(jsonb_agg(jsonb_build_object(
      'run_id', run_id, 'step_slug', step_slug, 'task_index', task_index, 'attempt', 1, 'output', input
    ))) from pgflow.step_tasks where status = 'started' and task_index = 0 or run_id in (select run_id from pgflow.runs limit 5);
    select pgflow.fail_task(run_id, step_slug, task_index, 'once') from pgflow.step_tasks where status = 'started' limit 5`)
}, 60_000)

afterAll(() => source?.close())

test.each([
  ['with its queues', ['--schema=pgmq', '--extension=pgmq']],
  ['without the schema pgmq, as supabase db dump makes it', []],
])('a backup %s is restored, and every run ends', { timeout: 60_000 }, async (_, more) => {
  const args = [
    '--inserts',
    '--no-owner',
    '--schema=pgflow',
    '--schema=pgflow_public',
    '--schema=pgflow_worker',
    ...more,
  ]
  const dump = await (await pgDump({ pg: source, args })).text()

  await using stack = await startLocalSupabase({ migrations: [], fsync: false })
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
  await sql.unsafe('create extension if not exists pgmq')
  await sql.unsafe(restorable(dump))
  await sql.unsafe('set search_path = public')
  const [before] = await sql`select to_regclass('pgmq.q_f') is not null as has_queue`
  expect(before).toEqual({ has_queue: more.length > 0 })

  await sql`select pgflow.repair()`
  let results: object[] = []
  do {
    await sql`update pgmq.q_f set vt = clock_timestamp()`
    const [answer] = await sql<{ tasks: { input: unknown }[] }[]>`
      select * from pgflow.settle_and_claim(${sql.json(results as never)}, '{f}', 100, gen_random_uuid())`
    results = answer!.tasks.map(({ input, ...task }) => ({ ...task, output: input }))
  } while (results.length > 0)

  const [ended] = await sql`
    select count(*)::int as runs from pgflow.runs
    where status = 'completed' and output -> 'b' = jsonb_build_object('run', input, 'a', input)`
  expect(ended).toEqual({ runs: RUNS })
  expect(await violations(sql, ['f'])).toEqual([])
  await sql.end()
})

/** What psql would run. The schema of an extension that is there is not created again. */
function restorable(dump: string): string {
  return dump.replace(/^\\.*$/gm, '').replace(/^CREATE SCHEMA pgmq;$/m, '')
}
