import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { ValidCondition } from './condition-types.ts'
import type { Context } from './context.ts'
import type { StepFallback } from './definition.ts'
import type { Flow, Named, StepSettings } from './flow.ts'
import type { JsonOf } from './json-types.ts'
import type { KnownKey } from './limit-types.ts'
import type {
  EndOption,
  ExceededFallback,
  LoopHandler,
  MakesState,
  StartOf,
  StartOption,
  TakenState,
} from './loop-types.ts'
import type { SourceStep } from './path-types.ts'
import type { MapProgress, ProgressArguments, ProgressType } from './progress-types.ts'
import type { HandlerInput, StoredOutput, TakesJson } from './schema-types.ts'
import type { NewSlug } from './slug-types.ts'
import type { Deps, FlowTypes, Payload, SkipsOf, StoredPayload, WithStep } from './types.ts'

/** The part of a flow that adds loops. */
export interface LoopMethods<F extends FlowTypes> {
  /**
   * Adds a step that takes turns: the handler gets the state and returns the next one. Each turn is a task of its own, with
   * attempts and a timeout, and is kept: after a crash, a deploy or `retry` the loop goes on with the turn at which it was. It
   * completes with the first output that contains `until`.
   *
   * The state has the type of what is at `start`; name a wider one at the handler's parameter.
   *
   * @throws FlowDefinitionError for what the compiler could not see: a slug, dep, path or option that cannot work.
   *
   * @example
   * .loop({ slug: 'work', start: 'plan', until: { done: true }, max: 25 }, (state, { signal }) => act(state, signal))
   */
  loop<
    const Slug extends string,
    Returned,
    const Dep extends string = never,
    const Start extends string = never,
    const Until = never,
    const Exceeded extends ExceededFallback = 'fail',
    const If = never,
    const Unless = never,
    const Unmet extends StepFallback = 'skip-cascade',
    const Exhausted extends StepFallback = 'fail',
    In extends StandardSchemaV1 = never,
    Out extends StandardSchemaV1 = never,
    Progress = never,
    const Key extends string = never,
    State = StartOf<F, Dep, Start>,
  >(
    step: Named<NewSlug<keyof F['steps'], Slug>, Deps<keyof F['steps'], Dep>> &
      StartOption<F, Dep, Start> &
      EndOption<Until, Exceeded, StoredOutput<Returned, Out>> &
      LoopSettings<Exceeded> &
      StepSettings<
        ValidCondition<If, StoredPayload<F, Dep | SourceStep<Start>>>,
        ValidCondition<Unless, StoredPayload<F, Dep | SourceStep<Start>>>,
        Unmet,
        Exhausted,
        TakesJson<In>,
        MakesState<Out, TakenState<State, In>>,
        ProgressType<Progress>,
        KnownKey<F, Dep | SourceStep<Start>, Key>
      >,
    handler: LoopHandler<
      StartOf<F, Dep, Start>,
      State,
      Context<
        F['resources'],
        Payload<F, Dep | SourceStep<Start>, JsonOf<F['input']>>,
        ProgressArguments<Progress>
      >,
      Returned,
      In,
      Out
    >,
  ): Flow<
    WithStep<
      F,
      Slug,
      Dep | SourceStep<Start>,
      StoredOutput<Returned, Out>,
      SkipsOf<If, Unless, Unmet, Exhausted>,
      [HandlerInput<State, In>],
      MapProgress<Progress>
    >
  >
}

interface LoopSettings<Exceeded> {
  /** How many turns it takes at most, from 1 to 10,000. @default 100 */
  readonly max?: number
  /**
   * What happens after `max` turns of which none has ended it: the step fails, as one whose attempts are exhausted, or it completes
   * with the output of the last turn. @default 'fail'
   */
  readonly whenExceeded?: Exceeded | NoInfer<ExceededFallback>
}
