import type { Duration } from '../shared/duration.ts'
import type { AnyFlow, TaskOptions } from './definition.ts'
import type { OutputOf } from './extract.ts'
import type { IsAny, IsWholeJson, Json, JsonOf } from './json-types.ts'
import type { ImpliedSource, IsUnion, ItemOf } from './map-types.ts'
import type { IsNot, ValueAt } from './path-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { FlowTypes, WithStep } from './types.ts'
import type { WaitOutput, WaitOutputOption } from './wait-types.ts'

/** What happens to the runs that a step has started and that go on when its run ends, or the step is skipped. */
export type WhenParentEnds = 'cancel' | 'leave'

/** What a sub-flow has beside. */
export interface SubFlowOptions {
  /**
   * What happens to child runs that have not ended when their parent fails or is cancelled: they are cancelled, too, or left
   * alone. @default 'cancel'
   */
  readonly whenParentEnds?: WhenParentEnds
}

/** In the types of a step: the flow of which it starts runs. */
export interface SubFlow<Child extends AnyFlow> {
  readonly child: Child
}

/** The options that name the flow, and what it gives if only its slug is known here. */
export type ChildOption<Child extends AnyFlow | string, Out> = {
  /**
   * The flow, or its slug: for a flow that calls itself, or that other workers host. The newest version is started. Workers
   * that host this flow also host those that it has as values.
   */
  readonly flow: Child
  /**
   * Of a flow that is named by its slug: a Standard Schema of its output, `{ leaf: output }`, or its type:
   * `type<{ total: number }>()`. @default any JSON value
   */
  readonly output?: [Child] extends [string]
    ? WaitOutputOption<Out>
    : FlowTypeError<'The flow says what it gives: leave out output'>
}

/** Options of a step that starts runs of a flow. */
export interface SubFlowSettings<Exhausted, Key> extends TaskOptions<Key>, SubFlowOptions {
  /** The delay before the flow is started, once the deps are done, in whole seconds: `90`, `'10m'`. @default that of the flow, or 0 */
  readonly startDelay?: Duration
  /** What happens if a child run fails or is cancelled: see `whenUnmet`. @default 'fail' */
  readonly whenExhausted?: Exhausted
}

/** The option of a sub-flow that says where its input is. */
export type ChildInputOption<
  F extends FlowTypes,
  Dep extends string,
  Path extends string,
  Child extends AnyFlow | string,
> = {
  /**
   * Where the flow's input is: `run`, a step, or a path inside it (`order.address`).
   * @default the only dep, or `run` where there is none
   */
  readonly input?: KnownInput<F, Path, Child>
} & ([Path] extends [never] ? ImpliedInput<F, Dep, Child> : unknown)

type KnownInput<F extends FlowTypes, Path extends string, Child extends AnyFlow | string> = [Path] extends [
  never,
]
  ? 'run' | (keyof F['steps'] & string)
  : string extends Path
    ? Path
    : [InputProblem<ValueAt<F, Path>, TakenBy<F, Child>, `'${Path}'`, AliasOf<Child>>] extends [never]
      ? Path
      : InputProblem<ValueAt<F, Path>, TakenBy<F, Child>, `'${Path}'`, AliasOf<Child>>

type ImpliedInput<F extends FlowTypes, Dep extends string, Child extends AnyFlow | string> =
  IsUnion<Dep> extends true
    ? {
        readonly input: FlowTypeError<'This step has several deps: name the one with the input of the flow in input'>
      }
    : InputProblem<
          ValueAt<F, ImpliedSource<Dep>>,
          TakenBy<F, Child>,
          `'${ImpliedSource<Dep>}'`,
          AliasOf<Child>
        > extends infer Problem
      ? [Problem] extends [never]
        ? unknown
        : { readonly input: Problem }
      : never

/** The option of a map of flows that is an error where an item is not what the flow takes. */
export type FittingItems<
  F extends FlowTypes,
  Dep extends string,
  Items extends string,
  Child extends AnyFlow | string,
> =
  ItemOf<F, Dep, Items> extends infer Item
    ? [Item] extends [never]
      ? unknown // Where there is no array, another error says so.
      : InputProblem<
            Item,
            TakenBy<F, Child>,
            `an item of '${[Items] extends [never] ? ImpliedSource<Dep> : Items}'`,
            AliasOf<Child>
          > extends infer Problem
        ? [Problem] extends [never]
          ? unknown
          : { readonly items: Problem }
        : never
    : never

/** What the child takes as its input, as JSON; `unknown` where that is not known here. */
type TakenBy<F extends FlowTypes, Child extends AnyFlow | string> = Child extends AnyFlow
  ? JsonOf<Child['~types']['input']>
  : string extends F['slug']
    ? unknown
    : Child extends F['slug']
      ? JsonOf<F['input']>
      : unknown

type AliasOf<Child extends AnyFlow | string> = Child extends AnyFlow ? Child['alias'] : Child

/** Why a value is not what the child takes; `never` if it is, or may be. */
type InputProblem<Value, Taken, Where extends string, Alias> =
  IsAny<Value> extends true
    ? never
    : [Value] extends [FlowTypeError<unknown>]
      ? Value
      : [Value] extends [Taken]
        ? never
        : IsWholeJson<Taken> extends true
          ? undefined extends Value
            ? FlowTypeError<`${Where} may be missing: the flow '${Alias & string}' has an input`>
            : never
          : IsWholeJson<Exclude<Value, undefined>> extends true
            ? never
            : FlowTypeError<`${Difference<Value, Taken, Where>}: the input of the flow '${Alias & string}' is needed`>

type Difference<Value, Taken, Where extends string> = [Value] extends [readonly unknown[]]
  ? [Taken] extends [readonly unknown[]]
    ? `${Where} is of another type`
    : `${Where} is an array`
  : [Value, Taken] extends [object, object]
    ? PropertyDifference<Value, Taken> extends infer Text extends string
      ? [Text] extends [never]
        ? `${Where} is of another type`
        : `In ${Where}, ${Text}`
      : never
    : `${Where} ${IsNot<Value, Taken>}`

type PropertyDifference<Value, Taken> = {
  [K in keyof Taken & string]-?: K extends keyof Value
    ? [Value[K]] extends [Taken[K]]
      ? never
      : `'${K}' is of another type`
    : undefined extends Taken[K]
      ? never
      : `'${K}' is missing`
}[keyof Taken & string]

/** What a sub-flow gives: the output of the child run. */
export type ChildOutput<Child extends AnyFlow | string, Out> = Child extends AnyFlow
  ? string extends keyof Child['~types']['steps']
    ? Json
    : OutputOf<Child>
  : WaitOutput<Out>

/** The types of a flow with one more step, which starts runs of another flow. What that needs of the worker, this flow needs, too. */
export type WithSubFlow<
  F extends FlowTypes,
  Slug extends string,
  Dep extends string,
  Output,
  Skips extends 'skip' | 'skip-cascade',
  Child extends AnyFlow | string,
  Progress,
> = WithStep<
  Child extends AnyFlow ? WithChildResources<F, Child['~types']['resources']> : F,
  Slug,
  Dep,
  Output,
  Skips,
  SubFlow<Child extends AnyFlow ? Child : AnyFlow>,
  Progress
>

type WithChildResources<F extends FlowTypes, Resources extends object> = [keyof Resources] extends [never]
  ? F
  : {
      slug: F['slug']
      version: F['version']
      input: F['input']
      run: F['run']
      resources: F['resources'] & Resources
      steps: F['steps']
    }
