import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { startLocalSupabase } from '@pgflow/local'
import type { AnyFlow } from '@pgflow/sdk/flow'
import { startWorker } from '@pgflow/sdk/worker'
import postgres from 'postgres'
import { afterAll, expect, it } from 'vitest'
import WebSocket from 'ws'
import { pageOf, root } from './testing/pages.ts'
import { codeOf, filesOf } from './testing/shown.ts'

const { text } = pageOf('docs/local-development.md')
const files = filesOf(text)

mkdirSync(join(root, '.vitest'), { recursive: true })
const folder = mkdtempSync(join(root, '.vitest/local-development-'))
afterAll(() => rmSync(folder, { recursive: true }))
for (const [path, code] of files) {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), code)
}

// As the page says of Node 20.
Object.assign(globalThis, { WebSocket: globalThis.WebSocket ?? WebSocket })
// The test of the page is a test of this file.
await import(join(folder, 'supabase/functions/flow-worker/flows.test.ts'))

it('says what a changed flow leads to, and how to delete the old one', async () => {
  await using stack = await startLocalSupabase({
    migrations: [join(root, 'supabase/migrations')],
    fsync: false,
  })
  const { AnalyzeText } = await import(join(folder, 'supabase/functions/flow-worker/flows.ts'))
  const start = async (flow: AnyFlow) =>
    (await startWorker({ connection: stack.dbUrl, flows: [flow] as never })).stop()
  const changed = AnalyzeText.step('count', ['words'], () => 1)
  await start(AnalyzeText)
  const sql = postgres(stack.dbUrl)
  await sql`select pgflow.start_flow('analyze_text', '{"text": ""}')`

  const [message] = codeOf(text, 'text')
  await expect(start(changed)).rejects.toThrow(message!.trim().replaceAll('\n', ' '))
  const [deletion, ...more] = codeOf(text, 'sql')
  expect(more).toEqual([])
  await sql.unsafe(deletion!)
  await start(changed)
  await sql.end()
})
