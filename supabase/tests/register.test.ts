import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type ISql, type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 8, onnotice: () => undefined })
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

const steps = [{ step_slug: 'a' }, { step_slug: 'b', deps_slugs: ['a'] }]

const versionOf = (alias: string, version: number) => ({
  flow_slug: version === 1 ? alias : `${alias}_v${version}`,
  alias,
  version,
  steps,
})

const register = async (definition: object, tx: ISql = sql) =>
  (
    await tx`select flow_slug, opt_timeout from pgflow.register_flow(${JSON.stringify(definition)}::text::jsonb)`
  )[0]

const start = async (alias: string, tx: ISql = sql, idempotency_key: string | null = null) =>
  (
    await tx<{ run_id: string; flow_slug: string }[]>`
      select run_id, flow_slug
      from pgflow.start_flow(${alias}, '{}', idempotency_key => ${idempotency_key})`
  )[0]!

/** What a statement throws while somebody holds what it waits for. */
const isWaiting = { code: '55P03' }
const impatiently = <T>(work: (tx: ISql) => Promise<T>) =>
  sql.begin(async (tx) => {
    await tx`set local lock_timeout = '50ms'`
    return work(tx)
  })

test('workers that start together register the same flow once', async () => {
  for (let round = 0; round < 10; round++) {
    const flow_slug = `together_${round}`
    const definition = { flow_slug, timeout: 5, steps }
    const flows = await Promise.all(Array.from({ length: 8 }, () => register(definition)))
    expect(flows).toEqual(Array(8).fill({ flow_slug, opt_timeout: 5 }))
    const [counts] = await sql`
      select
        (select count(*)::int from pgflow.flows where flow_slug = ${flow_slug}) as flows,
        (select count(*)::int from pgflow.steps where flow_slug = ${flow_slug}) as steps,
        (select count(*)::int from pgflow.deps where flow_slug = ${flow_slug}) as deps,
        (select count(*)::int from pgmq.list_queues() where queue_name = ${flow_slug}) as queues`
    expect(counts).toEqual({ flows: 1, steps: 2, deps: 1, queues: 1 })
  }
})

test('of two workers with different shapes, one is refused', async () => {
  for (let round = 0; round < 10; round++) {
    const flow_slug = `apart_${round}`
    const answers = await Promise.allSettled([
      register({ flow_slug, steps }),
      register({ flow_slug, steps: steps.slice(0, 1) }),
    ])
    expect(answers.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    const refusal = answers.find((answer) => answer.status === 'rejected')
    expect(refusal?.reason).toMatchObject({ code: 'PT409' })
    const winner = answers[0]?.status === 'fulfilled' ? 2 : 1
    expect(await sql`select from pgflow.steps where flow_slug = ${flow_slug}`).toHaveLength(winner)
  }
})

test('versions that are registered together leave the alias at the newest', async () => {
  for (let round = 0; round < 10; round++) {
    const alias = `versions_${round}`
    await Promise.all([2, 4, 1, 3].map((version) => register(versionOf(alias, version))))
    expect(await start(alias)).toMatchObject({ flow_slug: `${alias}_v4` })
  }
})

test('a start that has found the old version ends before the alias moves, and is found by its key', async () => {
  await register(versionOf('held', 1))
  const first = await sql.begin(async (tx) => {
    const run = await start('held', tx, 'k')
    await expect(impatiently((other) => register(versionOf('held', 2), other))).rejects.toMatchObject(
      isWaiting,
    )
    return run
  })
  await register(versionOf('held', 2))
  expect(first.flow_slug).toBe('held')
  expect(await start('held', sql, 'k')).toEqual(first)
  expect(await start('held', sql, 'l')).toMatchObject({ flow_slug: 'held_v2' })
})

test('a start waits for the alias that is being moved, and starts the new version', async () => {
  await register(versionOf('moved', 1))
  let started: Promise<{ flow_slug: string }> | undefined
  await sql.begin(async (tx) => {
    await register(versionOf('moved', 2), tx)
    await expect(impatiently((other) => start('moved', other))).rejects.toMatchObject(isWaiting)
    started = start('moved')
    await someoneWaits()
  })
  expect(await started).toMatchObject({ flow_slug: 'moved_v2' })
})

test('the same key gives one run, however many start while versions come', async () => {
  await register(versionOf('keyed', 1))
  for (let version = 2; version <= 12; version++) {
    const key = `k${version}`
    const [, ...runs] = await Promise.all([
      register(versionOf('keyed', version)),
      ...Array.from({ length: 6 }, () => start('keyed', sql, key)),
    ])
    expect(new Set(runs.map(({ run_id }) => run_id)).size).toBe(1)
    expect(await sql`select from pgflow.runs where idempotency_key = ${key}`).toHaveLength(1)
  }
})

async function someoneWaits(): Promise<void> {
  const waiting = () => sql`select from pg_locks where not granted`
  while ((await waiting()).length === 0);
}
