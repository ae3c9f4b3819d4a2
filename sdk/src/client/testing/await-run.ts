import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { PgflowClient } from '../index.ts'
import { type Review, ready } from './rig.ts'

// A program as a user would write it, which says when it is ready and what it got, and then has nothing left to do.
const { SUPABASE_URL, SUPABASE_KEY, SUPABASE_TOKEN } = process.env as Record<string, string>
const supabase = createClient(SUPABASE_URL!, SUPABASE_KEY!, {
  accessToken: async () => SUPABASE_TOKEN!,
  realtime: { transport: WebSocket as never },
})
const run = await new PgflowClient(supabase).startFlow<typeof Review>('review', { text: 'some text' })
const channelReady = ready(supabase)
const output = run.waitForCompletion()
await channelReady
process.stdout.write(`ready ${run.runId}\n`)
process.stdout.write(`${JSON.stringify(await output)}\n`)
