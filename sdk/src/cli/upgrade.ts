import { join } from 'node:path'
import { parsed } from './arguments.ts'
import { makeChanges } from './changes.ts'
import { type Command, CommandError } from './command.ts'
import { assertProject } from './init.ts'
import { currentVersion, upgradeSql } from './migration-sql.ts'
import { installedVersion, migrationAfter, migrationsIn, migrationsPath } from './migrations.ts'

const usage = 'upgrade [--from <version>] [--dry-run] [--dump-sql]'

/** Writes the migration from the version that a project has to the one that this package needs. */
export const upgradeCommand: Command = {
  usage,
  summary:
    'Writes the migration to the version that this package needs. --from says which version there is, where supabase/migrations does not; --dry-run only says what it would do; --dump-sql only prints the SQL.',
  async run(args, io) {
    const options = {
      from: { type: 'string' },
      'dry-run': { type: 'boolean' },
      'dump-sql': { type: 'boolean' },
    } as const
    const { values } = parsed(usage, args, options, {})
    const folder = join(io.cwd, migrationsPath)
    const names = await migrationsIn(folder)
    const version = values.from === undefined ? await installedVersion(folder, names) : Number(values.from)
    if (version === undefined) throw new CommandError(`${migrationsPath} has no pgflow: run npx pgflow init`)
    if (version === currentVersion) return io.out(`${migrationsPath} has version ${version} already.`)
    const sql = await upgradeFrom(version)
    if (values['dump-sql']) return io.out(sql)
    await assertProject(io)
    const name = migrationAfter(names, `pgflow_upgrade_v${version}_to_v${currentVersion}`, io.now)
    const isDryRun = values['dry-run'] ?? false
    const what = `from version ${version} to ${currentVersion}`
    await makeChanges([{ path: `${migrationsPath}/${name}`, text: sql, what }], isDryRun, io)
    if (!isDryRun) io.out('Next: npx supabase db push. Workers and clients may go on meanwhile.')
  },
}

async function upgradeFrom(version: number): Promise<string> {
  if (version > currentVersion) {
    throw new CommandError(
      `${migrationsPath} has version ${version}, and this package is for ${currentVersion}: install a newer @pgflow/sdk`,
    )
  }
  try {
    return await upgradeSql(version)
  } catch (cause) {
    if (cause instanceof RangeError)
      throw new CommandError(`--from is a version from 1 to ${currentVersion}`, { cause })
    throw cause
  }
}
