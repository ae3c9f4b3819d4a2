import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { failuresIn, files, tapOf, withoutAutovacuum } from './testing/pgtap.ts'

let stack: LocalSupabase

beforeAll(async () => {
  const migrations = [fileURLToPath(new URL('../migrations', import.meta.url))]
  stack = await startLocalSupabase({ migrations, fsync: false })
  await withoutAutovacuum(stack.adminDbUrl)
  const admin = new pg.Client(stack.adminDbUrl)
  await admin.connect()
  await admin.query('create extension pgtap with schema extensions')
  await admin.end()
})

afterAll(() => stack?.stop())

describe('pgTAP', () => {
  test.each(files)('%s', async (file) => {
    expect(failuresIn(await tapOf(stack.dbUrl, file))).toEqual([])
  })
})
