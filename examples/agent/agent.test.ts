import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import { type Json, RetryAfterError } from '@pgflow/sdk/flow'
import { startWorker, type Worker } from '@pgflow/sdk/worker'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import WebSocket from 'ws'
import { Agent } from './flow.ts'
import type { Model, Prompt } from './model.ts'
import { ComparePrices, createTools } from './tools.ts'

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url))

let stack: LocalSupabase
let sql: Sql
let supabase: SupabaseClient
let user: PgflowClient
let worker: Worker
const models = new Map<unknown, Model>()

beforeAll(async () => {
  const migrations = [folder('../../supabase/migrations'), folder('supabase/migrations')]
  stack = await startLocalSupabase({ migrations, fsync: false })
  sql = postgres(stack.dbUrl, { max: 2 })
  supabase = createClient(stack.url, stack.publishableKey, options)
  await supabase.auth.signInAnonymously()
  user = new PgflowClient(supabase)
  const client = new PgflowClient(createClient(stack.url, stack.secretKey, options))
  const model: Model = (prompt, signal) => models.get(prompt.messages[0]?.content)!(prompt, signal)
  worker = await startWorker({
    connection: stack.dbUrl,
    flows: [Agent, ComparePrices],
    resources: { sql, model, tools: createTools({ sql, client }) },
    log: false,
  })
})
afterAll(async () => {
  await supabase.auth.stopAutoRefresh()
  await worker.stop()
  await sql.end()
  await stack.stop()
})

const options = {
  auth: { persistSession: false },
  // Node 20 has no WebSocket of its own.
  realtime: { transport: WebSocket as never },
}

/** What the model says: a text, or the tools that it asks for. */
type Reply = string | Record<string, Json>

/** A model that says what is written here. How often it has spoken it knows from the messages, so that an attempt repeats the reply. */
function scripted(...replies: Reply[]) {
  const prompts: Prompt[] = []
  const model: Model = async (prompt) => {
    prompts.push(prompt)
    const turn = prompt.messages.filter(({ role }) => role === 'assistant').length
    const reply = replies[Math.min(turn, replies.length - 1)]!
    if (typeof reply === 'string') return { text: reply, calls: [] }
    return {
      text: '',
      calls: Object.entries(reply).map(([name, input]) => ({ id: `${name}-${turn}`, name, input })),
    }
  }
  return { model, prompts }
}

/** A run with a model of its own: the worker's chooses by the task. */
async function startedRun(task: string, model: Model) {
  models.set(task, model)
  return user.startFlow<typeof Agent>('agent', { task })
}

const order = { productId: 'blue', supplier: 'Paint & Co', quantity: 2 }
const buying = [
  'I search, compare and order.',
  { search_products: { name: 'blue' } },
  { compare_prices: { productId: 'blue' } },
  { place_order: order },
]

/** What the last message of a prompt says. */
const lastOf = (prompt: Prompt | undefined) => JSON.stringify(prompt?.messages.at(-1))

test('orders what its user has approved', async () => {
  const { model, prompts } = scripted(...buying, 'Two buckets of blue paint are on their way.')
  let failed = false
  const run = await startedRun('Buy two buckets of blue paint', async (prompt, signal) => {
    if (prompts.length === 2 && !failed) {
      failed = true
      throw new RetryAfterError(0, 'The model is overloaded')
    }
    return model(prompt, signal)
  })
  const wait = await vi.waitUntil(
    async () => (await user.listWaits()).find(({ run_id }) => run_id === run.runId),
    { timeout: 20_000 },
  )
  expect(wait.input).toMatchObject({ work: { call: { name: 'place_order', input: order } } })
  expect(await sql`select from public.orders where run_id = ${run.runId}`).toHaveLength(0)

  await run.step('approval').complete({ approved: true })
  expect(await run.waitForCompletion()).toEqual({ answer: 'Two buckets of blue paint are on their way.' })
  expect(
    await sql`select product_id, supplier, quantity from public.orders where run_id = ${run.runId}`,
  ).toEqual([{ product_id: 'blue', supplier: 'Paint & Co', quantity: 2 }])
  expect(prompts.map(({ tools }) => tools.length)).toEqual([0, 3, 3, 3, 2])
  expect(lastOf(prompts[2])).toContain('{"name":"Blue paint","product_id":"blue"}')
  expect(lastOf(prompts[3])).toContain(
    '[{"price":24,"supplier":"Colours Ltd"},{"price":19,"supplier":"Paint & Co"}]',
  )
  expect(lastOf(prompts[4])).toContain('{"ordered":true}')
  // Each turn is kept; the one that failed was attempted again, and nothing before it.
  expect(run.step('work').state).toMatchObject({
    initial_tasks: 3,
    retries: 1,
    progress: { done: 2, total: 20 },
  })
})

test('does not order what its user refuses', async () => {
  const { model, prompts } = scripted(...buying, { place_order: order }, 'I have not ordered anything.')
  const run = await startedRun('Buy blue paint', model)
  await run.step('approval').complete({ approved: false })
  expect(await run.waitForCompletion()).toEqual({ answer: 'I have not ordered anything.' })
  expect(await sql`select from public.orders where run_id = ${run.runId}`).toHaveLength(0)
  // Asking again does not help.
  expect(prompts.slice(-2).map(lastOf)).toEqual(Array(2).fill(expect.stringContaining('does not allow this')))
})

test('asks nobody where there is nothing to pay', async () => {
  const run = await startedRun(
    'Is there red paint?',
    scripted('I search.', { no_such_tool: {} }, 'We have no red paint.').model,
  )
  expect(await run.waitForCompletion()).toEqual({ answer: 'We have no red paint.' })
  expect(run.step('approval').status).toBe('skipped')
})

test('takes 20 turns at most before it asks', async () => {
  const run = await startedRun(
    'Find red paint',
    scripted('I search.', { search_products: { name: 'red' } }).model,
  )
  await expect(run.waitForCompletion()).rejects.toThrow('step "work" has not ended after 20 turns')
})
