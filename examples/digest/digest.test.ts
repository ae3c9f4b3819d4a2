import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient } from '@supabase/supabase-js'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import WebSocket from 'ws'
import { type Articles, Digest } from './digest.ts'
import { digestsOf, saveDigest } from './settings.ts'

const articles: Articles = { about: async (topic) => [`${topic} today`] }

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../../supabase/migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined })
})
afterAll(async () => {
  await sql.end()
  await stack.stop()
})

async function signIn() {
  const supabase = createClient(stack.url, stack.publishableKey, {
    auth: { persistSession: false, storageKey: randomUUID() },
    realtime: { transport: WebSocket as never },
  })
  onTestFinished(() => supabase.auth.stopAutoRefresh())
  const { data } = await supabase.auth.signInAnonymously()
  return { id: data.user!.id, client: new PgflowClient<{ digest: typeof Digest }>(supabase) }
}

/** Lets the time of the engine jump, and starts what is due then. */
async function tickAt(time: Date): Promise<number> {
  return sql.begin(async (tx) => {
    await tx`select set_config('pgflow.now', ${time.toISOString()}, true)`
    const [row] = await tx`select started from pgflow.start_due_schedules()`
    return row!.started as number
  })
}

test('each user gets a digest at their own seven in the morning', async () => {
  const worker = await startWorker({
    connection: stack.dbUrl,
    flows: [Digest],
    resources: { articles },
    log: false,
  })
  onTestFinished(() => worker.stop())
  const [ada, bo] = [await signIn(), await signIn()]
  const settings = { topics: ['ai'], hour: 7, days: 'daily' } as const
  const inTokyo = await saveDigest(
    ada.client,
    { ...settings, topics: ['ai'] },
    { ...Intl.DateTimeFormat().resolvedOptions(), timeZone: 'Asia/Tokyo' },
  )
  const inNewYork = await saveDigest(
    bo.client,
    { ...settings, topics: ['art', 'chess'] },
    { ...Intl.DateTimeFormat().resolvedOptions(), timeZone: 'America/New_York' },
  )
  for (const { time_zone, next_at } of [inTokyo, inNewYork]) {
    expect(
      new Intl.DateTimeFormat('de', { timeZone: time_zone, timeStyle: 'short' }).format(new Date(next_at)),
    ).toBe('07:00')
  }

  // A day later everybody's morning has come once, and the project's own, too.
  expect(await tickAt(new Date(Date.now() + 86_400_000))).toBe(3)
  const runs = await sql<{ run_id: string; owner_id: string | null; schedule: string }[]>`
    select run_id, owner_id, metadata ->> 'schedule' as schedule from pgflow.runs order by schedule, run_id`
  expect(runs.map(({ owner_id, schedule }) => `${schedule} ${owner_id}`).sort()).toEqual(
    [`digest ${ada.id}`, `digest ${bo.id}`, 'front_page null'].sort(),
  )
  for (const { client, id } of [ada, bo]) {
    const own = runs.find(({ owner_id }) => owner_id === id)!
    await (await client.getRun(own.run_id)).waitForCompletion()
  }
  expect(await digestsOf(ada.client)).toEqual(['ai: ai today'])
  expect(await digestsOf(bo.client)).toEqual(['art: art today\nchess: chess today'])
})
