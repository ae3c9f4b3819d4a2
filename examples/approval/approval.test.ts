import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { ForbiddenError, PgflowClient } from '@pgflow/sdk'
import { startWorker, type Worker } from '@pgflow/sdk/worker'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import WebSocket from 'ws'
import { PublishPost } from './flow.ts'

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url))

let stack: LocalSupabase
let sql: Sql
let worker: Worker
const signedIn: SupabaseClient[] = []
let author: PgflowClient
let reviewer: PgflowClient
let reviewerId: string

beforeAll(async () => {
  const migrations = [folder('../../supabase/migrations'), folder('supabase/migrations')]
  stack = await startLocalSupabase({ migrations, fsync: false })
  sql = postgres(stack.dbUrl, { max: 1 })
  const write = async (title: string) => `${title} is a good idea.`
  worker = await startWorker({ connection: stack.dbUrl, flows: [PublishPost], resources: { sql, write } })
  author = (await signIn()).client
  const { client, id } = await signIn()
  reviewer = client
  reviewerId = id
  await sql`insert into public.reviewers values (${reviewerId})`
})
afterAll(async () => {
  for (const { auth } of signedIn) await auth.stopAutoRefresh()
  await worker.stop()
  await sql.end()
  await stack.stop()
})

async function signIn() {
  const supabase = createClient(stack.url, stack.publishableKey, {
    auth: { persistSession: false },
    // Node 20 has no WebSocket of its own.
    realtime: { transport: WebSocket as never },
  })
  const { data, error } = await supabase.auth.signInAnonymously()
  if (error) throw error
  signedIn.push(supabase)
  return { client: new PgflowClient(supabase), id: data.user!.id }
}

/** A run that waits, and the wait as the reviewer sees it. */
async function draft(title: string) {
  const run = await author.startFlow<typeof PublishPost>('publish_post', { title })
  const wait = await vi.waitUntil(
    async () => (await reviewer.listWaits()).find(({ run_id }) => run_id === run.runId),
    { timeout: 20_000 },
  )
  return { run, wait }
}

const posts = (runId: string) => sql`select title, body from public.posts where run_id = ${runId}`

test('publishes what a reviewer approves', async () => {
  const { run, wait } = await draft('Waiting')
  expect(wait).toMatchObject({
    run_id: run.runId,
    step_slug: 'approval',
    input: { run: { title: 'Waiting' }, draft: { body: 'Waiting is a good idea.' } },
  })
  expect(Date.parse(wait.due_at!) - Date.parse(wait.started_at)).toBe(48 * 3_600_000)
  expect(await author.listWaits()).toEqual([])
  await expect(run.step('approval').complete({ approved: true })).rejects.toThrow(ForbiddenError)

  await reviewer.completeWait(wait, { approved: true })
  await run.waitForCompletion()
  expect(run.step('drop').status).toBe('skipped')
  expect(await posts(run.runId)).toEqual([{ title: 'Waiting', body: 'Waiting is a good idea.' }])
})

test('drops what a reviewer does not approve', async () => {
  const { run, wait } = await draft('Polling')
  await reviewer.completeWait(wait, { approved: false, comment: 'The figures are missing' })
  expect(await run.waitForCompletion()).toEqual({ drop: 'The figures are missing' })
  expect(await posts(run.runId)).toEqual([])
})

test('drops what nobody has reviewed after 48 hours', async () => {
  const { run } = await draft('Sleeping')
  await sql`update pgflow.step_tasks set due_at = now() where run_id = ${run.runId} and status = 'waiting'`
  await sql`select pgflow.tick()`
  expect(await run.waitForCompletion()).toEqual({ drop: 'Nobody has reviewed it in time' })
  await expect.poll(() => reviewer.listWaits()).toEqual([])
  expect(await posts(run.runId)).toEqual([])
})
