import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type ISql, type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { untilSomebodyWaits } from './testing/contend.ts'

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

/** Waits for nobody. */
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

test('a new version waits for no start that is open, and neither does an unchanged worker', async () => {
  await register(versionOf('held', 1))
  const first = await sql.begin(async (tx) => {
    const run = await start('held', tx)
    await impatiently((other) => register(versionOf('held', 1), other))
    await impatiently((other) => register({ ...versionOf('held', 1), timeout: 7 }, other))
    await impatiently((other) => register(versionOf('held', 2), other))
    return run
  })
  expect(first.flow_slug).toBe('held')
  expect(await start('held')).toMatchObject({ flow_slug: 'held_v2' })
})

test('a start waits for no version that is being registered, and starts the older one', async () => {
  await register(versionOf('moved', 1))
  await sql.begin(async (tx) => {
    await register(versionOf('moved', 2), tx)
    expect(await impatiently((other) => start('moved', other))).toMatchObject({ flow_slug: 'moved' })
  })
  expect(await start('moved')).toMatchObject({ flow_slug: 'moved_v2' })
})

test('definitions that share a limit wait for each other only where they change limits', async () => {
  const limited = (flow_slug: string, limit_slug: string, running: number) => ({
    ...{ flow_slug, steps, limits: [{ limit_slug, running }] },
  })
  await register(limited('limited_a', 'shared', 2))
  await register(limited('limited_b', 'lone', 2))
  const taking = await sql.begin(async (tx) => {
    await register(limited('limited_b', 'shared', 3), tx) // and deletes the limit `lone`
    await impatiently((other) => register(limited('limited_a', 'shared', 2), other))
    const registered = register(limited('limited_c', 'lone', 4))
    await untilSomebodyWaits(sql)
    return { registered }
  })
  await taking.registered
  expect(
    await sql`
      select flow_slug, limit_slug, running from pgflow.limit_uses join pgflow.limits using (limit_slug)
      where flow_slug like 'limited%' order by flow_slug`,
  ).toEqual([
    { flow_slug: 'limited_a', limit_slug: 'shared', running: 3 },
    { flow_slug: 'limited_b', limit_slug: 'shared', running: 3 },
    { flow_slug: 'limited_c', limit_slug: 'lone', running: 4 },
  ])
})

test('versions are registered within 2 s under starts that overlap all the time', {
  timeout: 30_000,
}, async () => {
  await register(versionOf('busy', 1))
  const loops = new AbortController()
  const starting = Array.from({ length: 6 }, async () => {
    while (!loops.signal.aborted) {
      await sql.begin(async (tx) => {
        await start('busy', tx)
        await tx`select pg_sleep(0.3)`
      })
    }
  })
  for (let version = 2; version <= 6; version++) {
    const began = performance.now()
    await register(versionOf('busy', version))
    await register(versionOf('busy', version - 1))
    expect(performance.now() - began).toBeLessThan(2_000)
  }
  loops.abort()
  await Promise.all(starting)
})

test('an unchanged flow is registered without a lock', async () => {
  await register(versionOf('calm', 1))
  const [locks] = await sql.begin(async (tx) => {
    await register(versionOf('calm', 1), tx)
    return tx`
      select count(*) filter (where locktype = 'advisory')::int as advisory,
             count(*) filter (where locktype = 'transactionid')::int as changes
      from pg_locks where pid = pg_backend_pid()`
  })
  expect(locks).toEqual({ advisory: 0, changes: 0 })
})

test('whoever holds up a definition for long is named', { timeout: 30_000 }, async () => {
  await sql.begin(async (open) => {
    await open`set local application_name = 'forgotten'`
    const [{ pid }] = (await open`select pg_backend_pid() as pid`) as unknown as [{ pid: number }]
    await register(versionOf('blocked', 1), open)
    const blocked = {
      code: 'PT409',
      detail: expect.stringMatching(
        new RegExp(`pid ${pid} \\(forgotten, idle in transaction\\), open for 00:00:0`),
      ),
      hint: expect.stringContaining('pg_terminate_backend'),
    }
    await expect(register(versionOf('blocked', 1))).rejects.toMatchObject(blocked)
  })
  await sql.begin(async (open) => {
    await open`set local application_name = 'forgotten'`
    await open`select from pgflow.flows where flow_slug = 'held' for update`
    const named = { code: 'PT409', detail: expect.stringContaining('(forgotten, ') }
    await expect(register({ ...versionOf('held', 1), timeout: 8 })).rejects.toMatchObject(named)
    await expect(sql`select pgflow.add_step('held', 'c')`).rejects.toMatchObject(named)
  })
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

const deleteByHand = async (flow_slug: string, tx: ISql) => {
  await tx`delete from pgflow.deps where flow_slug = ${flow_slug}`
  await tx`delete from pgflow.steps where flow_slug = ${flow_slug}`
  await tx`delete from pgflow.flows where flow_slug = ${flow_slug}`
}

const untilADefinitionWaits = async () => {
  const asking = () => sql`select from pg_stat_activity where wait_event = 'PgSleep' and query !~ 'pg_sleep'`
  while ((await asking()).length === 0);
}

test('the definition of a flow that has runs stays, whoever changes it by hand', async () => {
  await register(versionOf('kept', 1))
  const { run_id } = await start('kept')
  const refused = { code: 'PT409', message: expect.stringMatching(/has runs|there are runs/) }
  await expect(sql.begin((tx) => deleteByHand('kept', tx))).rejects.toMatchObject(refused)
  await expect(sql`update pgflow.steps set step_slug = 'z' where flow_slug = 'kept'`).rejects.toMatchObject(
    refused,
  )
  await expect(
    sql`update pgflow.flows set flow_slug = 'z', alias = 'z' where flow_slug = 'kept'`,
  ).rejects.toMatchObject(refused)
  await expect(sql`truncate pgflow.flows cascade`).rejects.toMatchObject(refused)
  await expect(sql`truncate pgflow.steps cascade`).rejects.toMatchObject(refused)
  await sql`delete from pgflow.runs where run_id = ${run_id}`
  await sql.begin((tx) => deleteByHand('kept', tx))
  await expect(start('kept')).rejects.toMatchObject({ code: 'PT404' })
})

test('a deletion by hand and a start that overlap: whoever is first', { timeout: 30_000 }, async () => {
  await register(versionOf('raced', 1))
  const deletion = await sql.begin(async (open) => {
    await start('raced', open)
    const deleting = sql.begin((tx) => deleteByHand('raced', tx)).catch((error: unknown) => error)
    await untilADefinitionWaits()
    await impatiently((other) => start('raced', other)) // waits for none of them
    return { deleting }
  })
  expect(await deletion.deleting).toMatchObject({
    code: 'PT409',
    message: expect.stringContaining('has runs'),
  })

  await register(versionOf('unlucky', 1))
  const beginning = await sql.begin(async (open) => {
    await deleteByHand('unlucky', open)
    const starting = start('unlucky').catch((error: unknown) => error)
    await untilSomebodyWaits(sql)
    return { starting }
  })
  expect(await beginning.starting).toMatchObject({ code: 'PT404' })
})

test('a transaction with an old snapshot starts no flow that was deleted, and deletes none that was started', async () => {
  await register(versionOf('old', 1))
  const repeatable = (work: (tx: ISql) => Promise<unknown>, meanwhile: () => Promise<unknown>) =>
    sql.begin('isolation level repeatable read', async (tx) => {
      await tx`select from pgflow.flows`
      await meanwhile()
      await work(tx)
    })
  await expect(
    repeatable(
      (tx) => deleteByHand('old', tx),
      async () => sql`delete from pgflow.runs where run_id = ${(await start('old')).run_id}`,
    ),
  ).rejects.toMatchObject({ code: 'PT409' })
  await expect(
    repeatable(
      (tx) => start('old', tx),
      () => sql.begin((tx) => deleteByHand('old', tx)),
    ),
  ).rejects.toMatchObject({ code: '40001' })
  expect(await sql`select from pgflow.runs where flow_slug = 'old'`).toHaveLength(0)
})
