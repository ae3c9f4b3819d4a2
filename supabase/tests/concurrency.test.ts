import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { contend, createRaces, type Outcome, untilSomebodyWaits } from './testing/contend.ts'
import { violations } from './testing/invariants.ts'
import { createLoad, expectedEnd, work } from './testing/load.ts'
import { type Race, races } from './testing/races.ts'

/** Rounds in all; for a longer run: `CONCURRENCY_ROUNDS=100000 npx vitest run supabase/tests/concurrency.test.ts`. */
const ROUNDS = Number(process.env.CONCURRENCY_ROUNDS ?? (process.env.CI ? 10_000 : 4_000))
const TIMEOUT = 60_000 + 20 * ROUNDS

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 6, onnotice: () => undefined })
  await createRaces(sql)
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

test.each(races)('$name', { timeout: TIMEOUT }, async (race) => {
  const rounds = Math.ceil(ROUNDS / races.length / (race.cost ?? 1))
  await prepare(race, rounds)
  const outcomes = await contend(sql, race.slug, race.contenders, race.arrange)

  const ends = await endsOf(race, outcomes)
  expect(outcomes).toHaveLength(rounds * race.contenders.length)
  expect(race.ways).toEqual(expect.arrayContaining([...ends.keys()]))
  expect(await violations(sql, [race.slug])).toEqual([])
})

test('four workers settle and claim in mixed batches of shared runs', { timeout: TIMEOUT }, async () => {
  const inputs = Array.from({ length: Math.ceil(ROUNDS / 50) }, (_, n) => ({ n }))
  await createLoad(sql, 'mixed')
  await sql`select pgflow.start_flows('mixed', ${sql.json(inputs)})`
  const ended = new AbortController()
  const applied: string[] = []
  const workers = Array.from({ length: 4 }, (_, n) =>
    work({
      name: `worker ${n}`,
      dbUrl: stack.dbUrl,
      flowSlug: 'mixed',
      lease: 100_000,
      onApplied: (key) => applied.push(key),
      signal: ended.signal,
    }),
  )
  await Promise.race([untilAllEnded('mixed'), ...workers]).finally(() => ended.abort())
  await Promise.all(workers)

  const ends = await sql`
    select (input ->> 'n')::int as n, status, output from pgflow.runs where flow_slug = 'mixed' order by n`
  expect([...ends]).toEqual(inputs.map(({ n }) => ({ n, ...expectedEnd(n) })))
  expect(new Set(applied).size).toBe(applied.length)
  expect(await violations(sql, ['mixed'])).toEqual([])
})

describe('while somebody else holds', () => {
  beforeAll(async () => {
    await sql`select pgflow.create_flow('held')`
    await sql`select pgflow.add_step('held', 'a')`
  })

  const claimHeld = async () => {
    const [, claimed] = await sql.begin((tx) => [
      tx`set local lock_timeout = '1s'`,
      tx`select run_id, attempt from pgflow.claim_tasks(array['held'], 10, null)`,
    ])
    return [...claimed]
  }
  const startHeld = async () => {
    const [run] = await sql<[{ run_id: string }]>`select run_id from pgflow.start_flow('held', '{}')`
    return run.run_id
  }
  const expireHeld = (runId: string) => sql`select race.expire('held', ${runId})`

  test('a task, a claim leaves it alone', async () => {
    const runId = await startHeld()
    await sql.begin(async (other) => {
      await other`select from pgflow.step_tasks where run_id = ${runId} for no key update`
      expect(await claimHeld()).toEqual([])
    })
    await expireHeld(runId)
    expect(await claimHeld()).toEqual([expect.objectContaining({ run_id: runId, attempt: 1 })])
  })

  test('a run, a claim does not wait for it', async () => {
    const runId = await startHeld()
    await sql.begin(async (other) => {
      await other`select from pgflow.runs where run_id = ${runId} for no key update`
      expect(await claimHeld()).toEqual([expect.objectContaining({ run_id: runId, attempt: 1 })])
    })
  })

  test('the run of a task without attempts left, a claim leaves both as they are', async () => {
    const runId = await startHeld()
    await sql`update pgflow.step_tasks set attempts_count = 3, status = 'started', started_at = now() where run_id = ${runId}`
    await sql`update pgmq.q_held set read_ct = 3 where message ->> 'run_id' = ${runId}`
    await sql.begin(async (other) => {
      await other`select from pgflow.runs where run_id = ${runId} for no key update`
      expect(await claimHeld()).toEqual([])
    })
    expect(await statusOf(runId)).toBe('started')
    await expireHeld(runId)
    expect(await claimHeld()).toEqual([])
    expect(await statusOf(runId)).toBe('failed')
  })

  test('a message, a settlement and a cancel do not wait for it, and a claim archives it later', async () => {
    const runIds = [await startHeld(), await startHeld()]
    await sql.begin(async (other) => {
      await other`select from pgmq.q_held where message ->> 'run_id' = any (${runIds}) for update`
      await sql.begin((tx) => [
        tx`set local lock_timeout = '1s'`,
        tx`select pgflow.complete_task(${runIds[0]!}, 'a', 0, '1')`,
        tx`select pgflow.cancel_run(${runIds[1]!})`,
      ])
    })
    expect(await Promise.all(runIds.map(statusOf))).toEqual(['completed', 'cancelled'])
    expect(await messagesOf(runIds)).toHaveLength(2)
    expect(await violations(sql, ['held'])).toEqual([])
    expect(await messagesOf(runIds)).toHaveLength(0)
  })

  test('a message, a failure sends another, so that it is tried again when it asks to be', async () => {
    const runId = await startHeld()
    await claimHeld()
    const failure = {
      run_id: runId,
      step_slug: 'a',
      task_index: 0,
      attempt: 1,
      error: 'again',
      retry_delay: 0,
    }
    await sql.begin(async (other) => {
      await other`select from pgmq.q_held where message ->> 'run_id' = ${runId} for update`
      await sql`select from pgflow.settle_tasks(${sql.json([failure])})`
      expect(await claimHeld()).toEqual([{ run_id: runId, attempt: 2 }])
    })
    expect(await messagesOf([runId])).toHaveLength(2)
    expect(await violations(sql, ['held'])).toEqual([])
    expect(await messagesOf([runId])).toHaveLength(1)
  })

  test('a key, a start goes on although the run of another of its keys is deleted', async () => {
    const startBoth = () => sql<{ run_id: string }[]>`
      select run_id from pgflow.start_flows('held', '[1, 1]', array['key 1', 'key 2'])`
    const [first] = await sql`select run_id from pgflow.start_flow('held', '1', idempotency_key => 'key 1')`
    let both: ReturnType<typeof startBoth> | undefined
    const [second] = await sql.begin(async (other) => {
      const run = await other`select run_id from pgflow.start_flow('held', '1', idempotency_key => 'key 2')`
      both = startBoth()
      both.execute()
      await untilSomebodyWaits(sql)
      await sql`delete from pgflow.runs where run_id = ${first!.run_id}`
      return run
    })
    const answer = await both!
    const runs =
      await sql`select run_id from pgflow.runs where idempotency_key like 'key _' order by idempotency_key`
    expect([...answer]).toEqual([...runs])
    expect(runs[0]!.run_id).not.toBe(first!.run_id)
    expect(runs[1]!.run_id).toBe(second!.run_id)
    expect(await violations(sql, ['held'])).toEqual([])
  })

  const statusOf = async (runId: string) =>
    (await sql`select status from pgflow.runs where run_id = ${runId}`)[0]?.status
  const messagesOf = (runIds: string[]) =>
    sql`select from pgmq.q_held where message ->> 'run_id' = any (${runIds})`
})

async function untilAllEnded(flowSlug: string): Promise<void> {
  const open = () => sql`select from pgflow.runs where flow_slug = ${flowSlug} and status = 'started' limit 1`
  while ((await open()).length > 0) await setImmediate()
}

async function prepare({ slug, steps, input, prepare }: Race, rounds: number): Promise<void> {
  await sql`select pgflow.create_flow(${slug})`
  for (const step of steps) await sql.unsafe(`select pgflow.add_step('${slug}', ${step})`)
  await (input === undefined
    ? sql`insert into race.rounds select ${slug}, n from generate_series(1, ${rounds}::int) n`
    : sql`
        insert into race.rounds
        select ${slug}, row_number() over (), run_id
        from pgflow.start_flows(${slug}, ${sql.json(Array(rounds).fill(input))})`)
  if (prepare) await sql.unsafe(prepare)
}

/** The ways in which rounds have ended, and how many did. */
async function endsOf(race: Race, outcomes: Outcome[]): Promise<Map<string, number>> {
  const runs = await sql.unsafe<{ run_id: string; fate: string }[]>(`
    select run_id, concat_ws(' ', status, output::text, ${race.also ?? 'null'}) as fate
    from pgflow.runs run where flow_slug = '${race.slug}'`)
  const fates = new Map(runs.map(({ run_id, fate }) => [run_id, fate]))
  const ends = new Map<string, number>()
  for (const round of byRound(outcomes)) {
    const { run_id } = round[0]!
    const answers = race.words?.(round) ?? round.map(answerOf).join(' | ')
    const end = run_id ? `${answers} → ${fates.get(run_id) ?? 'gone'}` : answers
    ends.set(end, (ends.get(end) ?? 0) + 1)
  }
  return ends
}

const answerOf = ({ answer, sqlstate }: Outcome) => sqlstate ?? JSON.stringify(answer)

function byRound(outcomes: Outcome[]): Outcome[][] {
  const rounds = new Map<number, Outcome[]>()
  for (const outcome of outcomes) rounds.set(outcome.round, [...(rounds.get(outcome.round) ?? []), outcome])
  return [...rounds.values()]
}
