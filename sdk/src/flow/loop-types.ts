import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Contained, Explained, PartOf } from './condition-types.ts'
import type { IsAny, OutputFrom, ReturnedJson, Unless } from './json-types.ts'
import type { ImpliedSource, IsUnion } from './map-types.ts'
import type { SourceStep, ValueAt } from './path-types.ts'
import type { HandlerInput, MakesJson } from './schema-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { AloneSkipped, FlowTypes } from './types.ts'

/** What happens to a loop that has taken all its turns: it fails, or it completes with the output of the last one. */
export type ExceededFallback = 'fail' | 'complete'

/** The option of a loop that says where its first state is. */
export type StartOption<F extends FlowTypes, Dep extends string, Start extends string> = {
  /**
   * Where the state of the first turn is: `run`, a step, or a path inside it (`plan.tasks`). `null` where nothing is there.
   * @default the only dep, or `run` where there is none
   */
  readonly start?: KnownStart<F, Start>
} & ImpliedStart<Dep, Start>

/** `Start` if there is such a path, a `FlowTypeError` if not. */
type KnownStart<F extends FlowTypes, Start extends string> = string extends Start
  ? Start
  : [Start] extends [never]
    ? 'run' | (keyof F['steps'] & string)
    : ValueAt<F, Start> extends infer Found
      ? Found extends FlowTypeError<unknown>
        ? Found
        : Start
      : never

type ImpliedStart<Dep extends string, Start extends string> = [Start] extends [never]
  ? IsUnion<Dep> extends true
    ? {
        readonly start: FlowTypeError<'This loop has several deps: name the one with its first state in start'>
      }
    : unknown
  : unknown

/** The state of the first turn. */
export type StartOf<F extends FlowTypes, Dep extends string, Start extends string> = StateAt<
  F,
  [Start] extends [never] ? ImpliedSource<Dep> : Start
>

type StateAt<F extends FlowTypes, Path extends string> =
  | OrNull<ValueAt<F, Path>>
  | ([AloneSkipped<F, SourceStep<Path>>] extends [never] ? never : null)

type OrNull<T> = IsAny<T> extends true ? T : undefined extends T ? Exclude<T, undefined> | null : T

/** The options of a loop that say when it ends: at least one of them. */
export type EndOption<Until, Exceeded, Output> = {
  /** A part of what a turn returns: the loop completes with the first output that contains this. */
  readonly until?: ValidEnd<Until, Output>
} & ([Until] extends [never]
  ? [Exceeded] extends ['complete']
    ? unknown
    : { readonly until: Offered<Output> } // required
  : unknown)

/** What editors offer; the output is not inferred from it. */
type Offered<Output> = PartOf<Output> extends infer Part ? Part : never

/** `Until` where an output can contain it, in the sense of Postgres' `@>`; a `FlowTypeError` if not. */
type ValidEnd<Until, Output> = [Until] extends [never]
  ? Offered<Output>
  : [Until] extends [null]
    ? FlowTypeError<'A loop cannot end with null: return an object, such as { done: true }'>
    : Contained<Until, Output> extends true
      ? Until
      : [Until] extends [string | number | boolean]
        ? FlowTypeError<'No turn of this loop returns this'>
        : Explained<Until, Output, '', 'What a turn returns'>

/** `Schema` if the next turn takes what it makes; a `FlowTypeError` if not. */
export type MakesState<Schema extends StandardSchemaV1, State> =
  MakesJson<Schema> extends Schema
    ? [StandardSchemaV1.InferOutput<Schema>] extends [State]
      ? Schema
      : FlowTypeError<NotAState>
    : MakesJson<Schema>

/** What the next turn takes: the type of the state, or what its schema takes. */
export type TakenState<State, Schema extends StandardSchemaV1> = [Schema] extends [never]
  ? State
  : StandardSchemaV1.InferInput<Schema>

/** The handler of a loop. */
export type LoopHandler<
  First,
  State,
  Context,
  Returned,
  In extends StandardSchemaV1,
  Out extends StandardSchemaV1,
> = [Out] extends [never]
  ? (
      state: HandlerInput<Accepting<State, First>, In>,
      context: Context,
    ) => Returned &
      ReturnedJson<Returned> &
      Unless<OutputFrom<Returned>, TakenState<State, In>, FlowTypeError<NotAState>>
  : (
      state: HandlerInput<Accepting<State, First>, In>,
      context: Context,
    ) => StandardSchemaV1.InferInput<Out> | PromiseLike<StandardSchemaV1.InferInput<Out>>

type NotAState =
  'The next turn does not take this: return the state with all its properties, or name its type at the parameter of the handler'

/** `State` where the first turn can begin with it, else what it has to accept. */
type Accepting<State, First> = [First] extends [State] ? State : First
