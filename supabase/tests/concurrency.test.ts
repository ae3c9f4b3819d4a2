import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { contend, createRaces, type Outcome } from './testing/contend.ts'
import { violations } from './testing/invariants.ts'
import { type Race, races } from './testing/races.ts'

/** Rounds in all; for a longer run: `CONCURRENCY_ROUNDS=100000 npx vitest run supabase/tests/concurrency.test.ts`. */
const ROUNDS = Number(process.env.CONCURRENCY_ROUNDS ?? 10_000)
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
