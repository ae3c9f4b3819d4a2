import type { IsAny, IsWholeJson, JsonOf } from './json-types.ts'
import type { IsNot, ValueAt } from './path-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { FlowTypes } from './types.ts'

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

/** Without a path, the only dep is the source, or the run's input. */
export type ImpliedSource<Dep extends string> = [Dep] extends [never] ? 'run' : Dep

/** The array at a path, or what is wrong with it. */
type ArrayAt<F extends FlowTypes, Path extends string> = AsArray<ValueAt<F, Path>, Path>

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

type NotArray<T> = IsNot<T, readonly unknown[]>

export type IsUnion<T, Whole = T> = [T] extends [never]
  ? false
  : T extends unknown
    ? [Whole] extends [T]
      ? false
      : true
    : never
