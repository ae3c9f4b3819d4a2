import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parsed } from './arguments.ts'
import { type Change, makeChanges } from './changes.ts'
import { type Command, CommandError } from './command.ts'
import { configPath, withoutExposedSchemas } from './config.ts'
import { assertProject } from './init.ts'
import { uninstallSql } from './migration-sql.ts'
import { installedVersion, isOurs, migrationAfter, migrationsIn, migrationsPath } from './migrations.ts'

const usage = 'uninstall [--dry-run] [--dump-sql]'

/** Writes the migration that removes pgflow, its runs included. */
export const uninstallCommand: Command = {
  usage,
  summary:
    'Writes the migration that removes everything of pgflow from the database, runs included, and says what else to remove. --dry-run only says what it would do; --dump-sql only prints the SQL.',
  async run(args, io) {
    const options = { 'dry-run': { type: 'boolean' }, 'dump-sql': { type: 'boolean' } } as const
    const { values } = parsed(usage, args, options, {})
    if (values['dump-sql']) return io.out(await uninstallSql())
    await assertProject(io)
    const folder = join(io.cwd, migrationsPath)
    const names = await migrationsIn(folder)
    if ((await installedVersion(folder, names)) === undefined)
      throw new CommandError(`${migrationsPath} has no pgflow, or removes it already`)
    const isDryRun = values['dry-run'] ?? false
    const name = migrationAfter(names, 'pgflow_uninstall', io.now)
    const what = 'removes pgflow, its queues and all runs'
    const removal = { path: `${migrationsPath}/${name}`, text: await uninstallSql(), what }
    await makeChanges([removal, ...(await hiddenSchemas(io.cwd))], isDryRun, io)
    for (const line of leftToDo([...names, name])) io.out(line)
  },
}

async function hiddenSchemas(cwd: string): Promise<Change[]> {
  const text = await readFile(join(cwd, configPath), 'utf8')
  const changed = withoutExposedSchemas(text)
  const what = 'pgflow_public and pgflow_worker are no longer exposed'
  return changed === text ? [] : [{ path: configPath, text: changed, what, isEdit: true }]
}

function leftToDo(names: readonly string[]): string[] {
  const ours = names.filter((name) => isOurs(name) || name.slice(14).startsWith('_pgflow_flow_'))
  const stamps = ours.map((name) => name.slice(0, 14))
  return [
    '',
    'Next:',
    '  npx supabase db push               removes it. This deletes all runs: keep what you need before',
    '  npx supabase config push           or the dashboard: the schemas are no longer exposed',
    '  npx supabase functions delete flow-worker',
    '',
    'Yours to remove: supabase/functions/flow-worker, [functions.flow-worker] in config.toml, the script "worker" in',
    'package.json, the package @pgflow/sdk. Extensions and roles stay.',
    '',
    'To forget the migrations too, once it is removed everywhere: delete these files, and their rows in each database:',
    ...ours.map((name) => `  ${migrationsPath}/${name}`),
    `  npx supabase migration repair --status reverted ${stamps.join(' ')}`,
  ]
}
