import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import pg from 'pg'
import { expect, it } from 'vitest'

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url))

it('The SQL of the page on versions runs, block by block', async () => {
  await using stack = await startLocalSupabase({ migrations: [path('../supabase/migrations')], fsync: false })
  const client = new pg.Client(stack.dbUrl)
  await client.connect()
  const blocks = readFileSync(path('versions.md'), 'utf8').matchAll(/^```sql\n(.*?)^```$/gms)
  const results = []
  for (const [, sql] of blocks) results.push((await client.query(sql!)).rows)
  await client.end()
  expect(results).toEqual([
    [{ register_flow: expect.stringMatching(/^\(report,report,1,report,/) }],
    [
      expect.objectContaining({
        version: 1,
        flow_slug: 'report',
        is_newest: true,
        running_runs: '0',
        workers: '0',
      }),
    ],
  ])
})
