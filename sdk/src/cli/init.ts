import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parsed } from './arguments.ts'
import { type Change, makeChanges } from './changes.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { configPath, withExposedSchemas, withFunction } from './config.ts'
import { currentVersion, installSql } from './migration-sql.ts'
import { installedVersion, migrationAfter, migrationsIn, migrationsPath } from './migrations.ts'
import { scaffold } from './scaffold.ts'

const usage = 'init [--dry-run] [--dump-sql] [--no-scaffold]'

/** Adds pgflow to a Supabase project. What is there already stays as it is. */
export const initCommand: Command = {
  usage,
  summary:
    'Adds pgflow to the Supabase project in this folder: its migration, the exposed schemas in config.toml, a worker function with a flow. --dry-run only says what it would do; --dump-sql only prints the SQL.',
  async run(args, io) {
    const options = {
      'dry-run': { type: 'boolean' },
      'dump-sql': { type: 'boolean' },
      'no-scaffold': { type: 'boolean' },
    } as const
    const { values } = parsed(usage, args, options, {})
    if (values['dump-sql']) return io.out(await installSql())
    await assertProject(io)
    const isDryRun = values['dry-run'] ?? false
    const changes = [
      ...(await missingMigration(io)),
      ...(await missingSettings(io)),
      ...(values['no-scaffold'] ? [] : await scaffold(io.cwd)),
    ]
    await makeChanges(changes, isDryRun, io)
    if (changes.length === 0) io.out('This project has all of pgflow already.')
    else if (!isDryRun) for (const line of [...(await advice(io)), ...nextSteps]) io.out(line)
  },
}

/** @throws CommandError if the folder is no Supabase project */
export async function assertProject({ cwd }: Io): Promise<void> {
  if (existsSync(join(cwd, configPath))) return
  throw new CommandError(
    `There is no ${configPath} here. Run this in the folder of your Supabase project; to make one: npx supabase init`,
  )
}

async function missingMigration({ cwd, now, note }: Io): Promise<Change[]> {
  const folder = join(cwd, migrationsPath)
  const names = await migrationsIn(folder)
  const version = await installedVersion(folder, names)
  if (version === undefined) {
    const name = migrationAfter(names, `pgflow_install_v${currentVersion}`, now)
    return [
      { path: `${migrationsPath}/${name}`, text: await installSql(), what: 'tables and functions of pgflow' },
    ]
  }
  if (version < currentVersion) {
    note(
      `${migrationsPath} has version ${version} of pgflow, and this package needs ${currentVersion}: run npx pgflow upgrade`,
    )
  }
  return []
}

async function missingSettings({ cwd }: Io): Promise<Change[]> {
  const text = await readFile(join(cwd, configPath), 'utf8')
  const changed = withFunction(withExposedSchemas(text), 'flow-worker')
  const what = 'exposes pgflow_public and pgflow_worker; the worker function checks a secret of its own'
  return changed === text ? [] : [{ path: configPath, text: changed, what, isEdit: true }]
}

/** What a framework needs that compiles every file of the folder. */
async function advice({ cwd }: Io): Promise<string[]> {
  const manifest = await readFile(join(cwd, 'package.json'), 'utf8').catch(() => '')
  if (!/"next"\s*:/.test(manifest)) return []
  return ['', 'Next.js compiles every file: add "supabase/functions" to "exclude" in tsconfig.json.']
}

const nextSteps = [
  '',
  'Next, on your machine:',
  '  npx pgflow dev                     without Docker: a local stack with the migrations, and a worker',
  '  npx supabase start                 or with Docker; after changes: npx supabase migration up',
  '',
  'And in a hosted project:',
  '  npx supabase db push               applies the migration',
  '  npx supabase config push           exposes the schemas: editing config.toml alone changes nothing there. Or add',
  '                                     pgflow_public and pgflow_worker in the dashboard (Project Settings, Data API)',
  '  npx supabase functions deploy flow-worker --use-api',
  '                                     deploys the worker; or run one in Node: npx pgflow worker',
  '',
  'docs/getting-started.md in this package goes through all of it. npx pgflow doctor checks a database.',
]
