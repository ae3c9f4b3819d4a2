import type { StandardJSONSchemaV1, StandardSchemaV1 } from '@standard-schema/spec'
import { describeIssues } from './issues.ts'
import { toJson } from './json.ts'
import type { Json } from './json-types.ts'

/** A dialect that every library writes, and that `pg_jsonschema` reads. */
const target = 'draft-07'

/**
 * The JSON Schema of what a schema takes (`input`) or gives (`output`), where its library can say it: zod and arktype
 * can, valibot can with `toStandardJsonSchema`. `undefined` where it cannot, for instance of a `Date`.
 */
export function jsonSchemaOf(
  schema: StandardSchemaV1 | undefined,
  side: 'input' | 'output',
): Json | undefined {
  const { jsonSchema } = (schema as Partial<StandardJSONSchemaV1> | undefined)?.['~standard'] ?? {}
  try {
    return jsonSchema && JSON.parse(toJson(jsonSchema[side]({ target })))
  } catch {
    return undefined
  }
}

/**
 * What a schema makes of a value.
 *
 * @throws what `refuse` makes of the reasons: `$.a[3].b: Expected a string; …`
 */
export async function parse(
  schema: StandardSchemaV1 | undefined,
  value: unknown,
  refuse: (reasons: string) => Error,
): Promise<unknown> {
  if (schema === undefined) return value
  const result = await schema['~standard'].validate(value)
  if (result.issues === undefined) return result.value
  throw refuse(describeIssues(result.issues))
}
