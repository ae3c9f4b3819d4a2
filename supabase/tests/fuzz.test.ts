import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { calls, createFlows, flowSlugs, Pool, pick } from './testing/fuzz.ts'
import { violations } from './testing/invariants.ts'

/** For a longer run: `FUZZ_SECONDS=600 npx vitest run supabase/tests/fuzz.test.ts`. */
const SECONDS = Number(process.env.FUZZ_SECONDS ?? (process.env.CI ? 20 : 10))
const CONNECTIONS = 14

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: CONNECTIONS, onnotice: () => undefined })
  await createFlows(sql)
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

test('every public function that changes something takes part', async () => {
  const functions = await sql<{ name: string }[]>`
    select distinct p.proname as name from pg_proc p
    where p.pronamespace = 'pgflow'::regnamespace and p.provolatile = 'v' and obj_description(p.oid) is not null
      -- What reads the clock, draws random numbers, or is a rule of the user's changes nothing.
      and p.proname not in ('now', 'new_run_ids', 'may_start')`
  const taking = Object.keys(calls)
  expect(functions.map(({ name }) => name).filter((name) => !taking.includes(name))).toEqual([])
})

test('whatever is called at once, nothing deadlocks, nothing fails but in words of ours, and every run is as the rules say', {
  timeout: SECONDS * 1000 + 120_000,
}, async () => {
  const pool = new Pool()
  const end = performance.now() + SECONDS * 1000
  const codes = new Map<string, number>()
  let count = 0
  const loop = async () => {
    while (performance.now() < end) {
      const name = pick(Object.keys(calls))
      count++
      await calls[name]!(sql, pool).catch((error: { code?: string; message: string }) => {
        const isOurs = /^PT4\d\d$/.test(error.code ?? '')
        const key = isOurs ? `${error.code}` : `${name}: ${error.code} ${error.message}`
        codes.set(key, (codes.get(key) ?? 0) + 1)
      })
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, loop))

  expect([...codes.keys()].filter((code) => !/^PT4\d\d$/.test(code))).toEqual([])
  expect(count).toBeGreaterThan(SECONDS * 50)
  await drain()
  expect(await violations(sql, flowSlugs)).toEqual([])
})

/** Lets every run end, as a worker without failures would. */
async function drain(): Promise<void> {
  const worker = randomUUID()
  let results: object[] = []
  for (;;) {
    for (const slug of flowSlugs) {
      await sql`update pgmq.${sql(`q_${slug}`)} set vt = clock_timestamp() where vt > clock_timestamp()`
    }
    await sql`select set_config('pgflow.now', (clock_timestamp() + interval '1 hour')::text, true), pgflow.tick(100000)`
    for (const { run_id, step_slug } of await sql`
      select run_id, step_slug from pgflow.step_tasks where flow_slug = any (${flowSlugs}) and waits_for = 'signal'`) {
      await sql`select pgflow.complete_wait(${run_id}, ${step_slug}, '1')`
    }
    const [answer] = await sql<{ held: object[]; tasks: object[] }[]>`
      select * from pgflow.settle_and_claim(${sql.json(results as never)}, ${flowSlugs}, 500, ${worker}, 60)`
    expect(answer!.held).toEqual([])
    results = answer!.tasks.map((task) => ({ ...task, output: [1] }))
    const [open] = await sql`
      select count(*)::int as runs from pgflow.runs where flow_slug = any (${flowSlugs}) and status = 'started'`
    if (results.length === 0 && open!.runs === 0) return
  }
}
