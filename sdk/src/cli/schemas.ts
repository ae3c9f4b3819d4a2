import type { FlowDefinition } from '../flow/compile.ts'
import type { AnyFlow } from '../flow/definition.ts'
import type { Json } from '../flow/json-types.ts'
import type { Io } from './command.ts'
import { loadGenerator, schemasOf } from './types.ts'

/** A type that is not said by a schema: of a flow's input, or of what a step's handler gets. */
interface Missing {
  readonly flow: AnyFlow
  readonly stepSlug?: string
  readonly type: string
}

/**
 * The definitions with JSON Schemas of the inputs of flows and steps, derived from their types. Where a flow or step has
 * a schema of its own, that one counts.
 *
 * @throws CommandError if a type cannot be a JSON Schema
 */
export async function withSchemas(
  file: string,
  flows: ReadonlyMap<string, AnyFlow>,
  definitions: readonly FlowDefinition[],
  io: Io,
): Promise<readonly FlowDefinition[]> {
  const missing = [...typesOf(flows)].flatMap(([flow, type]) => missingIn(flow, type))
  if (missing.length === 0) return definitions
  const generator = await loadGenerator()
  if (generator === undefined) {
    io.note('ts-json-schema-generator is not installed: types are not turned into JSON Schemas')
    return definitions
  }
  const schemas = schemasOf(
    generator,
    file,
    missing.map(({ type }) => type),
  )
  const derived = new Map(missing.map((one, index) => [keyOf(one.flow.slug, one.stepSlug), schemas[index]]))
  return definitions.map((definition) => complete(definition, derived))
}

/** How the types of flows are called in the module: by its exports, and those of sub-flows by the steps that start them. */
function typesOf(flows: ReadonlyMap<string, AnyFlow>): Map<AnyFlow, string> {
  const types = new Map<AnyFlow, string>()
  for (const [name, flow] of flows) types.set(flow, `(typeof PgflowSelf)[${JSON.stringify(name)}]`)
  // A map goes on with what is added to it meanwhile.
  for (const [flow, type] of types) {
    for (const { slug, child } of flow.steps.values()) {
      if (typeof child !== 'object' || types.has(child)) continue
      types.set(child, `${type}['~types']['steps']['${slug}']['handlerInput']['child']`)
    }
  }
  return types
}

/**
 * A step's payload has what a schema makes of the run's input, which no type of what is stored says. A sub-flow's input is that of
 * its flow.
 */
function missingIn(flow: AnyFlow, self: string): Missing[] {
  if (flow.inputSchema !== undefined) return []
  const steps = [...flow.steps.values()].filter(
    ({ inputSchema, child }) => inputSchema === undefined && child === undefined,
  )
  return [
    { flow, type: `PgflowInputOf<${self}>` },
    ...steps.map(({ slug }) => ({ flow, stepSlug: slug, type: `PgflowStepInputOf<${self}, '${slug}'>` })),
  ]
}

function complete(
  definition: FlowDefinition,
  derived: ReadonlyMap<string, Json | undefined>,
): FlowDefinition {
  const { flow_slug, steps } = definition
  return {
    ...definition,
    ...inputSchema(derived.get(keyOf(flow_slug))),
    steps: steps.map((step) => ({ ...step, ...inputSchema(derived.get(keyOf(flow_slug, step.step_slug))) })),
  }
}

function inputSchema(schema: Json | undefined): { readonly input_schema?: Json } {
  return schema === undefined ? {} : { input_schema: schema }
}

function keyOf(flowSlug: string, stepSlug = ''): string {
  return `${flowSlug} ${stepSlug}`
}
