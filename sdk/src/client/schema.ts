import type { StandardSchemaV1 } from '@standard-schema/spec'
import { describeIssues } from '../flow/issues.ts'

/** What a schema says against the first input that it refuses. Handlers get what the schema makes of them: they are sent as given. */
export async function issuesOf(
  schema: StandardSchemaV1,
  inputs: readonly unknown[],
): Promise<string | undefined> {
  for (const input of inputs) {
    const { issues } = await schema['~standard'].validate(input)
    if (issues) return describeIssues(issues)
  }
  return undefined
}
