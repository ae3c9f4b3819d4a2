import type { Context } from './context.ts'
import type { OnlyJson } from './json-types.ts'
import type { FlowTypes, KnownDep, NewFlow, NewSlug, Payload, WithStep } from './types.ts'
import { checkFlow, checkStep } from './validate.ts'

/** Who may start a flow from a client. */
export type StartRole = 'service_role' | 'authenticated' | 'anon'

/** Whose events a flow broadcasts: of runs that somebody watches, of all runs, of none. */
export type Broadcast = 'watched' | 'always' | 'never'

/** How often, how long and how patiently a step is tried. */
export interface RetryOptions {
  /** How many times a task is tried at most. @default 3 */
  readonly maxAttempts?: number
  /** Seconds; a failed attempt is repeated after `baseDelay * 2 ** attempts`. @default 5 */
  readonly baseDelay?: number
  /** Seconds that one attempt may take. @default 60 */
  readonly timeout?: number
}

export interface FlowOptions extends RetryOptions {
  /** @default 'service_role' */
  readonly startRole?: StartRole
  /** @default 'watched' */
  readonly broadcast?: Broadcast
}

/** What is not given here is as the flow has it. */
export interface StepOptions extends RetryOptions {
  /** Seconds between the moment the step is ready and its first attempt. @default 0 */
  readonly startDelay?: number
}

/** A step as a worker runs it. */
export interface StepDefinition {
  readonly slug: string
  readonly type: 'single'
  readonly deps: readonly string[]
  readonly options: StepOptions
  readonly handler: StepHandler
}

/** A handler without the types of its flow: the worker calls it with what the database gave. */
export type StepHandler = (payload: unknown, context: Context) => unknown

/** Any flow, whatever its types: what the worker, the client and `compile` take. */
export interface AnyFlow {
  readonly slug: string
  readonly options: FlowOptions
  /** In the order of their definition, so that a step comes after its deps. */
  readonly steps: ReadonlyMap<string, StepDefinition>
  /** For the compiler only; it does not exist at run time. */
  readonly '~types': FlowTypes
}

/**
 * An immutable definition of a flow. Each method returns a new flow.
 *
 * @example
 * const Greet = new Flow<{ name: string }>({ slug: 'greet' })
 *   .step('text', ({ run }) => `Hello ${run.name}`)
 *   .step('mail', ['text'], ({ text }) => send(text), { timeout: 20 })
 */
export interface Flow<F extends FlowTypes> extends AnyFlow {
  readonly '~types': F

  /**
   * Adds a step.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep or option that cannot work.
   */
  step<const Slug extends string, Returned, const Dep extends string = never>(
    step:
      | NewSlug<F, Slug>
      | (StepOptions & {
          readonly slug: NewSlug<F, Slug>
          readonly dependsOn?: readonly KnownDep<F, Dep>[]
        }),
    handler: Handler<F, Dep, Returned>,
  ): Flow<WithStep<F, Slug, Dep, Returned>>
  step<const Slug extends string, const Dep extends string, Returned>(
    slug: NewSlug<F, Slug>,
    dependsOn: readonly KnownDep<F, Dep>[],
    handler: Handler<F, Dep, Returned>,
    options?: StepOptions,
  ): Flow<WithStep<F, Slug, Dep, Returned>>
}

type Handler<F extends FlowTypes, Dep extends string, Returned> = (
  payload: Payload<F, Dep>,
  context: Context<F['resources']>,
) => Returned & OnlyJson<Returned>

interface FlowConstructor {
  /**
   * @typeParam Input what a run is started with
   * @typeParam Resources what the handlers need from the worker, as `context.resources`
   * @throws FlowDefinitionError if the slug or an option cannot work
   */
  new <Input, Resources extends object = Record<never, never>>(
    options: SluggedOptions,
  ): Flow<NewFlow<Input, Resources>>
}

class FlowBuilder {
  readonly slug: string
  readonly options: FlowOptions
  readonly steps: ReadonlyMap<string, StepDefinition>

  constructor({ slug, ...options }: SluggedOptions, steps: AnyFlow['steps'] = new Map()) {
    checkFlow(slug, options)
    this.slug = slug
    this.options = Object.freeze(options)
    this.steps = steps
  }

  step(first: string | StepObject, second: unknown, third?: unknown, fourth?: unknown): FlowBuilder {
    const step = stepFrom(first, second, third, fourth)
    checkStep(step, this.steps)
    const frozen = Object.freeze({
      ...step,
      deps: Object.freeze([...step.deps]),
      options: Object.freeze(step.options),
    })
    return new FlowBuilder({ slug: this.slug, ...this.options }, new Map(this.steps).set(step.slug, frozen))
  }
}

type SluggedOptions = FlowOptions & { readonly slug: string }

type StepObject = StepOptions & { readonly slug: string; readonly dependsOn?: readonly string[] }

/** Reads either form of the arguments of `step`; `checkStep` says whether they are what their types promise. */
function stepFrom(first: string | StepObject, ...rest: unknown[]): StepDefinition {
  const [step, handler] = Array.isArray(rest[0])
    ? [{ ...(rest[2] as StepOptions), slug: first as string, dependsOn: rest[0] }, rest[1]]
    : [typeof first === 'string' ? { slug: first } : first, rest[0]]
  const { slug, dependsOn = [], ...options } = { ...step } as StepObject
  return { slug, type: 'single', deps: dependsOn, options, handler: handler as StepHandler }
}

/** Starts the definition of a flow. */
export const Flow = FlowBuilder as unknown as FlowConstructor // the same class, with the types that it cannot follow
