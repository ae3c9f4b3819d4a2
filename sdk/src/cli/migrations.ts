import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * Writes the SQL of a flow as a new migration, after all that are there: migrations are applied once, so that none is
 * written over.
 *
 * @returns the path, or `undefined` if the newest migration of the flow says the same
 */
export async function writeMigration(
  folder: string,
  flowSlug: string,
  sql: string,
  now: Date,
): Promise<string | undefined> {
  const text = `-- The flow "${flowSlug}", written by \`pgflow compile\`. After a change of the flow, run it again.\n${sql}`
  const names = (await readdir(folder)).filter((name) => /^\d{14}_.*\.sql$/.test(name)).sort()
  const newest = names.findLast((name) => name.slice(14) === `_pgflow_flow_${flowSlug}.sql`)
  if (newest !== undefined && (await readFile(join(folder, newest), 'utf8')) === text) return undefined
  const path = join(folder, `${versionAfter(names.at(-1), now)}_pgflow_flow_${flowSlug}.sql`)
  await writeFile(path, text, { flag: 'wx' })
  return path
}

/** The time in the form `YYYYMMDDHHMMSS`, UTC, or a second after the last migration. */
function versionAfter(last: string | undefined, now: Date): string {
  const version = versionOf(now)
  if (last === undefined || last.slice(0, 14) < version) return version
  const [, ...parts] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)/.exec(last)!
  const [year, month, day, hour, minute, second] = parts.map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  return versionOf(new Date(Date.UTC(year, month - 1, day, hour, minute, second + 1)))
}

function versionOf(time: Date): string {
  return time.toISOString().replaceAll(/[-:T]/g, '').slice(0, 14)
}
