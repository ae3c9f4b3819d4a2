import type { StandardSchemaV1 } from '@standard-schema/spec'
import type {
  ChildInputOption,
  ChildOption,
  ChildOutput,
  FittingItems,
  SubFlowSettings,
  WithSubFlow,
} from './child-types.ts'
import type { ValidCondition } from './condition-types.ts'
import type { AnyFlow, StepFallback } from './definition.ts'
import type { Conditional, Flow, MapSettings, Named } from './flow.ts'
import type { ItemFallback, KnownKey, MapOutput } from './limit-types.ts'
import type { ItemsOption } from './map-types.ts'
import type { SourceStep } from './path-types.ts'
import type { MapProgress } from './progress-types.ts'
import type { NewSlug } from './slug-types.ts'
import type { TypeOf } from './type.ts'
import type { Deps, FlowTypes, SkipsOf, StoredPayload } from './types.ts'

/** Steps that start runs of other flows. */
export interface SubFlowMethods<F extends FlowTypes> {
  /**
   * Adds a step that starts a run of another flow and completes with its output. The input of that run is what `input` names:
   * `run`, a step, or a path inside it. No worker is occupied meanwhile.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep, path or option that cannot work.
   *
   * @example
   * .flow({ slug: 'invoice', flow: Invoice, input: 'order.billing', dependsOn: ['order'] })
   * .flow({ slug: 'subtree', flow: 'crawl', input: 'links.first', output: type<{ pages: string[] }>() })
   */
  flow<
    const Slug extends string,
    const Child extends AnyFlow | string,
    const Dep extends string = never,
    const Input extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    Out extends StandardSchemaV1 | TypeOf<unknown> = never,
    const Key extends string = never,
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      ChildOption<Child, Out> &
      ChildInputOption<F, Dep, Input, NoInfer<Child>> &
      Conditional<
        ValidCondition<If, StoredPayload<F, Dep | SourceStep<Input>>>,
        ValidCondition<Unless, StoredPayload<F, Dep | SourceStep<Input>>>,
        Unmet
      > &
      SubFlowSettings<Exhausted, KnownKey<F, Dep | SourceStep<Input>, Key>>,
  ): Flow<
    WithSubFlow<
      F,
      Slug,
      Dep | SourceStep<Input>,
      ChildOutput<Child, Out>,
      SkipsOf<If, Unless, Unmet, Exhausted>,
      Child,
      null
    >
  >

  /**
   * Adds a step that starts a run of another flow for each item of an array, and whose output is the array of their outputs, in
   * the order of the items. No worker is occupied meanwhile.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep, path or option that cannot work.
   *
   * @example
   * .flowMap({ slug: 'lines', flow: InvoiceLine, items: 'run.lines', concurrency: 10, whenItemFails: 'collect' })
   */
  flowMap<
    const Slug extends string,
    const Child extends AnyFlow | string,
    const Dep extends string = never,
    const Items extends string = never,
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    Out extends StandardSchemaV1 | TypeOf<unknown> = never,
    const Key extends string = never,
    const Fails extends ItemFallback = 'fail',
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      ChildOption<Child, Out> &
      ItemsOption<F, Dep, Items> &
      FittingItems<F, Dep, Items, NoInfer<Child>> &
      Conditional<
        ValidCondition<If, StoredPayload<F, Dep | SourceStep<Items>>>,
        ValidCondition<Unless, StoredPayload<F, Dep | SourceStep<Items>>>,
        Unmet
      > &
      SubFlowSettings<Exhausted, KnownKey<F, Dep | SourceStep<Items>, Key>> &
      MapSettings<Fails>,
  ): Flow<
    WithSubFlow<
      F,
      Slug,
      Dep | SourceStep<Items>,
      MapOutput<ChildOutput<Child, Out>, Fails>,
      SkipsOf<If, Unless, Unmet, Exhausted>,
      Child,
      MapProgress
    >
  >
}
