import type { AnyFlow, StepDefinition } from './flow.ts'
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

/** What makes two flows the same: their steps and deps, whatever the order, the options and the handlers. */
export interface FlowShape {
  readonly [key: string]: Json
  readonly slug: string
  readonly steps: readonly {
    readonly slug: string
    readonly type: 'single'
    readonly deps: readonly string[]
  }[]
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
  const { steps, ...flowArguments } = definitionOf(flow)
  const calls = [
    call('create_flow', flowArguments),
    ...steps.map((step) => call('add_step', { flow_slug: flow.slug, ...step })),
  ]
  return calls.map((text) => `${text}\n`).join('')
}

/** Everything that `compile` says, as one JSON value: a flow in the form that the database registers. */
export function definitionOf(flow: AnyFlow): FlowDefinition {
  const { maxAttempts, baseDelay, timeout, startRole, broadcast } = flow.options
  return {
    flow_slug: flow.slug,
    ...given({ max_attempts: maxAttempts, base_delay: baseDelay, timeout, start_role: startRole, broadcast }),
    steps: [...flow.steps.values()].map(stepArguments),
  }
}

function stepArguments({ slug, deps, options }: StepDefinition): StepArguments {
  const { maxAttempts, baseDelay, timeout, startDelay } = options
  return {
    step_slug: slug,
    deps_slugs: deps,
    ...given({ max_attempts: maxAttempts, base_delay: baseDelay, timeout, start_delay: startDelay }),
  }
}

/** The flow's shape in its canonical order, so that equal shapes are equal as text too. */
export function shapeOf(flow: AnyFlow): FlowShape {
  const steps = [...flow.steps.values()].map(({ slug, type, deps }) => ({
    slug,
    type,
    deps: deps.toSorted(),
  }))
  return { slug: flow.slug, steps: steps.sort((one, other) => (one.slug < other.slug ? -1 : 1)) }
}

function given(options: Record<string, Json | undefined>): Record<string, Json> {
  return Object.fromEntries(
    Object.entries(options).filter((entry): entry is [string, Json] => entry[1] !== undefined),
  )
}

type SqlValue = string | number | readonly string[]

function call(name: string, named: Record<string, Json>): string {
  // definitionOf gives nothing but strings, numbers and lists of slugs
  const list = Object.entries(named as Record<string, SqlValue>)
    .filter(([, value]) => !Array.isArray(value) || value.length > 0)
    .map(([key, value]) => `${key} => ${sql(value)}`)
  return `select pgflow.${name}(${list.join(', ')});`
}

function sql(value: SqlValue): string {
  if (typeof value === 'number') return String(value)
  if (typeof value === 'string') return `'${value.replaceAll("'", "''")}'`
  return `array[${value.map(sql).join(', ')}]::text[]`
}
