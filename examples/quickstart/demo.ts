import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient } from '@supabase/supabase-js'
import postgres from 'postgres'
import WebSocket from 'ws'
import { createDisplay, paint } from './display.ts'
import type { AnalyzeDocument } from './flow.ts'
import { AnalyzeDocument as flow } from './flow.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const path = resolve(process.env.INIT_CWD ?? '.', process.argv[2] ?? `${root}README.md`)
const began = performance.now()

function say(text: string): void {
  console.log(`${paint('gray', `${((performance.now() - began) / 1000).toFixed(1).padStart(4)} s`)}  ${text}`)
}

async function main(): Promise<void> {
  say('starting Postgres, REST and Realtime, installing the migrations')
  await using stack = await startLocalSupabase({
    migrations: [
      `${root}supabase/migrations`,
      fileURLToPath(new URL('supabase/migrations', import.meta.url)),
    ],
  })

  // The server's side: a worker with a connection to the database.
  const sql = postgres(stack.dbUrl, { max: 1 })
  const worker = await startWorker({ connection: stack.dbUrl, flows: [flow], resources: { sql } })
  say(`worker ${worker.workerId} waits for tasks`)

  // The user's side: nothing but supabase-js.
  const supabase = createClient(stack.url, stack.publishableKey, {
    auth: { persistSession: false },
    // Node 20 has no WebSocket of its own.
    ...(globalThis.WebSocket ? {} : { realtime: { transport: WebSocket as never } }),
  })
  const { data, error } = await supabase.auth.signInAnonymously()
  if (error) throw error
  say(`signed in as ${data.user?.id}`)

  const client = new PgflowClient(supabase)
  const run = await client.startFlow<typeof AnalyzeDocument>('analyze_document', { path })
  say(`started run ${run.runId} on ${path}\n`)

  const display = createDisplay()
  run.on('*', (event) => display.show(event, run.snapshot))
  try {
    const output = await run.waitForCompletion()
    console.log(`\n${paint('bold', output.report.title ?? path)}`)
    console.log(
      `  ${output.report.headings} headings, ${output.report.links} links, ${output.report.words.total} words`,
    )
    console.log(`  ${output.report.words.readingMinutes} min to read, mostly about`)
    for (const { word, count } of output.report.words.mostFrequent)
      console.log(`  ${String(count).padStart(5)} × ${word}`)

    const reports = await supabase.rpc('my_document_reports')
    if (reports.error) throw reports.error
    console.log(
      `\n  saved in public.document_reports: ${reports.data.length} row, run ${reports.data[0].run_id}\n`,
    )
  } finally {
    await run.close()
    await worker.stop()
    await sql.end()
    await supabase.removeAllChannels()
    supabase.auth.stopAutoRefresh()
  }
}

await main()
say('everything is stopped')
