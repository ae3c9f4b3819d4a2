import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { Flow } from '../../sdk/src/flow/index.ts'
import { startWorker } from '../../sdk/src/worker/index.ts'
import { violations } from './testing/invariants.ts'

const RUNS = 200

let stack: LocalSupabase
let sql: Sql
let admin: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 4, onnotice: () => undefined })
  admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => undefined })
})

afterAll(async () => {
  await sql?.end()
  await admin?.end()
  await stack?.stop()
})

function chain(slug: string) {
  return new Flow<number[]>({ slug, baseDelay: 0 })
    .map({ slug: 'double' }, async (item) => {
      await setTimeout(1)
      return item * 2
    })
    .step('sum', ['double'], ({ double }) => double.reduce((total, item) => total + item))
}

const losses: [name: string, lose: (slug: string) => Promise<unknown>][] = [
  ['dropped', (slug) => sql`select pgmq.drop_queue(${slug})`],
  ['purged', (slug) => sql`select pgmq.purge_queue(${slug})`],
  [
    'lost with the schema pgmq',
    () =>
      admin.begin(async (tx) => {
        // Dropping many tables at once may deadlock with whoever uses two of them. All calls of the engine look at a flow
        // before they touch its queue: so they wait here, as they would for the end of a restore.
        await tx`lock table pgflow.flows in access exclusive mode`
        await tx`drop extension pgmq cascade`
        await tx`drop schema if exists pgmq cascade`
        await tx`create extension pgmq`
        await tx`grant usage, create on schema pgmq to postgres`
        await tx`grant all on all tables in schema pgmq to postgres`
        await tx`grant all on all sequences in schema pgmq to postgres`
      }),
  ],
]

test.each(losses)(
  'every run ends though queues are %s under load',
  { timeout: 60_000 },
  async (name, lose) => {
    const slug = `flow_${name.split(' ')[0]}`
    const flows = [chain(slug), chain(`${slug}_2`)]
    const workers = await Promise.all(
      [1, 2].map(() => startWorker({ connection: stack.dbUrl, flows, lease: 2 })),
    )
    onTestFinished(
      async () => void (await Promise.all(workers.map((worker) => worker.stop({ gracePeriod: 0 })))),
    )
    const slugs = flows.map((flow) => flow.slug)
    const ended = async () => {
      const [count] = await sql<{ n: number }[]>`
      select count(*)::int as n from pgflow.runs where flow_slug = any (${slugs}) and status = 'completed'`
      return count!.n
    }

    const inputs = sql.json(Array.from({ length: RUNS }, (_, n) => [n, 1, 2]))
    for (const flow of slugs) await sql`select count(*) from pgflow.start_flows(${flow}, ${inputs})`
    for (let losses = 1; losses <= 3; losses++) {
      while ((await ended()) < (losses * RUNS) / 2) await setTimeout(5)
      await lose(slug)
      await sql`select pgflow.repair()`
    }
    while ((await ended()) < 2 * RUNS) await setTimeout(20)

    const outputs = await sql`
    select count(*)::int as runs from pgflow.runs
    where flow_slug = any (${slugs}) and output = jsonb_build_object('sum', 2 * ((input ->> 0)::int + 3))`
    expect([...outputs]).toEqual([{ runs: 2 * RUNS }])
    await Promise.all(workers.map((worker) => worker.stop()))
    expect(await violations(sql, slugs)).toEqual([])
  },
)

test('repairs as fast where the statistics say that there is no task', async () => {
  await sql`select pgflow.create_flow('large'), pgflow.add_step('large', 'item', step_type => 'map')`
  await sql`delete from pgflow.step_tasks`
  await sql.begin(async (tx) => {
    await tx`select pgflow.start_flow('large', to_jsonb(array(select generate_series(1, 4000))))`
    await sql`analyze pgflow.step_tasks` // as autovacuum may: what the transaction has written is not yet there
  })
  const estimate = async () => {
    const [tasks] = await sql<{ n: number }[]>`
      select reltuples::int as n from pg_class where oid = 'pgflow.step_tasks'::regclass`
    return tasks!.n
  }
  const timeOfRepair = async () => {
    await sql`select pgmq.purge_queue('large')`
    const start = performance.now()
    const [repaired] = await sql`select messages::int from pgflow.repair()`
    expect(repaired).toEqual({ messages: 4000 })
    return performance.now() - start
  }
  expect(await estimate()).toBe(0)
  const unknown = await timeOfRepair()
  await sql`analyze pgflow.step_tasks`
  expect(await estimate()).toBeGreaterThan(3000)
  expect(unknown / (await timeOfRepair())).toBeLessThan(8)
})
