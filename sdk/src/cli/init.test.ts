import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { initCommand } from './init.ts'
import { currentVersion, installSql, uninstallSql, upgradeSql } from './migration-sql.ts'
import { said } from './testing/command.ts'
import { uninstallCommand } from './uninstall.ts'
import { upgradeCommand } from './upgrade.ts'

const now = new Date('2026-11-29T10:00:00.700Z')
const install = `_pgflow_install_v${currentVersion}.sql`
const config = '[api]\nschemas = ["public"] # mine\n'

interface TestProject {
  readonly cwd: string
  read(path: string): Promise<string>
  write(path: string, text: string): Promise<void>
  migrations(): Promise<string[]>
  run(command: typeof initCommand, ...args: string[]): ReturnType<typeof said>
}

async function projectWith(files: Readonly<Record<string, string>>): Promise<TestProject> {
  const cwd = await mkdtemp(join(tmpdir(), 'pgflow-init-'))
  onTestFinished(() => rm(cwd, { recursive: true }))
  const project: TestProject = {
    cwd,
    read: (path) => readFile(join(cwd, path), 'utf8'),
    async write(path, text) {
      await mkdir(dirname(join(cwd, path)), { recursive: true })
      await writeFile(join(cwd, path), text)
    },
    migrations: () => readdir(join(cwd, 'supabase/migrations')).catch(() => []),
    run: (command, ...args) => said(command, args, { cwd, now }),
  }
  for (const [path, text] of Object.entries(files)) await project.write(path, text)
  return project
}

const project = (files: Readonly<Record<string, string>> = {}) =>
  projectWith({ 'supabase/config.toml': config, ...files })

/** The chapters of version 1, as far as they say what they are. */
const chapters = {
  'supabase/migrations/20261122010000_pgflow_schema.sql':
    'create schema pgflow;\ncreate function pgflow.schema_version()\nreturns int as $$\n  select 1\n$$;\n',
  'supabase/migrations/20261122136000_pgflow_access.sql': 'select 1;\n',
}

describe('pgflow init', () => {
  it('adds a migration, settings, a worker function and a script', async () => {
    const { run, read, migrations } = await project({ 'package.json': '{\n    "name": "app"\n}\n' })
    const { out, error } = await run(initCommand)
    expect(error).toBeUndefined()
    expect(out.slice(0, 6)).toEqual([
      `wrote supabase/migrations/20261129100000${install}: tables and functions of pgflow`,
      'changed supabase/config.toml: exposes pgflow_public and pgflow_worker; the worker function checks a secret of its own',
      'wrote supabase/functions/flow-worker/index.ts: the worker as an Edge Function',
      'wrote supabase/functions/flow-worker/flows.ts: your flows, with an example',
      'wrote supabase/functions/flow-worker/deno.json: where Deno finds the packages',
      'changed package.json: adds the script "worker", a worker in Node',
    ])
    expect(out.join('\n')).toContain('supabase config push')
    expect(await migrations()).toEqual([`20261129100000${install}`])
    expect(await read(`supabase/migrations/20261129100000${install}`)).toBe(await installSql())
    expect(await read('supabase/config.toml')).toBe(
      [
        '[api]',
        'schemas = ["public", "pgflow_public", "pgflow_worker"] # mine',
        '',
        '# The worker checks a secret of its own.',
        '[functions.flow-worker]',
        'verify_jwt = false',
        '',
      ].join('\n'),
    )
    expect(await read('package.json')).toBe(
      '{\n    "name": "app",\n    "scripts": {\n        "worker": "pgflow worker supabase/functions/flow-worker/flows.ts"\n    }\n}\n',
    )
  })

  it('says what Next.js needs', async () => {
    const { run } = await project({ 'package.json': '{ "dependencies": { "next": "16" } }' })
    const { out } = await run(initCommand)
    expect(out).toContain(
      'Next.js compiles every file: add "supabase/functions" to "exclude" in tsconfig.json.',
    )
  })

  it('does nothing a second time, and keeps what is there', async () => {
    const own = { 'supabase/functions/flow-worker/flows.ts': '// mine\n' }
    const { run, read, migrations } = await project(own)
    await run(initCommand)
    const before = await read('supabase/config.toml')
    const { out, error } = await run(initCommand)
    expect([out, error]).toEqual([['This project has all of pgflow already.'], undefined])
    expect(await migrations()).toHaveLength(1)
    expect(await read('supabase/config.toml')).toBe(before)
    expect(await read('supabase/functions/flow-worker/flows.ts')).toBe('// mine\n')
  })

  it('writes nothing with --dry-run, and only SQL with --dump-sql', async () => {
    const { run, read, migrations } = await project()
    const { out } = await run(initCommand, '--dry-run')
    expect(out[0]).toContain(`would write supabase/migrations/20261129100000${install}`)
    const [sql, ...others] = (await run(initCommand, '--dump-sql')).out
    expect([sql, others]).toEqual([await installSql(), []])
    const [contents, ...chapters] = sql!.split('\n\n')
    const titlesOf = (text: string) => text.match(/(?<=^-- +)Chapter \d+: [^.\n]+/gm)
    expect(titlesOf(contents!)).toEqual(titlesOf(chapters.join('\n\n')))
    expect(titlesOf(contents!)).toContain('Chapter 2: the tables')
    expect(await migrations()).toEqual([])
    expect(await read('supabase/config.toml')).toBe(config)
  })

  it('leaves the worker function out with --no-scaffold', async () => {
    const { run, cwd } = await project()
    await run(initCommand, '--no-scaffold')
    await expect(readdir(join(cwd, 'supabase/functions'))).rejects.toThrow('ENOENT')
  })

  it.each([
    ['before now', '20240101000000', '20261129100000'],
    ['now', '20261129100000', '20261129100001'],
    ['later', '20271231235959', '20280101000000'],
    ['at no time', '20271122046000', '20271122050001'],
  ])('writes its migration after a newest one from %s', async (_, newest, stamp) => {
    const { run, migrations } = await project({ [`supabase/migrations/${newest}_tables.sql`]: 'select 1;' })
    await run(initCommand)
    expect(await migrations()).toEqual([`${newest}_tables.sql`, `${stamp}${install}`])
  })

  it.each([
    [
      'no section',
      '# mine\n',
      '# mine\n\n[api]\nschemas = [ "public", "graphql_public", "pgflow_public", "pgflow_worker" ]\n',
    ],
    [
      'no array',
      '[api]\n# schemas = ["x"]\n',
      '[api]\n# schemas = ["x"]\n\nschemas = [ "public", "graphql_public", "pgflow_public", "pgflow_worker" ]\n',
    ],
    [
      'an array of lines',
      '[api]\nschemas = [\n  "public", # mine\n]\n',
      '[api]\nschemas = [\n  "public", # mine\n  "pgflow_public",\n  "pgflow_worker",\n]\n',
    ],
    [
      'one of the two',
      '[api]\nschemas = ["pgflow_public"]\n',
      '[api]\nschemas = ["pgflow_public", "pgflow_worker"]\n',
    ],
    [
      'other line ends',
      '[api]\r\nschemas = ["public"]\r\n',
      '[api]\r\nschemas = ["public", "pgflow_public", "pgflow_worker"]\r\n',
    ],
  ])('exposes its schemas where config.toml has %s', async (_, before, after) => {
    const newline = before.includes('\r\n') ? '\r\n' : '\n'
    const rest = ['', '[functions.flow-worker]', 'verify_jwt = true', ''].join(newline)
    const { run, read } = await project({ 'supabase/config.toml': before + rest })
    await run(initCommand)
    expect((await read('supabase/config.toml')).replace(rest, '')).toBe(after)
  })

  it.each([
    ['has no config.toml', {}, /^There is no supabase\/config.toml here\. .*npx supabase init$/],
    [
      'has one that is no TOML',
      { 'supabase/config.toml': '[api' },
      /^supabase\/config.toml cannot be read: /,
    ],
    ['exposes no array', { 'supabase/config.toml': '[api]\nschemas = "x"' }, /schemas in .* is not an array/],
    [
      'has a broken package.json',
      { 'supabase/config.toml': config, 'package.json': '{' },
      /^package.json cannot be read: /,
    ],
    [
      'has another engine',
      {
        'supabase/config.toml': config,
        'supabase/migrations/20250429164909_pgflow_initial.sql': 'CREATE SCHEMA IF NOT EXISTS "pgflow";',
      },
      /^20250429164909_pgflow_initial.sql installs another engine .*docs\/moving-from-pgflow-core.md/,
    ],
  ])('writes nothing where the project %s', async (_, files: Record<string, string>, words) => {
    const { run, migrations, cwd } = await projectWith(files)
    const before = await migrations()
    expect((await run(initCommand)).error).toMatch(words)
    expect(await migrations()).toEqual(before)
    await expect(readdir(join(cwd, 'supabase/functions'))).rejects.toThrow('ENOENT')
  })

  it('points to upgrade where an older version is', async () => {
    const { run, migrations } = await project(chapters)
    const { notes } = await run(initCommand)
    expect(notes).toEqual([
      `supabase/migrations has version 1 of pgflow, and this package needs ${currentVersion}: run npx pgflow upgrade`,
    ])
    expect(await migrations()).toHaveLength(2)
  })
})

describe('pgflow upgrade', () => {
  it('writes the migration from the version that there is', async () => {
    const { run, read, migrations } = await project(chapters)
    const name = `20261129100000_pgflow_upgrade_v1_to_v${currentVersion}.sql`
    expect((await run(upgradeCommand, '--dry-run')).out).toEqual([
      `would write supabase/migrations/${name}: from version 1 to ${currentVersion}`,
    ])
    expect(await migrations()).toHaveLength(2)
    await run(upgradeCommand)
    expect((await migrations()).at(-1)).toBe(name)
    expect(await read(`supabase/migrations/${name}`)).toBe(await upgradeSql(1))
    expect((await run(upgradeCommand)).out).toEqual([
      `supabase/migrations has version ${currentVersion} already.`,
    ])
    expect((await run(upgradeCommand, '--from', '1', '--dump-sql')).out).toEqual([await upgradeSql(1)])
  })

  it.each([
    ['there is none', {}, [], 'supabase/migrations has no pgflow: run npx pgflow init'],
    [
      'it is newer',
      { 'supabase/migrations/20260101000000_pgflow_install_v99.sql': '' },
      [],
      'install a newer @pgflow/sdk',
    ],
    ['there was never such a one', {}, ['--from', '0'], `--from is a version from 1 to ${currentVersion}`],
  ])('says that %s', async (_, files: Record<string, string>, args, words) => {
    const { run } = await project(files)
    expect((await run(upgradeCommand, ...args)).error).toContain(words)
  })
})

describe('pgflow uninstall', () => {
  it('writes the migration that removes all, and says what is left to do', async () => {
    const { run, read, migrations } = await project()
    await run(initCommand)
    await run(uninstallCommand, '--dry-run')
    expect(await migrations()).toHaveLength(1)
    const { out } = await run(uninstallCommand)
    const names = [`20261129100000${install}`, '20261129100001_pgflow_uninstall.sql']
    expect(await migrations()).toEqual(names)
    expect(await read(`supabase/migrations/${names[1]}`)).toBe(await uninstallSql())
    expect(out.at(-1)).toBe('  npx supabase migration repair --status reverted 20261129100000 20261129100001')
    expect(await read('supabase/config.toml')).toContain('schemas = ["public"] # mine')
    expect((await run(uninstallCommand)).error).toBe(
      'supabase/migrations has no pgflow, or removes it already',
    )
    expect((await run(initCommand)).out[0]).toContain(`supabase/migrations/20261129100002${install}`)
  })
})
