import process from 'node:process'
import { createClient } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { PgflowClient } from '../index.ts'
import { ready } from './ready.ts'
import type { Review } from './rig.ts'

// A program as a user would write it. It says which run it has started and when it is ready, what it hears of the run
// and what it got, and then has nothing left to do. With LEAVE it closes the run as soon as it is ready.
const { SUPABASE_URL, SUPABASE_KEY, SUPABASE_TOKEN, LEAVE } = process.env as Record<string, string>
const supabase = createClient(SUPABASE_URL!, SUPABASE_KEY!, {
  accessToken: async () => SUPABASE_TOKEN!,
  // Node 20 has no WebSocket of its own.
  ...(globalThis.WebSocket === undefined && { realtime: { transport: WebSocket as never } }),
})
const client = new PgflowClient<{ review: typeof Review }>(supabase)
const say = (line: string) => process.stdout.write(`${line}\n`)
{
  await using run = await client.startFlow('review', { text: 'some text' })
  const channelReady = ready(supabase)
  run.on('*', ({ seq, type }) => say(`${seq} ${type}`))
  await channelReady
  say(`ready ${run.runId}`)
  if (LEAVE === undefined) say(JSON.stringify(await run.waitForCompletion()))
}
