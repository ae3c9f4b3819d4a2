import type { IsAny, IsWholeJson } from './json-types.ts'
import type { FlowTypeError } from './type-error.ts'

/**
 * `Fragment` where JSON of type `T` can contain it, in the sense of Postgres' `@>`; a `FlowTypeError` in the place of
 * everything that it never contains.
 */
export type ValidCondition<Fragment, T> = [Fragment] extends [never]
  ? PartOf<T> extends infer Part // which is not inferred from the condition
    ? Part
    : never
  : [Fragment] extends [Primitive | readonly unknown[]]
    ? FlowTypeError<'A condition is an object, a part of { run: …, <dep>: … }'>
    : Contained<Fragment, T> extends true
      ? Fragment
      : Explained<Fragment, T>

/** `T` with every property optional: what editors offer while a condition is written. */
export type PartOf<T> = T extends readonly (infer Item)[]
  ? readonly PartOf<Item>[]
  : T extends object
    ? { readonly [K in keyof T]?: PartOf<T[K]> }
    : T

type Primitive = string | number | boolean | null

/** `true` if one of the members of the union `T` can contain the fragment. */
export type Contained<Fragment, T> =
  IsAny<Fragment> extends true
    ? true
    : IsAny<T> extends true
      ? true
      : true extends IsWholeJson<T> | IsWholeJson<Fragment>
        ? true
        : true extends (T extends unknown ? ContainedIn<Fragment, T> : never)
          ? true
          : false

type ContainedIn<Fragment, T> = Fragment extends Primitive
  ? Fragment extends T
    ? true
    : T extends Fragment
      ? true
      : false
  : Fragment extends readonly unknown[]
    ? T extends readonly (infer Item)[]
      ? Every<{ [K in keyof Fragment]: Contained<Fragment[K], Item> }[number]>
      : false
    : T extends readonly unknown[] | Primitive
      ? false
      : Every<
          {
            [K in keyof Fragment]: K extends keyof T ? Contained<Fragment[K], Defined<T[K]>> : false
          }[keyof Fragment]
        >

type Every<Answer> = [Answer] extends [true] ? true : false

type Defined<T> = Exclude<T, undefined>

/** The fragment with a `FlowTypeError` in the place of what is impossible in it. */
export type Explained<
  Fragment,
  T,
  Path extends string = '',
  Whole extends string = "The step's input",
> = Fragment extends Primitive
  ? FlowTypeError<`'${Path}' is never ${Shown<Fragment>}`>
  : Fragment extends readonly unknown[]
    ? FlowTypeError<`'${Path}' never contains this array`>
    : Path extends '' // the step's input, whose keys are run and the deps
      ? { [K in keyof Fragment]: ExplainedKey<Fragment[K], T, K & string, '', Whole> }
      : [Extract<T, object>] extends [readonly unknown[]]
        ? FlowTypeError<`'${Path}' is never an object`>
        : ExplainedObject<
            { [K in keyof Fragment]: ExplainedKey<Fragment[K], T, K & string, `${Path}.`, Whole> },
            Fragment,
            Path
          >

type ExplainedObject<Keys, Fragment, Path extends string> = Keys extends Fragment
  ? FlowTypeError<`'${Path}' never has all of this at once`>
  : Keys

type ExplainedKey<Value, T, Key extends string, Before extends string, Whole extends string> =
  ValueAt<T, Key> extends infer Found
    ? [Found] extends [never]
      ? FlowTypeError<`${Whole} never has '${Before}${Key}'`>
      : Contained<Value, Found> extends true
        ? Value
        : Explained<Value, Found, `${Before}${Key}`, Whole>
    : never

type ValueAt<T, Key extends string> = T extends unknown
  ? Key extends keyof T
    ? Defined<T[Key]>
    : never
  : never

type Shown<Value extends Primitive> = Value extends string ? `"${Value}"` : `${Value}`
