import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const folder = fileURLToPath(new URL('.', import.meta.url))
const files = readdirSync(folder).filter((name) => name.endsWith('.test.sql'))

let stack: LocalSupabase

beforeAll(async () => {
  stack = await startLocalSupabase({ migrations: [`${folder}../migrations`], fsync: false })
  const admin = new pg.Client(stack.adminDbUrl)
  await admin.connect()
  await admin.query('create extension pgtap with schema extensions')
  await admin.end()
})

afterAll(() => stack?.stop())

/** Runs a pgTAP file as `supabase test db` does, as the role postgres, and returns its TAP lines. */
async function tapOf(file: string): Promise<string[]> {
  const client = new pg.Client(stack.dbUrl)
  await client.connect()
  try {
    await client.query('set search_path = public, extensions')
    const results = await client.query({ text: readFileSync(folder + file, 'utf8'), rowMode: 'array' })
    return [results]
      .flat()
      .flatMap((result) => result.rows as unknown[][])
      .flatMap(([value]) => String(value).split('\n'))
      .filter((line) => /^(ok|not ok|1\.\.|#)/.test(line.trimStart()))
  } finally {
    await client.end()
  }
}

describe('pgTAP', () => {
  test.each(files)('%s', async (file) => {
    const lines = await tapOf(file)
    const planned = lines.flatMap((line) => /^1\.\.(\d+)/.exec(line)?.[1] ?? [])
    const passed = lines.filter((line) => line.startsWith('ok'))
    expect(lines.filter((line) => !line.startsWith('ok'))).toEqual([`1..${planned[0]}`])
    expect(passed).toHaveLength(Number(planned[0]))
  })
})
