/**
 * The slug under which the database knows a version of a flow. The first one has the flow's own slug.
 *
 * @example
 * versionedSlug('analyze', 2) // 'analyze_v2'
 */
export function versionedSlug(slug: string, version = 1): string {
  return version === 1 ? slug : `${slug}_v${version}`
}
