import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { compile, Flow } from '../flow/index.ts'
import { schemaVersion } from '../shared/schema-version.ts'
import { startTestDatabase, type TestDatabase } from '../worker/testing/database.ts'
import { pgflow } from './testing/pgflow.ts'

let db: TestDatabase
let failed: string
let going: string

beforeAll(async () => {
  db = await startTestDatabase()
  const Greet = new Flow<string>({ slug: 'greet', maxAttempts: 1 })
    .step('text', ({ run }) => run)
    .step('mail', ['text'], ({ text }) => text)
  await db.sql.unsafe(compile(Greet))
  failed = await db.startRun('greet', 'Ada')
  await db.sql`select pgflow.fail_task(${failed}, 'text', 0, 'no ink')`
  going = await db.startRun('greet', 'Grace')
})
afterAll(() => db[Symbol.asyncDispose]())

const runs = (...args: string[]) => pgflow('runs', ...args, '--db', db.url)
const lines = (text: string) => text.trimEnd().split('\n')

describe('pgflow runs', () => {
  it('lists, filters, and gives rows as JSON', async () => {
    const all = await runs('list')
    expect(all).toMatchObject({ code: 0, errors: '' })
    expect(lines(all.out)).toEqual([
      expect.stringMatching(new RegExp(`^${going}  \\d{4}-\\d\\d-\\d\\dT[\\d:]{8}  started    greet$`)),
      expect.stringMatching(new RegExp(`^${failed}  .*  failed     greet  .*no ink$`)),
    ])
    const { out } = await runs('list', '--flow', 'greet', '--status', 'failed', '--limit', '5', '--json')
    expect(JSON.parse(out)).toEqual([expect.objectContaining({ run_id: failed, input: 'Ada' })])
  })

  it('shows a run with its steps', async () => {
    const { out } = await runs('show', failed)
    expect(lines(out).slice(1)).toEqual(['  text  failed     no ink', '  mail  cancelled'])
    expect(JSON.parse((await runs('show', failed, '--json')).out)).toMatchObject({
      run_id: failed,
      steps: [{}, {}],
    })
  })

  it('cancels one and lets one go on', async () => {
    expect(lines((await runs('cancel', going)).out)[0]).toMatch(/ {2}cancelled {2}greet/)
    expect(lines((await runs('retry', failed)).out)[0]).toMatch(/ {2}started {4}greet/)
    const again = await runs('retry', failed)
    expect(again).toMatchObject({ code: 1, out: '' })
    expect(again.errors).toMatch(/^pgflow runs: run /)
  })

  it.each<[string, string[], string]>([
    ['what to do', [], 'name what to do: list, show, cancel or retry\nUsage: pgflow runs'],
    ['which run', ['show'], 'name the run by its id\nUsage: pgflow runs'],
    ['that the id is none', ['show', 'x'], 'the database says: invalid input syntax for type uuid: "x"'],
    ['that there is no such run', ['show', '10000000-0000-4000-8000-000000000000'], 'does not exist'],
    ['that the limit is no number', ['list', '--limit', 'all'], '--limit is a whole number, 1 or more'],
    ['that there is no such status', ['list', '--status', 'done'], '--status is one of started, completed, '],
  ])('says %s', async (_, args, words) => {
    expect(await runs(...args)).toMatchObject({ code: 1, out: '', errors: expect.stringContaining(words) })
  })

  it('says that it does not reach the database, without the password', async () => {
    const { errors } = await pgflow('runs', 'list', '--db', 'postgresql://me:secret@127.0.0.1:1/postgres')
    expect(errors).toMatch(/^pgflow runs: the database cannot be reached: .*ECONNREFUSED.*--db/)
    expect(errors).not.toContain('secret')
  })
})

it('A port that is not Postgres is named within seconds', async () => {
  const server = createServer((_, response) => response.end()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const { errors } = await pgflow('doctor', '--db', `postgresql://me:secret@127.0.0.1:${port}/postgres`)
  expect(errors).toContain(
    `the database cannot be reached: 127.0.0.1:${port} is not Postgres: it answered "HTTP/1.1 400`,
  )
})

describe('pgflow doctor', () => {
  const doctor = () => pgflow('doctor', '--db', db.url)

  it('tells what works from what would help', async () => {
    await db.sql`select pgflow.cancel_run(${failed})`
    const { code, out } = await doctor()
    expect(out).toContain(
      "finished runs and archives grow: select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain(keep_runs",
    )
    expect(lines(out).map((line) => line.slice(0, 40).trimEnd())).toMatchInlineSnapshot(`
      [
        "ok    the migrations fit this package",
        "ok    clients reach pgflow_public",
        "ok    clients may listen to their runs",
        "ok    events are broadcast",
        "ok    each flow has its queue",
        "ok    each flow with runs that go on has",
        "note  upkeep is scheduled: finished runs",
        "ok    inputs are held against their sche",
      ]
    `)
    expect(code).toBe(0)
  })

  it('says what does not work, and fails', async () => {
    const run_id = await db.startRun('greet', 'Joan')
    const { code, out, errors } = await doctor()
    expect(out).toContain('fix   each flow with runs that go on has a worker: start one;')
    expect(errors).toBe('pgflow doctor: 1 of 8 checks failed\n')
    expect(code).toBe(1)
    await db.sql`select pgflow.cancel_run(${run_id})`
  })

  it('knows the exposed schemas where the database has them', async () => {
    const admin = postgres(db.adminUrl, { max: 1 })
    await admin`alter role authenticator set pgrst.db_schemas = 'public, graphql_public'`
    expect((await doctor()).out).toContain('fix   clients reach pgflow_public: add pgflow_public')
    await admin`alter role authenticator set pgrst.db_schemas = 'public, pgflow_public'`
    expect((await doctor()).out).toContain('ok    clients reach pgflow_public\n')
    await admin.end()
  })

  it('stops where the migrations are older', async () => {
    const version = (n: number) =>
      db.sql.unsafe(`create or replace function pgflow.schema_version() returns int language sql immutable
        set search_path = pg_catalog, pg_temp as 'select ${n}'`)
    await version(0)
    try {
      const words = `This database has version 0 of the migrations of pgflow, and this package needs version ${schemaVersion}.`
      const { out, code } = await doctor()
      expect(out).toContain(`fix   the migrations fit this package: ${words}`)
      expect(lines(out)).toHaveLength(1)
      expect(code).toBe(1)
      expect(await runs('list')).toMatchObject({ code: 1, errors: expect.stringContaining(words) })
    } finally {
      await version(schemaVersion)
    }
  })

  it('stops where pgflow is not installed', async () => {
    const { out, code } = await pgflow('doctor', '--db', db.url.replace(/\/[^/]*$/, '/template1'))
    expect(out).toMatch(
      /^fix {3}the migrations fit this package: This database has no migrations .*supabase db push/,
    )
    expect(lines(out)).toHaveLength(1)
    expect(code).toBe(1)
  })
})
