import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { violations } from './testing/invariants.ts'
import { createLoad, expectedEnd, isRepeated, persist, work } from './testing/load.ts'

/** What is killed when; for another history: `CRASH_SEED=7 npx vitest run supabase/tests/crash.test.ts`. */
const SEED = Number(process.env.CRASH_SEED ?? 1)
const RUNS = 300
const WORKERS = 6

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: true,
  })
  sql = postgres(stack.dbUrl, { max: 2, onnotice: () => undefined })
  await createLoad(sql, 'load')
})

afterAll(async () => {
  await sql?.end({ timeout: 1 })
  await stack?.stop()
})

test(`runs outlive crashes of Postgres and lost connections (seed ${SEED})`, {
  timeout: 180_000,
}, async () => {
  const claimed: string[] = []
  const applied: string[] = []
  const random = numbersFrom(SEED)
  const ended = new AbortController()
  const workers = Array.from({ length: WORKERS }, (_, n) =>
    work({
      name: `worker ${n}`,
      dbUrl: stack.dbUrl,
      flowSlug: 'load',
      lease: 1,
      onClaimed: (key) => claimed.push(key),
      onApplied: (key) => applied.push(key),
      // Some take so long that others have their tasks, and maybe take long as well.
      workFor: () => (random(6) === 0 ? 500 + random(1000) : 0),
      signal: ended.signal,
    }),
  )
  try {
    const all = [startRuns(), breakThings(() => applied.length)]
    await Promise.race([Promise.all(all), ...workers])
    await Promise.race([untilAllEnded(), ...workers])
  } finally {
    ended.abort()
  }
  await Promise.all(workers)

  expect(claimed).toHaveLength(new Set(claimed).size)
  expect(applied).toHaveLength(new Set(applied).size)
  expect(await endings()).toEqual(Array.from({ length: RUNS }, (_, n) => ({ n, ...expectedEnd(n) })))
  expect(await lastAttempts()).toEqual(expect.arrayContaining(applied.filter((key) => !isRepeated(key))))
  expect(await violations(sql, ['load'])).toEqual([])
  expect(await eventsNotBroadcastOnce()).toEqual([])
})

/** Starts the runs while everything breaks, each of them once. */
async function startRuns(): Promise<void> {
  const size = 20
  for (let first = 0; first < RUNS; first += size) {
    const numbers = Array.from({ length: size }, (_, index) => first + index)
    const inputs = sql.json(numbers.map((n) => ({ n })))
    await persist(() => sql`select pgflow.start_flows('load', ${inputs}, ${numbers.map(String)})`)
  }
}

/** Kills Postgres three times and a worker's connection many times, as the work goes on. */
async function breakThings(settled: () => number): Promise<void> {
  const random = numbersFrom(SEED)
  for (const signal of ['SIGKILL', 'SIGQUIT', 'SIGKILL'] as const) {
    for (let cuts = 0; cuts < 4; cuts++) {
      await untilSettled(settled, settled() + random(60))
      const victim = `worker ${random(WORKERS)}`
      await persist(
        () => sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${victim}`,
      )
    }
    await untilSettled(settled, settled() + random(60))
    await kill(signal)
    await stack.postgres.start()
  }
}

/** SIGQUIT has the server kill its processes; SIGKILL takes it no further than itself. */
async function kill(signal: 'SIGKILL' | 'SIGQUIT'): Promise<void> {
  const processes = await persist(() => sql<{ pid: number }[]>`select pid from pg_stat_activity`)
  const exited = stack.postgres.kill(signal)
  if (signal === 'SIGKILL') for (const { pid } of processes) killIfAlive(pid)
  await exited
}

function killIfAlive(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

async function untilSettled(settled: () => number, count: number): Promise<void> {
  while (settled() < count) await setTimeout(1)
}

async function untilAllEnded(): Promise<void> {
  const open = () => sql`select from pgflow.runs where status = 'started' limit 1`
  while ((await persist(open)).length > 0) await setTimeout(50)
}

/** A small generator of numbers below a limit, the same for the same seed. */
function numbersFrom(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

async function endings() {
  return [
    ...(await sql`
      select (input ->> 'n')::int as n, status, output from pgflow.runs where flow_slug = 'load' order by n`),
  ]
}

/** The attempts that settled tasks for good: no result of an older one may have been applied. */
async function lastAttempts(): Promise<string[]> {
  const attempts = await sql`
    select concat_ws(' ', run_id, step_slug, task_index, attempts_count) as key
    from pgflow.step_tasks where status in ('completed', 'failed')`
  return attempts.map(({ key }) => key)
}

async function eventsNotBroadcastOnce() {
  return sql`
    select run_id, e.seq, count(told.seq)
    from pgflow.run_events e
    left join (
      select (r.run ->> 'run_id')::uuid as run_id, (e.event ->> 'seq')::bigint as seq
      from realtime.messages m
      cross join jsonb_array_elements(m.payload -> 'runs') as r (run)
      cross join jsonb_array_elements(r.run -> 'events') as e (event)
    ) told using (run_id, seq)
    group by run_id, e.seq
    having count(told.seq) <> 1
    limit 20`
}
