import type { IsWholeJson, JsonOf } from './json-types.ts'
import type { Checked, HeadOf } from './path-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { FlowTypes, NewFlow } from './types.ts'

type Scalar = string | number | boolean | null

/** `Path` if it leads to one value, in the run's input or the output of one of the deps; a `FlowTypeError` if not. */
export type KnownKey<F extends FlowTypes, Dep extends string, Path extends string> = string extends Path
  ? Path
  : [Path] extends [never]
    ? KeyPaths<F, Dep>
    : KeyAt<F, 'run' | Dep, Path> extends infer Found
      ? Found extends FlowTypeError<unknown>
        ? Found
        : Extract<Path, Found>
      : never

/** The same for options of a flow, whose input is known so far, or comes with `.input<Input>()`. */
export type KnownRunKey<Input, Path extends string> = string extends Path
  ? Path
  : [Path] extends [never]
    ? KeyPath<JsonOf<Input>, 'run'>
    : KeyAt<NewFlow<string, number, Input, unknown, object>, 'run', Path> extends infer Found
      ? Found extends FlowTypeError<unknown>
        ? Found
        : Extract<Path, Found>
      : never

/** Each path, or what is wrong with it. */
type KeyAt<F extends FlowTypes, Sources extends string, Path extends string> = Path extends string
  ? HeadOf<Path> extends Sources
    ? Checked<F, Path, Scalar, 'a string, number or boolean is needed'>
    : FlowTypeError<`'${Path}' does not begin with ${[Sources] extends ['run'] ? 'run' : 'run or a step in dependsOn'}`>
  : never

/** The paths of values that are not deep inside: what editors offer. */
type KeyPaths<F extends FlowTypes, Dep extends string> = {
  [Source in 'run' | Dep]: KeyPath<
    Source extends keyof F['steps'] ? F['steps'][Source]['output'] : JsonOf<F['input']>,
    Source
  >
}['run' | Dep] extends infer Path
  ? Path
  : never // shown without its origin

type KeyPath<T, Path extends string, Depth extends unknown[] = []> =
  IsWholeJson<T> extends true
    ? Path | `${Path}.${string}`
    : T extends Scalar
      ? Path
      : Depth['length'] extends 3
        ? `${Path}.${string}`
        : T extends readonly unknown[]
          ? never
          : { [K in keyof T & string]: KeyPath<T[K], `${Path}.${K}`, [...Depth, K]> }[keyof T & string]

/** What a map does when attempts of an item are exhausted. */
export type ItemFallback = 'fail' | 'collect'

/** What became of one item of a map with `whenItemFails: 'collect'`. */
export type ItemResult<Value> = { status: 'completed'; value: Value } | { status: 'failed'; error: string }

/** What a map gives for its items. */
export type MapOutput<Value, Fails extends ItemFallback> = Fails extends 'collect'
  ? ItemResult<Value>[]
  : Value[]

/** The option `tolerate` of a map. */
export type Tolerated<Fails extends ItemFallback> = Fails extends 'collect'
  ? number | `${number}%`
  : FlowTypeError<"Failed items are tolerated only with whenItemFails: 'collect'">
