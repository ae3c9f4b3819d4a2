import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import type { Command } from './command.ts'
import { initCommand } from './init.ts'
import { currentVersion } from './migration-sql.ts'
import { said } from './testing/command.ts'
import { root } from './testing/pgflow.ts'
import { uninstallCommand } from './uninstall.ts'
import { upgradeCommand } from './upgrade.ts'

/* The real Supabase CLI takes what `pgflow init`, `upgrade` and `uninstall` write. */

const bin = join(dirname(createRequire(import.meta.url).resolve('supabase/package.json')), 'dist/supabase.js')

let stack: LocalSupabase
let admin: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({ fsync: false })
  admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => {} })
  // On the platform, supautils lets postgres create policies on this table of another owner.
  await admin`grant supabase_realtime_admin to postgres`
})
afterAll(async () => {
  await admin?.end()
  await stack?.stop()
})
beforeEach(async () => {
  await admin`drop schema if exists pgflow, pgflow_public, pgflow_worker, supabase_migrations cascade`
  await admin`drop table if exists public.notes`
})

class Project {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** As `supabase init` makes it, with a migration for each text. */
  static async create(migrations: Readonly<Record<string, string>> = {}): Promise<Project> {
    const folder = await mkdtemp(join(await realpath(tmpdir()), 'pgflow-supabase-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    const project = new Project(folder)
    await project.supabase('init')
    await mkdir(join(folder, 'supabase/migrations'))
    for (const [name, sql] of Object.entries(migrations))
      await writeFile(join(folder, 'supabase/migrations', name), sql)
    return project
  }

  migrations(): Promise<string[]> {
    return readdir(join(this.#folder, 'supabase/migrations'))
  }

  async pgflow(command: Command): Promise<readonly string[]> {
    const { out, error } = await said(command, [], { cwd: this.#folder })
    expect(error).toBeUndefined()
    return out
  }

  /** Runs the CLI. @returns what it says, on both of its outputs */
  supabase(...args: readonly string[]): Promise<string> {
    return this.#run(args, 0)
  }

  refusedBySupabase(...args: readonly string[]): Promise<string> {
    return this.#run(args, 1)
  }

  #run(args: readonly string[], expected: number): Promise<string> {
    const env = { ...process.env, HOME: this.#folder, PGSSLMODE: 'disable', DO_NOT_TRACK: '1' }
    return new Promise((resolve, reject) => {
      const child = execFile(
        process.execPath,
        [bin, ...args],
        { cwd: this.#folder, env },
        (error, out, errors) => {
          if ((error?.code ?? 0) === expected) resolve(out + errors)
          else reject(new Error(`supabase ${args.join(' ')}: ${out}${errors}`))
        },
      )
      child.stdin?.end() // `migration new` reads it
    })
  }
}

const remote = () => `--remote=${stack.dbUrl}`
const push = () => ['db', 'push', remote(), '--yes']

/** The version of pgflow in the database. */
async function installed(): Promise<number | undefined> {
  const [found] = await admin`select to_regproc('pgflow.schema_version') is not null as yes`
  if (!found!.yes) return undefined
  return (await admin`select pgflow.schema_version() as version`)[0]!.version
}

async function history(): Promise<string[]> {
  const rows = await admin`select name from supabase_migrations.schema_migrations order by version`
  return rows.map(({ name }) => name)
}

describe.sequential('The Supabase CLI', () => {
  it.each([
    ['is old', '20240102030405'],
    ['is of today', `${new Date().toISOString().slice(0, 10).replaceAll('-', '')}000000`],
    ['is of the future', '20271231235959'],
  ])('pushes what init writes where the newest migration %s', async (_, stamp) => {
    const project = await Project.create({ [`${stamp}_notes.sql`]: 'create table public.notes (id int);' })
    await project.supabase(...push())
    await project.pgflow(initCommand)
    await project.supabase(...push())
    expect(await installed()).toBe(currentVersion)
    expect(await project.supabase(...push())).toMatch(/up to date/i)
    expect(await history()).toEqual(['notes', `pgflow_install_v${currentVersion}`])
  })

  it('goes on with the migrations of the project afterwards, and resets it', async () => {
    const project = await Project.create()
    await project.pgflow(initCommand)
    await project.supabase(...push())
    const listed = await project.supabase('migration', 'list', remote())
    const [file] = await project.migrations()
    expect(listed.match(new RegExp(file!.slice(0, 14), 'g'))).toHaveLength(2) // here and there
    expect(await project.supabase('db', 'advisors', remote(), '--level', 'warn')).toContain('No issues found')
    await project.supabase('migration', 'new', 'later')
    expect((await project.migrations()).at(-1)).toMatch(/_later\.sql$/)
    await project.supabase('db', 'reset', remote(), '--yes')
    expect(await installed()).toBe(currentVersion)
    expect(await history()).toEqual([`pgflow_install_v${currentVersion}`, 'later'])
  })

  it('generates the types of what apps call, without what only workers call', async () => {
    const project = await Project.create()
    await project.pgflow(initCommand)
    await project.supabase(...push())
    const types = await project.supabase('gen', 'types', 'typescript', remote(), '--schema', 'pgflow_public')
    expect(types).toContain('"start_flow":')
    expect(types).not.toMatch(/settle_and_claim|heartbeat|register_flow|fetch_value/)
  })

  it('upgrades a project of version 1, and removes pgflow from it', async () => {
    const chapters = await readFile(join(root, 'supabase/tests/versions/1.sql'), 'utf8')
    const project = await Project.create({ '20261122010000_pgflow_schema.sql': chapters })
    await project.supabase(...push())
    expect(await installed()).toBe(1)
    await project.pgflow(upgradeCommand)
    await project.supabase(...push())
    expect(await installed()).toBe(currentVersion)
    const out = await project.pgflow(uninstallCommand)
    await project.supabase(...push())
    const left = await admin`select nspname from pg_namespace where nspname like 'pgflow%'`
    expect(left).toEqual([])
    const policies = await admin`select policyname from pg_policies where policyname like 'pgflow%'`
    expect(policies).toEqual([])
    await project.supabase(...out.at(-1)!.trim().split(' ').slice(2), remote(), '--yes') // supabase migration repair …
    expect(await history()).toEqual([])
  })

  it('changes nothing in a database that has another engine of that name', async () => {
    await admin`create schema pgflow`
    const project = await Project.create()
    await project.pgflow(initCommand)
    expect(await project.refusedBySupabase(...push())).toMatch(
      /this database has a schema "pgflow" already, and it is not that of @pgflow\/sdk.*PT409/s,
    )
    expect(await history()).toEqual([])
    expect(await admin`select from pg_namespace where nspname = 'pgflow_public'`).toHaveLength(0)
  })
})
