import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient } from '@supabase/supabase-js'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import WebSocket from 'ws'
import { ImportDocuments } from './flow.ts'
import { FakeModel } from './model.ts'

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url))

let stack: LocalSupabase
let sql: Sql
let client: PgflowClient

beforeAll(async () => {
  const migrations = [folder('../../supabase/migrations'), folder('supabase/migrations')]
  stack = await startLocalSupabase({ migrations, fsync: false })
  sql = postgres(stack.dbUrl, { max: 2 })
  client = new PgflowClient(
    createClient(stack.url, stack.secretKey, {
      auth: { persistSession: false },
      // Node 20 has no WebSocket of its own.
      realtime: { transport: WebSocket as never },
    }),
  )
})
afterAll(async () => {
  await sql.end()
  await stack.stop()
})

async function startedModel(): Promise<FakeModel> {
  const model = new FakeModel()
  const worker = await startWorker({
    connection: stack.dbUrl,
    flows: [ImportDocuments],
    resources: { sql, model },
    log: false,
  })
  onTestFinished(() => worker.stop())
  return model
}

test('1,000 documents cost ten requests', async () => {
  const model = await startedModel()
  const documents = Array.from({ length: 1000 }, (_, id) => ({ id, body: `Document ${id} about pgflow` }))
  const run = await client.startFlow<typeof ImportDocuments>('import_documents', { documents })
  expect(await run.waitForCompletion()).toEqual({ count: 1000 })
  expect(model.requests).toBe(10)
  const [row] = await sql`
    select count(*)::int as documents, max(cardinality(embedding)) as dimensions from public.documents`
  expect(row).toEqual({ documents: 1000, dimensions: 26 })
})

test('a document without an embedding fails alone, and the others are paid once', async () => {
  const model = await startedModel()
  const bodies = ['Some words', '123', 'More words']
  const documents = bodies.map((body, index) => ({ id: 2000 + index, body }))
  const run = await client.startFlow<typeof ImportDocuments>('import_documents', { documents })
  await expect(run.waitForCompletion()).rejects.toThrow('The model has no embedding for document 2001')
  expect(model.requests).toBe(1)
  const rows = await sql`select document_id::int from public.documents where document_id >= 2000 order by 1`
  expect(rows.map(({ document_id }) => document_id)).toEqual([2000, 2002])
})
