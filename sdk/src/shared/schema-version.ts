/** The version of the migrations that this package needs, as `pgflow.schema_version()` says it. */
export const schemaVersion = 1

/**
 * Says what to do if the migrations of a database are older than this package; `undefined` if they fit. Newer ones fit.
 *
 * @param found what `pgflow.schema_version()` answers; `undefined` if there is no such function
 */
export function schemaProblem(found: number | undefined): string | undefined {
  if (found !== undefined && found >= schemaVersion) return undefined
  const state =
    found === undefined
      ? 'This database has no migrations of pgflow, or older ones than this package needs'
      : `This database has version ${found} of the migrations of pgflow, and this package needs version ${schemaVersion}`
  return `${state}. Copy those of this package into supabase/migrations and apply them: supabase db push.`
}
