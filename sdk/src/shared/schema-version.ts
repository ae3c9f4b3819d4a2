/** The version of the migrations that this package needs, as `pgflow.schema_version()` says it. */
export const schemaVersion = 5

/**
 * Says what to do if the migrations of a database are older than this package; `undefined` if they fit. Newer ones fit.
 *
 * @param found what `pgflow.schema_version()` answers; `undefined` if there is no such function
 */
export function schemaProblem(found: number | undefined): string | undefined {
  if (found !== undefined && found >= schemaVersion) return undefined
  return found === undefined
    ? 'This database has no migrations of pgflow. Write them with `npx pgflow init` and apply them: supabase db push.'
    : `This database has version ${found} of the migrations of pgflow, and this package needs version ${schemaVersion}. Write the upgrade with \`npx pgflow upgrade\` and apply it: supabase db push.`
}
