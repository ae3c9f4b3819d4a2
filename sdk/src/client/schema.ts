import type { StandardSchemaV1 } from '@standard-schema/spec'
import { InvalidInputError } from './errors.ts'

/** Refuses the inputs that a schema refuses. They are sent as they were given: handlers get what the schema makes of them. */
export async function checkSchema(
  schema: StandardSchemaV1 | undefined,
  inputs: readonly unknown[],
): Promise<void> {
  for (const input of inputs) {
    const issues = (await schema?.['~standard'].validate(input))?.issues
    if (!issues) continue
    const { describeIssues } = await import('../flow/issues.ts')
    throw new InvalidInputError('PT400', `The input is not what its schema says: ${describeIssues(issues)}`)
  }
}
