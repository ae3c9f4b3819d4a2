import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, LocalSupabaseError, startLocalSupabase } from '@pgflow/local'
import { PgflowClient, PgflowError } from '@pgflow/sdk'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import postgres from 'postgres'
import WebSocket from 'ws'
import { createDisplay, paint } from './display.ts'
import { AnalyzeDocument } from './flow.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const path = resolve(process.env.INIT_CWD ?? '.', process.argv[2] ?? `${root}README.md`)
const began = performance.now()

function say(text: string): void {
  console.log(`${paint('gray', `${((performance.now() - began) / 1000).toFixed(1).padStart(4)} s`)}  ${text}`)
}

/** The whole stack, as long as the demo takes. */
async function main(): Promise<void> {
  say('starting Postgres, REST and Realtime, installing the migrations')
  await using stack = await startLocalSupabase({
    migrations: [
      `${root}supabase/migrations`,
      fileURLToPath(new URL('supabase/migrations', import.meta.url)),
    ],
  })
  const sql = postgres(stack.dbUrl, { max: 1 })
  // The display says what fails.
  const settings = { connection: stack.dbUrl, log: false } as const
  const worker = await startWorker({ ...settings, flows: [AnalyzeDocument], resources: { sql } })
  say(`worker ${worker.workerId} waits for tasks`)
  const supabase = await signIn(stack)
  try {
    await analyze(supabase)
  } finally {
    await supabase.auth.stopAutoRefresh()
    await worker.stop()
    await sql.end()
  }
}

/** The user's side: nothing but supabase-js. */
async function signIn({ url, publishableKey }: LocalSupabase): Promise<SupabaseClient> {
  const supabase = createClient(url, publishableKey, {
    auth: { persistSession: false },
    // Node 20 has no WebSocket of its own.
    ...(globalThis.WebSocket ? {} : { realtime: { transport: WebSocket as never } }),
  })
  const { data, error } = await supabase.auth.signInAnonymously()
  if (error) throw error
  say(`signed in as ${data.user?.id}`)
  return supabase
}

async function analyze(supabase: SupabaseClient): Promise<void> {
  const client = new PgflowClient(supabase)
  await using run = await client.startFlow<typeof AnalyzeDocument>('analyze_document', { path })
  say(`started run ${run.runId} on ${path}\n`)

  const display = createDisplay()
  run.on('*', (event) => display.show(event, run.snapshot))
  const { report } = await run.waitForCompletion()

  console.log(`\n${paint('bold', report.title ?? path)}`)
  console.log(`  ${report.headings} headings, ${report.links} links, ${report.words.total} words`)
  console.log(`  ${report.words.readingMinutes} min to read, mostly about`)
  for (const { word, count } of report.words.mostFrequent)
    console.log(`  ${String(count).padStart(5)} × ${word}`)

  const saved = await supabase.rpc('my_document_reports')
  if (saved.error) throw saved.error
  console.log(`\n  saved in public.document_reports: ${saved.data.length} row, run ${saved.data[0].run_id}\n`)
}

try {
  await main()
  say('everything is stopped')
} catch (error) {
  if (!(error instanceof PgflowError || error instanceof LocalSupabaseError)) throw error
  console.error(`\n${error.message}`)
  process.exitCode = 1
}
