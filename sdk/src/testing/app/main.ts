import { startLocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { Greet, type Greeted } from './flow.ts'

await using stack = await startLocalSupabase({ migrations: process.argv.slice(2), fsync: false })
const supabase = createClient(stack.url, stack.secretKey, {
  auth: { persistSession: false },
  realtime: { transport: WebSocket as never },
})
const worker = await startWorker({ connection: stack.dbUrl, flows: [Greet] })
try {
  await using run = await new PgflowClient(supabase).startFlow<typeof Greet>('greet', { name: 'Ada' })
  const output: Greeted = await run.waitForCompletion()
  process.stdout.write(JSON.stringify(output))
} finally {
  await worker.stop()
}
