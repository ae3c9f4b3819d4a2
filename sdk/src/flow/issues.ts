import type { StandardSchemaV1 } from '@standard-schema/spec'
import { pathSegment } from './json-text.ts'

/** In one line: `$.a[3].b: Expected a string; …`. */
export function describeIssues(issues: readonly StandardSchemaV1.Issue[]): string {
  return issues.map(describeIssue).join('; ')
}

function describeIssue({ path = [], message }: StandardSchemaV1.Issue): string {
  const keys = path.map((segment) => (typeof segment === 'object' ? segment.key : segment))
  return `$${keys.map((key) => pathSegment(typeof key === 'number' ? key : String(key))).join('')}: ${message}`
}
