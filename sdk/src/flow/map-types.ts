import type { IsAny, IsWholeJson, JsonOf } from './json-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { FlowTypes } from './types.ts'

/** The step whose output a map's `items` name; none for the run's input. */
export type SourceStep<Items extends string> = Exclude<HeadOf<Items>, 'run'>

/** The paths of arrays that are not deep inside a value: what editors offer. */
type ArrayPaths<F extends FlowTypes> =
  | ArrayPath<JsonOf<F['input']>, 'run'>
  | StepArrayPath<F> extends infer Path
  ? Path
  : never // shown without its origin

type StepArrayPath<F extends FlowTypes> = {
  [Slug in keyof F['steps'] & string]: ArrayPath<F['steps'][Slug]['output'], Slug>
}[keyof F['steps'] & string]

/** The paths of arrays at and in `T`. */
type ArrayPath<T, Path extends string, Depth extends unknown[] = []> = T extends readonly unknown[]
  ? Path
  : Depth['length'] extends 3
    ? never
    : T extends object
      ? { [K in keyof T & string]: ArrayPath<T[K], `${Path}.${K}`, [...Depth, K]> }[keyof T & string]
      : never

/** The options of a map that say where its array is. */
export type ItemsOption<F extends FlowTypes, Dep extends string, Items extends string> = {
  /**
   * Where the array is: `run`, a step, or a path inside it (`toc.urls`).
   * @default the only dep, or `run` where there is none
   */
  readonly items?: KnownItems<F, Items>
} & ImpliedItems<F, Dep, Items>

/** `Items` if an array is there, a `FlowTypeError` if not. */
type KnownItems<F extends FlowTypes, Items extends string> = string extends Items
  ? Items
  : [Items] extends [never]
    ? ArrayPaths<F>
    : ArrayAt<F, Items> extends infer Found
      ? Found extends FlowTypeError<unknown>
        ? Found
        : Items
      : never

/** Without `items`, the only dep or the run's input has to be an array. */
type ImpliedItems<F extends FlowTypes, Dep extends string, Items extends string> = [Items] extends [never]
  ? IsUnion<Dep> extends true
    ? {
        readonly items: FlowTypeError<'This map has several deps: name the one with the array in items'>
      }
    : ArrayAt<F, ImpliedSource<Dep>> extends infer Found extends FlowTypeError<unknown>
      ? { readonly items: ArrayPaths<F> | Found }
      : unknown
  : unknown

/** What the handler of a map gets: an item of its array. */
export type ItemOf<F extends FlowTypes, Dep extends string, Items extends string> =
  ArrayAt<F, [Items] extends [never] ? ImpliedSource<Dep> : Items> extends readonly (infer Item)[]
    ? Item
    : never

type ImpliedSource<Dep extends string> = [Dep] extends [never] ? 'run' : Dep

type HeadOf<Path extends string> = Path extends `${infer Head}.${string}` ? Head : Path

/** The array at a path, or what is wrong with it. */
type ArrayAt<F extends FlowTypes, Path extends string> =
  HeadOf<Path> extends infer Head extends string
    ? Head extends 'run'
      ? AsArray<At<JsonOf<F['input']>, Path>, Path>
      : Head extends keyof F['steps']
        ? AsArray<At<F['steps'][Head]['output'], Path>, Path>
        : FlowTypeError<`There is no step '${Head}' before this one: define it first, or correct its name`>
    : never

/** The value at the end of a path, of which the first part has been followed. */
type At<T, Path extends string, Done extends string = HeadOf<Path>> = Path extends `${Done}.${infer Rest}`
  ? IsAny<T> extends true
    ? T
    : Property<T, HeadOf<Rest>> extends infer Value
      ? [Value] extends [Missing]
        ? FlowTypeError<`'${Done}' has no '${HeadOf<Rest>}'`>
        : At<Value, Path, `${Done}.${HeadOf<Rest>}`>
      : never
  : T

interface Missing {
  readonly '~missing': true
}

/** A property of each member of a union; `undefined` where one of them has none. */
type Property<T, Key extends string> =
  IsWholeJson<T> extends true
    ? T
    : [T extends unknown ? (Key extends keyof T ? true : never) : never] extends [never]
      ? Missing
      : T extends unknown
        ? Key extends keyof T
          ? T[Key]
          : undefined
        : never

type AsArray<T, Path extends string> =
  IsAny<T> extends true
    ? T[]
    : IsWholeJson<Exclude<T, undefined>> extends true
      ? Extract<T, readonly unknown[]>
      : [T] extends [FlowTypeError<unknown>]
        ? T
        : [T] extends [readonly unknown[]]
          ? T
          : FlowTypeError<`'${Path}' ${NotArray<T>}: a map needs an array`>

type NotArray<T> = undefined extends T
  ? 'may be missing'
  : `${[Extract<T, readonly unknown[]>] extends [never] ? 'is' : 'may be'} ${KindOf<Exclude<T, readonly unknown[]>>}`

type KindOf<T> = [T] extends [string]
  ? 'a string'
  : [T] extends [number]
    ? 'a number'
    : [T] extends [boolean]
      ? 'a boolean'
      : [T] extends [null]
        ? 'null'
        : [T] extends [object]
          ? 'an object'
          : 'something else'

type IsUnion<T, Whole = T> = [T] extends [never]
  ? false
  : T extends unknown
    ? [Whole] extends [T]
      ? false
      : true
    : never
