/** The version of the migrations that this package needs: what `pgflow.schema_version()` of its own migrations returns. */
export const schemaVersion = 1

/**
 * What to do about the version that a database has; `undefined` if it will do, as a newer one does.
 *
 * @param found what `schema_version()` returned; `undefined` where there is no such function
 *
 * @example
 * schemaProblem(0) // 'The database has version 0 of the migrations of pgflow, and this package needs 1: …'
 */
export function schemaProblem(found: number | undefined): string | undefined {
  if (found !== undefined && found >= schemaVersion) return undefined
  const has =
    found === undefined
      ? 'pgflow is not installed in this database'
      : `The database has version ${found} of the migrations of pgflow, and this package needs ${schemaVersion}`
  const which = found === undefined ? 'its migrations' : 'the newer migrations'
  return `${has}: copy ${which} into supabase/migrations, and run \`supabase db push\`.`
}
