import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { schemaProblem, schemaVersion } from './schema-version.ts'

it('is the version of the migrations in this repository', () => {
  const chapter = '../../../supabase/migrations/20261122010000_pgflow_schema.sql'
  const sql = readFileSync(fileURLToPath(new URL(chapter, import.meta.url)), 'utf8')
  const [, version] = /function pgflow\.schema_version\(\).+?\n {2}select (\d+)\n/s.exec(sql) ?? []
  expect(Number(version)).toBe(schemaVersion)
})

it('says what to run for older migrations and for none', () => {
  expect(schemaProblem(schemaVersion)).toBeUndefined()
  expect(schemaProblem(schemaVersion + 1)).toBeUndefined()
  expect(schemaProblem(0)).toMatch(
    /^This database has version 0 .+ needs version 5\. .+npx pgflow upgrade.+supabase db push\.$/,
  )
  expect(schemaProblem(undefined)).toMatch(
    /^This database has no migrations .+npx pgflow init.+supabase db push\.$/,
  )
})
