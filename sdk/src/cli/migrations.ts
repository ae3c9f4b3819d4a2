import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CommandError } from './command.ts'

/** Where a project's migrations are, from its folder. */
export const migrationsPath = 'supabase/migrations'

/** The names of the migrations in a folder, in the order in which they are applied; none if there is no folder. */
export async function migrationsIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [])
  return names.filter((name) => /^\d{14}_.*\.sql$/.test(name)).sort()
}

/** A name after all that are there, in the form `YYYYMMDDHHMMSS_<name>.sql`: the time, UTC, or a second after the last one. */
export function migrationAfter(names: readonly string[], name: string, now: Date): string {
  return `${stampAfter(names.at(-1), now)}_${name}.sql`
}

/**
 * The version of pgflow to which migrations of a folder lead.
 *
 * @returns `undefined` if none of them installs it, or the last of ours removes it
 * @throws CommandError if one of them installs another engine of that name
 */
export async function installedVersion(
  folder: string,
  names: readonly string[],
): Promise<number | undefined> {
  let version: number | undefined
  for (const name of names) {
    const named = /^_pgflow_(?:install|upgrade_v\d+_to)_v(\d+)\.sql$/.exec(name.slice(14))
    if (named) version = Number(named[1])
    else if (name.endsWith('_pgflow_uninstall.sql')) version = undefined
    else if (version === undefined)
      version = versionOfSchema(name, await readFile(join(folder, name), 'utf8'))
  }
  return version
}

/** Whether a migration is one of pgflow's own, an install, upgrade or removal. */
export function isOurs(name: string): boolean {
  return /^_pgflow_(install|upgrade|uninstall)(_|\.)/.test(name.slice(14)) || chapters.test(name.slice(14))
}

/** The files of version 1, which were copied by hand. */
const chapters =
  /^_pgflow_(schema|tables|queue|define|definition|register|schemas|start|advance|settle|claim|workers|end|events|broadcast|maintenance|wake|service|plans|hooks|rules|clients|api|access)\.sql$/

/** The version that a file installs which creates the schema `pgflow`. */
function versionOfSchema(name: string, sql: string): number | undefined {
  if (!/^\s*create\s+schema\s+(if\s+not\s+exists\s+)?"?pgflow"?\s*;/im.test(sql)) return undefined
  const [, version] = /function pgflow\.schema_version\(\)[^$]*\$\$\s*select (\d+)\s*\$\$/.exec(sql) ?? []
  if (version !== undefined) return Number(version)
  throw new CommandError(
    `${name} installs another engine in the schema pgflow, that of @pgflow/core. One database cannot hold both: docs/moving-from-pgflow-core.md in this package says how to move over.`,
  )
}

function stampAfter(last: string | undefined, now: Date): string {
  const stamp = stampOf(now)
  if (last === undefined || last.slice(0, 14) < stamp) return stamp
  const [, ...parts] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)/.exec(last)!
  const [year, month, day, hour, minute, second] = parts.map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  return stampOf(new Date(Date.UTC(year, month - 1, day, hour, minute, second + 1)))
}

function stampOf(time: Date): string {
  return time.toISOString().replaceAll(/[-:T]/g, '').slice(0, 14)
}
