import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { BatchOptions } from './batch-types.ts'
import type {
  AnyFlow,
  FlowOptions,
  FlowSchedule,
  MapSource,
  StepDefinition,
  StepHandler,
  StepOptions,
  StepType,
} from './definition.ts'
import { FlowDefinitionError } from './errors.ts'
import { toJson } from './json.ts'
import type { TypeOf } from './type.ts'
import type { Undo } from './undo-types.ts'
import { checkFlow, checkStep } from './validate.ts'
import { versionedSlug } from './version.ts'
import { isWaitRole } from './wait.ts'

interface FlowArguments extends FlowOptions {
  readonly slug: string
  readonly input?: StandardSchemaV1
}

interface StepArguments extends StepOptions {
  readonly slug: string
  readonly dependsOn?: readonly string[]
  readonly items?: string
  readonly start?: string
  /** Of a sub-flow, the path of its input. */
  readonly input?: StandardSchemaV1 | string
  readonly flow?: AnyFlow | string
  readonly output?: StandardSchemaV1
  readonly progress?: TypeOf<unknown>
  readonly batch?: BatchOptions
  readonly undo?: Undo<StepHandler>
}

/** A flow as it is at run time: it checks what is given to it, whatever its types are. */
export class FlowBuilder implements Omit<AnyFlow, '~types'> {
  readonly slug: string
  readonly alias: string
  readonly options: FlowOptions
  declare readonly inputSchema?: StandardSchemaV1
  readonly steps: ReadonlyMap<string, StepDefinition>

  constructor({ slug, input, ...options }: FlowArguments, steps: AnyFlow['steps'] = new Map()) {
    checkFlow(slug, options, input)
    this.slug = versionedSlug(slug, options.version)
    this.alias = slug
    const { schedules, singleton, limits } = options
    this.options = Object.freeze({
      ...options,
      ...(schedules && { schedules: copied(schedules) }),
      ...(singleton && { singleton: jsonCopy(singleton) }),
      ...(limits && { limits: jsonCopy(limits) }),
    })
    if (input !== undefined) this.inputSchema = input
    this.steps = steps
  }

  /** For the compiler only. */
  input(): this {
    if (this.inputSchema === undefined) return this
    throw new FlowDefinitionError(
      'invalid_option',
      `The flow '${this.alias}' has a schema of its input, which names its type: leave out .input().`,
    )
  }

  /** For the compiler only. */
  resources(): this {
    return this
  }

  step(first: string | StepArguments, ...rest: unknown[]): FlowBuilder {
    return this.#with('single', ...(isObject(first) ? fromObject(first, rest) : fromPositions(first, rest)))
  }

  map(step: StepArguments, ...rest: unknown[]): FlowBuilder {
    return this.#with('map', ...fromObject(step, rest))
  }

  loop(step: StepArguments, handler: unknown): FlowBuilder {
    return this.#with('loop', step, handler)
  }

  wait(step: StepArguments): FlowBuilder {
    return this.#with('wait', step)
  }

  sleep(step: StepArguments): FlowBuilder {
    return this.#with('sleep', step)
  }

  flow(step: StepArguments): FlowBuilder {
    return this.#add(subFlowFrom('single', step))
  }

  flowMap(step: StepArguments): FlowBuilder {
    return this.#add(subFlowFrom('map', step))
  }

  sql(step: StepArguments): FlowBuilder {
    return this.#with('sql', step)
  }

  #with(type: StepType, step: StepArguments, handler?: unknown): FlowBuilder {
    return this.#add(definitionFrom(type, step, handler))
  }

  #add(definition: StepDefinition): FlowBuilder {
    checkStep(definition, this.steps, this.options)
    const { alias: slug, options, inputSchema: input } = this
    const steps = new Map(this.steps).set(definition.slug, frozen(definition))
    return new FlowBuilder({ slug, ...options, ...(input && { input }) }, steps)
  }
}

function isObject(first: string | StepArguments): first is StepArguments {
  return typeof first === 'object' && first !== null && !Array.isArray(first)
}

/** `.step({ slug, … }, handler)` */
function fromObject(step: StepArguments, [handler, options]: unknown[]): [StepArguments, unknown] {
  if (options === undefined) return [step, handler]
  if (isUndo(options)) return [{ ...step, ...options }, handler]
  throw new FlowDefinitionError(
    'invalid_option',
    `The step '${step.slug}' has options after its handler: give them in the object with its slug.`,
  )
}

/** The only option that an object with a slug may leave to the third argument. */
function isUndo(options: unknown): options is Pick<StepArguments, 'undo'> {
  return (
    typeof options === 'object' && options !== null && Object.keys(options).every((key) => key === 'undo')
  )
}

/** `.step(slug, handler, options)` or `.step(slug, dependsOn, handler, options)` */
function fromPositions(slug: string, rest: unknown[]): [StepArguments, unknown] {
  const [dependsOn, handler, options] = typeof rest[0] === 'function' ? [undefined, ...rest] : rest
  // `checkStep` says whether they are what their types promise.
  const step = { ...(options as StepOptions), ...(dependsOn !== undefined && { dependsOn }), slug }
  return [step as StepArguments, handler]
}

/** `checkStep` says whether these arguments are what their types promise. */
function definitionFrom(type: StepType, step: StepArguments, handler: unknown): StepDefinition {
  // What names a type only is left out.
  const { slug, dependsOn = [], input, output, progress: _, batch, undo, ...others } = step
  const option = type === 'map' ? 'items' : type === 'loop' ? 'start' : undefined
  const hasHandler = type !== 'wait' && type !== 'sql'
  return {
    slug,
    type,
    ...(option
      ? withSourceOf(option, dependsOn, others)
      : { deps: depsOf(dependsOn, others), options: others }),
    ...(batch !== undefined && { batch }),
    ...(input !== undefined && { inputSchema: input as StandardSchemaV1 }),
    ...(output !== undefined && (hasHandler || '~standard' in output) && { outputSchema: output }),
    ...(handler !== undefined && { handler: handler as StepHandler }),
    ...(undo !== undefined && { undo: undoFrom(undo) }),
  }
}

function undoFrom(undo: Undo<StepHandler>): NonNullable<StepDefinition['undo']> {
  if (typeof undo === 'function') return { handler: undo, options: {} }
  const { handler, ...options } = undo ?? {}
  return { handler: handler as StepHandler, options }
}

/** A step that starts a run of a flow, or a map one for each item; `checkStep` says whether these arguments are what their types promise. */
function subFlowFrom(type: 'single' | 'map', step: StepArguments): StepDefinition {
  const { slug, dependsOn = [], flow, output, ...others } = step
  return {
    slug,
    type,
    ...withSourceOf(type === 'map' ? 'items' : 'input', dependsOn, others),
    child: flow as AnyFlow | string,
    ...(output !== undefined && '~standard' in output && { outputSchema: output }),
  }
}

/** A step also depends on the one whose output its options look into. */
function depsOf(deps: readonly string[], { by, until }: StepOptions): readonly string[] {
  const path = until ?? (by === undefined || isWaitRole(by) ? undefined : by)
  if (path === undefined) return deps
  return withSource(deps, String(path).split('.')[0] ?? '')
}

function withSource(deps: readonly string[], source: string): readonly string[] {
  return source === 'run' || !Array.isArray(deps) || deps.includes(source) ? deps : [...deps, source]
}

/** A map waits for the step whose output it maps, a loop for the one with its first state, a sub-flow for the one whose output it gets. */
function withSourceOf(
  option: 'items' | 'start' | 'input',
  deps: readonly string[],
  { [option]: path, ...options }: Omit<StepArguments, 'slug' | 'dependsOn'>,
): Pick<StepDefinition, 'deps' | 'items' | 'options'> {
  const from = sourceFrom(path as string | undefined, deps)
  const own = options as StepOptions
  if (from === undefined) return { deps, options: own }
  return { deps: withSource(deps, from.source), items: from, options: own }
}

/** Where a map has its items, a loop its first state, or a sub-flow its input: what its option names, or the only dep, or the run's input. */
function sourceFrom(path: string | undefined, deps: readonly string[]): MapSource | undefined {
  if (path === undefined && deps.length > 1) return undefined
  const [source = '', ...keys] = String(path ?? deps[0] ?? 'run').split('.')
  return keys.length === 0 ? { source } : { source, path: keys.join('.') }
}

function jsonCopy<Value>(value: Value): Value {
  return JSON.parse(toJson(value))
}

function copied(schedules: readonly FlowSchedule[]): readonly FlowSchedule[] {
  return Object.freeze(
    schedules.map((schedule) => {
      const { input } = schedule
      return Object.freeze({ ...schedule, ...(input !== undefined && { input: jsonCopy(input) }) })
    }),
  )
}

/** What nobody can change any more: what is JSON is copied. */
function frozen(step: StepDefinition): StepDefinition {
  const { runIf, runUnless, whenTimedOut, limits, until } = step.options
  const options = {
    ...step.options,
    ...(runIf !== undefined && { runIf: jsonCopy(runIf) }),
    ...(runUnless !== undefined && { runUnless: jsonCopy(runUnless) }),
    ...(whenTimedOut !== undefined && { whenTimedOut: jsonCopy(whenTimedOut) }),
    ...(limits !== undefined && { limits: jsonCopy(limits) }),
    ...(until !== undefined && { until: jsonCopy(until) }),
  }
  return Object.freeze({
    ...step,
    ...(step.undo && { undo: Object.freeze(step.undo) }),
    deps: Object.freeze([...step.deps]),
    options: Object.freeze(options),
    ...(step.batch && { batch: Object.freeze({ ...step.batch }) }),
  })
}
