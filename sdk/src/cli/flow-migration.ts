import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { migrationAfter, migrationsIn } from './migrations.ts'

/**
 * Writes the SQL of a flow as a new migration, after all that are there: migrations are applied once, so that none is
 * written over.
 *
 * @returns the path, or `undefined` if the newest migration of the flow says the same
 */
export async function writeFlowMigration(
  folder: string,
  flowSlug: string,
  sql: string,
  now: Date,
): Promise<string | undefined> {
  const text = `-- The flow "${flowSlug}", written by \`pgflow compile\`. After a change of the flow, run it again.\n${sql}`
  const names = await migrationsIn(folder)
  const newest = names.findLast((name) => name.slice(14) === `_pgflow_flow_${flowSlug}.sql`)
  if (newest !== undefined && (await readFile(join(folder, newest), 'utf8')) === text) return undefined
  const path = join(folder, migrationAfter(names, `pgflow_flow_${flowSlug}`, now))
  await writeFile(path, text, { flag: 'wx' })
  return path
}
