import type { AnyFlow, FlowOptions, StepDefinition } from './definition.ts'
import type { Json } from './json-types.ts'

/** A flow as the database defines it: the arguments of `create_flow` and, per step, of `add_step`. */
export interface FlowDefinition {
  readonly [argument: string]: Json
  readonly flow_slug: string
  readonly steps: readonly StepArguments[]
}

type StepArguments = {
  readonly [argument: string]: Json
  readonly step_slug: string
  readonly deps_slugs: readonly string[]
}

/** What makes two flows the same: their steps, deps, maps and conditions, whatever their order, options and handlers. */
export interface FlowShape {
  readonly [key: string]: Json
  readonly slug: string
  readonly steps: readonly StepShape[]
}

type StepShape = {
  readonly [key: string]: Json
  readonly slug: string
  readonly type: 'single' | 'map'
  readonly deps: readonly string[]
}

/**
 * The SQL that defines a flow. The same flow gives the same text; running it twice changes nothing.
 *
 * @example
 * compile(new Flow<string>({ slug: 'greet', timeout: 5 }).step('text', ({ run }) => `Hello ${run}`))
 * // select pgflow.create_flow(flow_slug => 'greet', timeout => 5);
 * // select pgflow.add_step(flow_slug => 'greet', step_slug => 'text');
 */
export function compile(flow: AnyFlow): string {
  const { steps, alias, version, ...flowArguments } = definitionOf(flow)
  const calls = [
    call('create_flow', flowArguments),
    ...steps.map((step) => call('add_step', { flow_slug: flow.slug, ...step })),
  ]
  return calls.map((text) => `${text}\n`).join('')
}

/** Everything that `compile` says, as one JSON value: a flow in the form that the database registers. */
export function definitionOf(flow: AnyFlow): FlowDefinition {
  const { maxAttempts, baseDelay, timeout, startRole, broadcast, version = 1 } = flow.options
  return {
    flow_slug: flow.slug,
    ...(version > 1 && { alias: flow.alias, version }),
    ...given({ max_attempts: maxAttempts, base_delay: baseDelay, timeout, start_role: startRole, broadcast }),
    steps: [...flow.steps.values()].map((step) => stepArguments(step, flow.options)),
  }
}

function stepArguments(step: StepDefinition, flowOptions: FlowOptions): StepArguments {
  const { maxAttempts, baseDelay, timeout, startDelay = flowOptions.startDelay } = step.options
  return {
    step_slug: step.slug,
    deps_slugs: step.deps,
    ...given({ max_attempts: maxAttempts, base_delay: baseDelay, timeout, start_delay: startDelay }),
    ...behaviourOf(step),
  }
}

/** What a step is beside its deps: whether it is a map, and when it runs. What the database does by default is left out. */
function behaviourOf({ type, items, options }: StepDefinition): Record<string, Json> {
  const { runIf, runUnless, whenUnmet, whenExhausted } = options
  return given({
    step_type: type === 'single' ? undefined : type,
    map_source: items?.source,
    map_path: items?.path,
    run_if: runIf,
    run_unless: runUnless,
    when_unmet: whenUnmet === 'skip-cascade' ? undefined : whenUnmet,
    when_exhausted: whenExhausted === 'fail' ? undefined : whenExhausted,
  })
}

/** The flow's shape in its canonical order, so that equal shapes are equal as text too. */
export function shapeOf(flow: AnyFlow): FlowShape {
  const steps = [...flow.steps.values()].map(stepShape)
  return { slug: flow.slug, steps: steps.sort((one, other) => (one.slug < other.slug ? -1 : 1)) }
}

function stepShape(step: StepDefinition): StepShape {
  const { step_type, ...behaviour } = behaviourOf(step)
  return { slug: step.slug, type: step.type, deps: step.deps.toSorted(), ...sorted(behaviour) }
}

/** The same object with its keys in order, at each level. */
function sorted<T extends Json>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(sorted) as Json as T // a value of the same type
  const entries = Object.entries(value as Record<string, Json>).map(
    ([key, inner]) => [key, sorted(inner)] as const,
  )
  return Object.fromEntries(entries.sort(([one], [other]) => (one < other ? -1 : 1))) as Json as T // here too
}

function given(options: Record<string, Json | undefined>): Record<string, Json> {
  return Object.fromEntries(
    Object.entries(options).filter((entry): entry is [string, Json] => entry[1] !== undefined),
  )
}

function call(name: string, named: Record<string, Json>): string {
  const list = Object.entries(named)
    .filter(([, value]) => !Array.isArray(value) || value.length > 0)
    .map(([key, value]) => `${key} => ${sql(value)}`)
  return `select pgflow.${name}(${list.join(', ')});`
}

/** Lists are of slugs, objects are conditions. */
function sql(value: Json): string {
  if (typeof value === 'string') return `'${value.replaceAll("'", "''")}'`
  if (Array.isArray(value)) return `array[${value.map(sql).join(', ')}]::text[]`
  if (typeof value === 'object') return `${sql(JSON.stringify(value))}::jsonb`
  return String(value)
}
