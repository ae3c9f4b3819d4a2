import type { StandardSchemaV1 } from '@standard-schema/spec'
import { FlowBuilder } from './builder.ts'
import type { ValidCondition } from './condition-types.ts'
import type { Context } from './context.ts'
import type { AnyFlow, FlowOptions, FlowSchedule, StepFallback, StepTiming } from './definition.ts'
import type { Handler, HandlerFunction } from './handler-types.ts'
import type { InputJson, JsonOf } from './json-types.ts'
import type { ItemOf, ItemsOption, SourceStep } from './map-types.ts'
import type { MapProgress, ProgressArguments, ProgressType, StepProgress } from './progress-types.ts'
import type {
  HandlerInput,
  MakesJson,
  SchemaOutput,
  StoredOutput,
  TakesJson,
  TakesPayload,
} from './schema-types.ts'
import type { NewSlug } from './slug-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type {
  Deps,
  FlowTypes,
  NewFlow,
  Payload,
  SkipsOf,
  StoredPayload,
  VersionedSlug,
  VersionFrom,
  WithInput,
  WithResources,
  WithStep,
} from './types.ts'

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
  readonly slug: VersionedSlug<F['slug'], F['version']>
  readonly alias: F['slug']

  /**
   * Adds a step.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep or option that cannot work.
   *
   * @example
   * .step({ slug: 'mail', dependsOn: ['text'], runIf: { run: { mail: true } } }, ({ text }) => send(text))
   */
  step<
    const Slug extends string,
    Returned,
    const Dep extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    In extends StandardSchemaV1 = never,
    Out extends StandardSchemaV1 = never,
    Progress = never,
  >(
    step:
      | NewSlug<keyof F['steps'], Slug>
      | (Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
          StepSettings<
            ValidCondition<If, StoredPayload<F, Dep>>,
            ValidCondition<Unless, StoredPayload<F, Dep>>,
            Unmet,
            Exhausted,
            TakesPayload<In, Dep>,
            MakesJson<Out>,
            ProgressType<Progress>
          >),
    handler: Handler<F, Dep, In, Returned, Out, Progress>,
    options?: StepSettings<
      ValidCondition<If, StoredPayload<F, Dep>>,
      ValidCondition<Unless, StoredPayload<F, Dep>>,
      Unmet,
      Exhausted,
      TakesPayload<In, Dep>,
      MakesJson<Out>,
      ProgressType<Progress>
    >,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep,
      StoredOutput<Returned, Out>,
      SkipsOf<If, Unless, Unmet, Exhausted>,
      SchemaOutput<In>,
      StepProgress<Progress>
    >
  >
  step<
    const Slug extends string,
    const Dep extends string,
    Returned,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    In extends StandardSchemaV1 = never,
    Out extends StandardSchemaV1 = never,
    Progress = never,
  >(
    slug: NewSlug<keyof F['steps'], Slug>,
    dependsOn: Deps<keyof F['steps'], Dep>,
    handler: Handler<F, Dep, In, Returned, Out, Progress>,
    options?: StepSettings<
      ValidCondition<If, StoredPayload<F, Dep>>,
      ValidCondition<Unless, StoredPayload<F, Dep>>,
      Unmet,
      Exhausted,
      TakesPayload<In, Dep>,
      MakesJson<Out>,
      ProgressType<Progress>
    >,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep,
      StoredOutput<Returned, Out>,
      SkipsOf<If, Unless, Unmet, Exhausted>,
      SchemaOutput<In>,
      StepProgress<Progress>
    >
  >

  /**
   * Adds a step that runs once for each item of an array, and whose output is the array of its results, in their order.
   * The array is what `items` names: `run`, a step, or a path inside it (`toc.urls`). Without it, it is the output of
   * the only dep, or the run's input where there is none.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep or option that cannot work.
   *
   * @example
   * .map({ slug: 'pages', items: 'toc.urls' }, (url, { signal }) => download(url, signal))
   */
  map<
    const Slug extends string,
    Returned,
    const Dep extends string = never,
    const Items extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    In extends StandardSchemaV1 = never,
    Out extends StandardSchemaV1 = never,
    Progress = never,
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      ItemsOption<F, Dep, Items> &
      StepSettings<
        ValidCondition<If, StoredPayload<F, Dep | SourceStep<Items>>>,
        ValidCondition<Unless, StoredPayload<F, Dep | SourceStep<Items>>>,
        Unmet,
        Exhausted,
        TakesJson<In>,
        MakesJson<Out>,
        ProgressType<Progress>
      >,
    handler: HandlerFunction<
      HandlerInput<ItemOf<F, Dep, Items>, In>,
      Context<
        F['resources'],
        Payload<F, Dep | SourceStep<Items>, JsonOf<F['input']>>,
        ProgressArguments<Progress>
      >,
      Returned,
      Out
    >,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep | SourceStep<Items>,
      StoredOutput<Returned, Out>[],
      SkipsOf<If, Unless, Unmet, Exhausted>,
      [HandlerInput<ItemOf<F, Dep, Items>, In>],
      MapProgress<Progress>
    >
  >
}

interface Named<Slug, Deps> {
  readonly slug: Slug
  /** The steps for which this one waits. @default [] */
  readonly dependsOn?: Deps
}

interface StepSettings<If, Unless, Unmet, Exhausted, In, Out, Progress> extends StepTiming {
  /** A part of the step's input: it runs only if its input contains this. */
  readonly runIf?: If
  /** A part of the step's input: it does not run if its input contains this. */
  readonly runUnless?: Unless
  /**
   * What becomes of a step that does not run: it is skipped with all that depends on it, it is skipped alone, so that
   * its dependents run without its output, or the run fails.
   * @default 'skip-cascade'
   */
  readonly whenUnmet?: Unmet
  /** The same for a step whose last attempt failed. @default 'fail' */
  readonly whenExhausted?: Exhausted
  /** A Standard Schema of what the handler gets: the payload, or an item of a map. */
  readonly input?: In
  /** A Standard Schema of what the handler returns; of a map, for each item. */
  readonly output?: Out
  /** The type of the data that the handler reports with `context.progress`: `type<{ page: string }>()`. */
  readonly progress?: Progress
}

/** A flow before its first step, whose input can still be named. */
interface FlowWithoutInput<F extends FlowTypes, Schedules> extends FlowWithoutResources<F> {
  /**
   * Names the type of what a run is started with. `new Flow<Input>({ slug })` does it too, but leaves the compiler without
   * the flow's slug.
   *
   * @throws FlowDefinitionError if the flow has a schema of its input, which names the type already
   *
   * @example
   * new Flow({ slug: 'crawl' }).input<{ url: string }>()
   */
  input<Input>(
    this: FlowWithoutInput<F, Schedules> & InputJson<Input> & ScheduledWith<Schedules, Input>,
  ): FlowWithoutResources<WithInput<F, Input>>
}

/** Nothing, if the schedules give this input; a `FlowTypeError` if not. */
type ScheduledWith<Schedules, Input> = [Schedules] extends [readonly FlowSchedule<Input>[]]
  ? unknown
  : FlowTypeError<'A schedule of the flow does not have an input of this type: give it one'>

/** A flow before its first step, whose resources can still be named. */
interface FlowWithoutResources<F extends FlowTypes> extends Flow<F> {
  /**
   * Names the type of what the handlers need from the worker, as `context.resources`.
   *
   * @example
   * new Flow({ slug: 'crawl' }).input<{ url: string }>().resources<{ db: Database }>()
   */
  resources<Resources extends object>(): Flow<WithResources<F, Resources>>
}

interface FlowConstructor {
  /**
   * @typeParam Input what a run is started with; inferred where the option `input` has a schema
   * @typeParam Resources what the handlers need from the worker, as `context.resources`
   * @throws FlowDefinitionError if the slug or an option cannot work
   *
   * @example
   * new Flow({ slug: 'crawl' }).input<{ url: string }>()
   * new Flow({ slug: 'crawl', input: z.object({ url: z.url() }) })
   * new Flow<{ url: string }>({ slug: 'crawl' })
   */
  new <
    Input,
    Resources extends object = Record<never, never>,
    Schema extends StandardSchemaV1 = StandardSchemaV1<Input, JsonOf<Input>>,
    const Slug extends string = string,
    const Version extends number = never,
    Schedules extends readonly FlowSchedule[] = never,
  >(
    options: FlowOptions & {
      readonly slug: Slug & InputJson<Input>
      readonly version?: [Version] extends [never] ? number : Version
      /** A Standard Schema of what a run is started with. Handlers get what it makes of that, as `run`. */
      readonly input?: TakesJson<Schema>
      /** What starts the flow by itself; the `input` of each is one of the flow. */
      readonly schedules?: [Schedules] extends [never]
        ? readonly FlowSchedule<StandardSchemaV1.InferInput<Schema>>[]
        : Schedules & readonly FlowSchedule<NoInfer<StandardSchemaV1.InferInput<Schema>>>[]
    },
  ): FlowWithoutInput<
    NewFlow<
      Slug,
      VersionFrom<Slug, Version>,
      StandardSchemaV1.InferInput<Schema>,
      StandardSchemaV1.InferOutput<Schema>,
      Resources
    >,
    Schedules
  >
}

/** Starts the definition of a flow. */
export const Flow = FlowBuilder as unknown as FlowConstructor // the same class, with the types that it cannot follow
