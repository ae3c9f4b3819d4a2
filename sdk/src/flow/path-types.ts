import type { IsAny, IsWholeJson, JsonOf } from './json-types.ts'
import type { FlowTypeError } from './type-error.ts'
import type { FlowTypes } from './types.ts'

/** The step whose output a path begins with; none for the run's input. */
export type SourceStep<Path extends string> = Exclude<HeadOf<Path>, 'run'>

export type HeadOf<Path extends string> = Path extends `${infer Head}.${string}` ? Head : Path

/** The value at a path into the run's input or the output of a step, or what is wrong with the path. */
export type ValueAt<F extends FlowTypes, Path extends string> =
  HeadOf<Path> extends infer Head extends string
    ? Head extends 'run'
      ? At<JsonOf<F['input']>, Path>
      : Head extends keyof F['steps']
        ? At<F['steps'][Head]['output'], Path>
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

/** In words, why `T` is not (always) `Wanted`. */
export type IsNot<T, Wanted> = undefined extends T
  ? 'may be missing'
  : `${[Extract<T, Wanted>] extends [never] ? 'is' : 'may be'} ${KindOf<Exclude<T, Wanted>>}`

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

/** `Path` if it leads to a value of type `Wanted`, a `FlowTypeError` with what is needed if not. */
export type Checked<
  F extends FlowTypes,
  Path extends string,
  Wanted,
  Needed extends string,
> = string extends Path
  ? Path
  : ValueAt<F, Path> extends infer Found
    ? IsAny<Found> extends true
      ? Path
      : [Found] extends [FlowTypeError<unknown>]
        ? Found
        : IsWholeJson<Exclude<Found, undefined>> extends true
          ? Path
          : [Found] extends [Wanted]
            ? Path
            : FlowTypeError<`'${Path}' ${IsNot<Found, Wanted>}: ${Needed}`>
    : never
