import process from 'node:process'
import { createClient } from '@supabase/supabase-js'
import { PgflowClient } from '../index.ts'
import { ready } from './ready.ts'
import type { Review } from './rig.ts'

// A program for runtimes that have a WebSocket of their own: says when it is ready and for which run, and what it hears of it.
const { SUPABASE_URL, SUPABASE_KEY, SUPABASE_TOKEN } = process.env as Record<string, string>
const supabase = createClient(SUPABASE_URL!, SUPABASE_KEY!, { accessToken: async () => SUPABASE_TOKEN! })
const client = new PgflowClient<{ review: typeof Review }>(supabase)
{
  await using run = await client.startFlow('review', { text: 'some text' })
  const channelReady = ready(supabase)
  run.on('*', ({ type }) => process.stdout.write(`${type}\n`))
  await channelReady
  process.stdout.write(`ready ${run.runId}\n`)
  const output = await run.waitForCompletion()
  process.stdout.write(`${JSON.stringify(output)}\n`)
}
