import { readFile } from 'node:fs/promises'
import { schemaVersion } from '../shared/schema-version.ts'

/** The version that {@link installSql} and {@link upgradeSql} lead to. */
export const currentVersion: number = schemaVersion

/**
 * All of pgflow, for a database that has none. As all SQL here it is one transaction.
 *
 * @throws in the database PT409 where it has pgflow already, or a schema of that name that is not ours
 */
export async function installSql(): Promise<string> {
  return fileOf('pgflow.sql')
}

/**
 * From an older version to the current one, while workers and clients go on. It waits up to 30 seconds for transactions that
 * hold its tables, and changes nothing if they do not end. Running it twice does no harm.
 *
 * @param from the version that the database has; the current one runs again what can be replaced
 * @throws {RangeError} for a version that there is not
 */
export async function upgradeSql(from: number): Promise<string> {
  if (!Number.isInteger(from) || from < 1 || from > currentVersion) {
    throw new RangeError(`There is no upgrade from version ${from} to ${currentVersion}.`)
  }
  const steps = Array.from({ length: currentVersion - from }, (_, index) => from + index)
  return [
    `-- pgflow ${currentVersion}: the upgrade from version ${from}. Written by @pgflow/sdk.\n`,
    `select set_config('pgflow.upgrade', '${from} to ${currentVersion}', true);\n`,
    await fileOf('upgrade.sql'),
    ...(await Promise.all(steps.map((step) => fileOf(`upgrades/${step}-${step + 1}.sql`)))),
    await fileOf('replace.sql'),
  ].join('\n')
}

/** Removes everything of pgflow, also what is left where parts are missing. Extensions and roles stay. */
export async function uninstallSql(): Promise<string> {
  return [
    '-- The removal of pgflow. Written by @pgflow/sdk.\n',
    `select set_config('pgflow.uninstall', 'yes', true);\n`,
    await fileOf('uninstall.sql'),
  ].join('\n')
}

let built: Promise<Record<string, string>> | undefined

/** The package has the files; from source they are built. */
async function fileOf(name: string): Promise<string> {
  if (import.meta.url.endsWith('.js')) {
    return readFile(new URL(`../../migrations/${name}`, import.meta.url), 'utf8')
  }
  const script = new URL('../../scripts/build-migrations.ts', import.meta.url).href
  built ??= import(/* @vite-ignore */ script).then(({ buildMigrations }) => buildMigrations())
  return (await built)[name]!
}
