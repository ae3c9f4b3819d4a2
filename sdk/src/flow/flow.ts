import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Duration } from '../shared/duration.ts'
import type { BatchSettings, HandlerOf, ReturnedForOne } from './batch-types.ts'
import { FlowBuilder } from './builder.ts'
import type { ValidCondition } from './condition-types.ts'
import type {
  AnyFlow,
  FlowOptions,
  FlowSchedule,
  MapOptions,
  StepFallback,
  StepTiming,
  TaskOptions,
} from './definition.ts'
import type { Handler } from './handler-types.ts'
import type { InputJson, JsonOf } from './json-types.ts'
import type { ItemFallback, KnownKey, KnownRunKey, MapOutput, Tolerated } from './limit-types.ts'
import type { LoopMethods } from './loop-methods.ts'
import type { ItemOf, ItemsOption } from './map-types.ts'
import type { SourceStep } from './path-types.ts'
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
import type { SqlMethods } from './sql-methods.ts'
import type { SubFlowMethods } from './sub-flow-methods.ts'
import type { TypeOf } from './type.ts'
import type { FlowTypeError } from './type-error.ts'
import type {
  Deps,
  FlowTypes,
  NewFlow,
  Payload,
  Skip,
  SkipsOf,
  StoredPayload,
  VersionedSlug,
  VersionFrom,
  WithInput,
  WithResources,
  WithStep,
} from './types.ts'
import type { EarlyUndoItemOption, EarlyUndoOption, UndoItemOption, UndoOption } from './undo-types.ts'
import type {
  AssigneesStep,
  KnownBy,
  KnownUntil,
  TimedOutOption,
  WaitOutput,
  WaitOutputOption,
  WebhookProvider,
} from './wait-types.ts'

/**
 * An immutable definition of a flow. Each method returns a new flow.
 *
 * @example
 * const Greet = new Flow<{ name: string }>({ slug: 'greet' })
 *   .step('text', ({ run }) => `Hello ${run.name}`)
 *   .step('mail', ['text'], ({ text }) => send(text), { timeout: 20 })
 */
export interface Flow<F extends FlowTypes> extends AnyFlow, LoopMethods<F>, SqlMethods<F>, SubFlowMethods<F> {
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
    const Size extends number = never,
    const Key extends string = never,
    Undone = unknown,
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
            ProgressType<Progress>,
            KnownKey<F, Dep, Key>
          > &
          BatchSettings<Size> &
          EarlyUndoOption<F, Out, Undone>),
    handler: Handler<F, Dep, In, Returned, Out, Progress, Size>,
    options?: StepSettings<
      ValidCondition<If, StoredPayload<F, Dep>>,
      ValidCondition<Unless, StoredPayload<F, Dep>>,
      Unmet,
      Exhausted,
      TakesPayload<In, Dep>,
      MakesJson<Out>,
      ProgressType<Progress>,
      KnownKey<F, Dep, Key>
    > &
      BatchSettings<Size> &
      UndoOption<F, StoredOutput<ReturnedForOne<Returned, Size>, Out>>,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep,
      StoredOutput<ReturnedForOne<Returned, Size>, Out>,
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
    const Size extends number = never,
    const Key extends string = never,
  >(
    slug: NewSlug<keyof F['steps'], Slug>,
    dependsOn: Deps<keyof F['steps'], Dep>,
    handler: Handler<F, Dep, In, Returned, Out, Progress, Size>,
    options?: StepSettings<
      ValidCondition<If, StoredPayload<F, Dep>>,
      ValidCondition<Unless, StoredPayload<F, Dep>>,
      Unmet,
      Exhausted,
      TakesPayload<In, Dep>,
      MakesJson<Out>,
      ProgressType<Progress>,
      KnownKey<F, Dep, Key>
    > &
      BatchSettings<Size> &
      UndoOption<F, StoredOutput<ReturnedForOne<Returned, Size>, Out>>,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep,
      StoredOutput<ReturnedForOne<Returned, Size>, Out>,
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
    const Size extends number = never,
    const Key extends string = never,
    const Fails extends ItemFallback = 'fail',
    Undone = unknown,
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
        ProgressType<Progress>,
        KnownKey<F, Dep | SourceStep<Items>, Key>
      > &
      MapSettings<Fails> &
      BatchSettings<Size> &
      EarlyUndoItemOption<F, ItemOf<F, Dep, Items>, Out, Undone>,
    handler: HandlerOf<
      Size,
      HandlerInput<ItemOf<F, Dep, Items>, In>,
      F['resources'],
      Payload<F, Dep | SourceStep<Items>, JsonOf<F['input']>>,
      ProgressArguments<Progress>,
      Returned,
      Out
    >,
    options?: UndoItemOption<F, ItemOf<F, Dep, Items>, StoredOutput<ReturnedForOne<Returned, Size>, Out>>,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep | SourceStep<Items>,
      MapOutput<StoredOutput<ReturnedForOne<Returned, Size>, Out>, Fails>,
      SkipsOf<If, Unless, Unmet, Exhausted>,
      [HandlerInput<ItemOf<F, Dep, Items>, In>],
      MapProgress<Progress>
    >
  >

  /**
   * Adds a step that no worker runs: it waits until somebody completes it (`run.step(slug).complete(…)`, a webhook, or SQL),
   * or until its timeout. Nothing is held meanwhile: no worker, no connection.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep, path or option that cannot work.
   *
   * @example
   * .wait({ slug: 'approval', dependsOn: ['draft'], by: 'draft.reviewers', output: type<{ approved: boolean }>(), timeout: '48h' })
   */
  wait<
    const Slug extends string,
    const Dep extends string = never,
    const By extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    const TimedOut extends StepFallback | { readonly output: unknown } = 'fail',
    Out extends StandardSchemaV1 | TypeOf<unknown> = never,
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      Conditional<
        ValidCondition<If, StoredPayload<F, Dep | AssigneesStep<By>>>,
        ValidCondition<Unless, StoredPayload<F, Dep | AssigneesStep<By>>>,
        Unmet
      > &
      WaitSettings<
        KnownBy<F, By>,
        Exhausted,
        TimedOutOption<TimedOut, WaitOutput<Out>>,
        WaitOutputOption<Out>
      >,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep | AssigneesStep<By>,
      WaitOutput<Out>,
      SkipsOf<If, Unless, Unmet, Exhausted> | Extract<TimedOut, Skip>,
      'wait',
      null
    >
  >

  /**
   * Adds a step that completes after a time, or at the time that is at a path in the run's input or the output of a step:
   * an ISO date or epoch seconds. Its output is `null`. Nothing is held meanwhile: no worker, no connection.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep, path or option that cannot work.
   *
   * @example
   * .sleep({ slug: 'three_days', dependsOn: ['mail'], for: '3d' })
   * .sleep({ slug: 'until_then', until: 'run.remind_at' })
   */
  sleep<
    const Slug extends string,
    const Dep extends string = never,
    const Until extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      Conditional<
        ValidCondition<If, StoredPayload<F, Dep | SourceStep<Until>>>,
        ValidCondition<Unless, StoredPayload<F, Dep | SourceStep<Until>>>,
        Unmet
      > &
      (
        | {
            /** How long, in whole seconds: `90`, `'3d'`, a year at most. */
            readonly for: Duration
            readonly until?: never
          }
        | {
            /** The path of an ISO date or epoch seconds, in the run's input or the output of a step. */
            readonly until: KnownUntil<F, Until>
            readonly for?: never
          }
      ),
  ): Flow<WithStep<F, Slug, Dep | SourceStep<Until>, null, SkipsOf<If, Unless, Unmet, 'fail'>, 'sleep', null>>
}

/** When a step runs. */
export interface Conditional<If, Unless, Unmet> {
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
}

interface WaitSettings<By, Exhausted, TimedOut, Out> {
  /**
   * A Standard Schema of what completes the wait, or its type: `type<{ approved: boolean }>()`. The database validates it
   * where it has `pg_jsonschema`. It is stored as it is given.
   * @default any JSON value
   */
  readonly output?: Out
  /**
   * Who may complete the wait: the service role, the owner of the run, any signed-in user, or the users whose ids are at
   * a path in the run's input or the output of a step (`'draft.reviewers'`: an id, or an array of ids). The service role
   * always may.
   * @default 'service_role'
   */
  readonly by?: By
  /** Who may not complete it, although `by` allows it: the owner of the run, for a second pair of eyes. */
  readonly notBy?: 'owner'
  /** How long it waits, in whole seconds: `'48h'`, a year at most. @default without end */
  readonly timeout?: Duration
  /**
   * What happens after `timeout`: the run fails, the step is skipped, alone or with all that depends on it, or it completes
   * with an output.
   * @default 'fail'
   */
  readonly whenTimedOut?: TimedOut
  /** What happens when it is rejected. @default 'fail' */
  readonly whenExhausted?: Exhausted
  /**
   * Whether a webhook completes it. An earlier step gets the URL by `context.waitUrl(slug)`. With the name of a provider,
   * the provider's signature is verified, too. @default false
   */
  readonly webhook?: boolean | WebhookProvider
}

/** How a step is called, and for what it waits. */
export interface Named<Slug, Deps> {
  readonly slug: Slug
  /** The steps for which this one waits. @default [] */
  readonly dependsOn?: Deps
}

export interface StepSettings<If, Unless, Unmet, Exhausted, In, Out, Progress, Key>
  extends StepTiming,
    TaskOptions<Key>,
    Conditional<If, Unless, Unmet> {
  /** What becomes of a step whose last attempt failed; see `whenUnmet`. @default 'fail' */
  readonly whenExhausted?: Exhausted
  /** A Standard Schema of what the handler gets: the payload, an item of a map, or the state of a loop. */
  readonly input?: In
  /** A Standard Schema of what the handler returns; of a map, for each item, of a loop, for each turn. */
  readonly output?: Out
  /** The type of the data that the handler reports with `context.progress`: `type<{ page: string }>()`. */
  readonly progress?: Progress
}

/** What a map has beside. */
export interface MapSettings<Fails extends ItemFallback>
  extends Omit<MapOptions, 'whenItemFails' | 'tolerate'> {
  /**
   * What happens when the last attempt of an item has failed: the step fails, or its output says so (`'collect'`): it is then an array
   * of `{ status: 'completed', value }` and `{ status: 'failed', error }`. @default 'fail'
   */
  readonly whenItemFails?: Fails | NoInfer<ItemFallback>
  /** With `'collect'`, how many failed items are no failure of the step: a number, or a share (`'5%'`). @default all */
  readonly tolerate?: Tolerated<Fails>
}

/** A flow before its first step, whose input can still be named. */
interface FlowWithoutInput<F extends FlowTypes, Schedules, Key extends string>
  extends FlowWithoutResources<F> {
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
    this: FlowWithoutInput<F, Schedules, Key> &
      InputJson<Input> &
      ScheduledWith<Schedules, Input> &
      KeyedWith<Key, Input>,
  ): FlowWithoutResources<WithInput<F, Input>>
}

/** Nothing, if the schedules give this input; a `FlowTypeError` if not. */
type ScheduledWith<Schedules, Input> = [Schedules] extends [readonly FlowSchedule<Input>[]]
  ? unknown
  : FlowTypeError<'A schedule of the flow does not have an input of this type: give it one'>

/** Nothing, if the paths in the flow's options lead to values of this input; a `FlowTypeError` if not. */
type KeyedWith<Key extends string, Input> = [Key] extends [never]
  ? unknown
  : [KnownRunKey<Input, Key>] extends [Key]
    ? unknown
    : Exclude<KnownRunKey<Input, Key>, Key>

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
    const Key extends string = never,
  >(
    options: FlowOptions<KnownRunKey<StandardSchemaV1.InferInput<Schema>, Key>> & {
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
    Schedules,
    Key
  >
}

/** Starts the definition of a flow. */
export const Flow = FlowBuilder as unknown as FlowConstructor // the same class, with the types that it cannot follow
