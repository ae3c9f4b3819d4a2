import type { FlowTypeError } from './type-error.ts'

/** A value as JSON and Postgres `jsonb` know it. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/** JSON whose properties may be `undefined`, as in the type `Json` that Supabase generates. */
export type LooseJson = Primitive | readonly LooseJson[] | { readonly [key: string]: LooseJson | undefined }

/** `true` for a type that stands for all of JSON, `null` perhaps excepted. */
export type IsWholeJson<T> = [T] extends [LooseJson]
  ? Json extends T
    ? true
    : NonNullable<GeneratedJson> extends T
      ? true
      : false
  : false

/** `Json` as Supabase generates it. */
type GeneratedJson = Primitive | GeneratedJson[] | { [key: string]: GeneratedJson | undefined }

/** The same object type, written out, so that an editor shows its properties and not its origin. */
export type Plain<T> = { [K in keyof T]: T[K] } & unknown

export type IsAny<T> = 0 extends 1 & T ? true : false

type Primitive = string | number | boolean | null

type Callable = (...args: never) => unknown

interface Serializable {
  toJSON(key: string): unknown
}

/** What JSON is not, whatever it may become. */
export type NeverJson = Serializable | Callable | symbol | bigint | undefined | Opaque

/** Objects of which `JSON.stringify` silently keeps nothing. */
type Opaque = Error | RegExp | PromiseLike<unknown> | ReadonlyMap<unknown, unknown> | ReadonlySet<unknown>

/**
 * What `T` is after a trip through JSON: dates are strings, `toJSON` is respected, properties that may be
 * `undefined` are optional.
 *
 * @example
 * type StoredOutput = JsonOf<{ at: Date; by: string | undefined }>
 * //   { at: string; by?: string }
 */
export type JsonOf<T> = T extends Json // each check is of `T` itself, so that the compiler can look through a type parameter
  ? T
  : T extends Serializable
    ? JsonOfSerializable<T>
    : T extends Callable | symbol | bigint | undefined | Opaque
      ? never
      : T extends readonly unknown[]
        ? JsonArrayOf<T>
        : T extends object
          ? JsonObjectOf<T>
          : unknown extends T
            ? Json
            : never

type JsonOfSerializable<T extends Serializable> = IsAny<T> extends true ? T : JsonOf<ReturnType<T['toJSON']>>

/** Arrays are written out: a mapped one is evaluated at once, which has no end where it contains itself. */
type JsonArrayOf<T extends readonly unknown[]> =
  IsWholeJson<T[number]> extends true
    ? T
    : readonly T[number][] extends T
      ? readonly JsonOf<T[number]>[]
      : T[number][] extends T
        ? JsonOf<T[number]>[]
        : { [K in keyof T]: JsonOf<T[K]> }

type JsonObjectOf<T> = string extends keyof T
  ? T extends LooseJson
    ? T
    : JsonPropertiesOf<T>
  : JsonPropertiesOf<T>

type JsonPropertiesOf<T> = Plain<
  { [K in keyof T as MayBeMissing<T[K]> extends true ? never : JsonKey<K>]: JsonOf<T[K]> } & {
    [K in keyof T as MayBeMissing<T[K]> extends true ? JsonKey<K> : never]?: JsonOf<Exclude<T[K], undefined>>
  }
>

type MayBeMissing<T> = IsAny<T> extends true ? false : undefined extends T ? true : false

type JsonKey<K> = K extends symbol ? never : K

/** What a handler's return type is stored as: awaited, as JSON makes it, nothing at all as `null`. */
export type OutputFrom<Returned> = StoredAs<Awaited<Returned>>

type StoredAs<T> =
  IsAny<T> extends true
    ? T
    : unknown extends T
      ? Json
      : // biome-ignore lint/suspicious/noConfusingVoidType: a handler without a return statement returns void
        T extends undefined | void
        ? null
        : JsonOf<T>

/** `T` where it is JSON, a `FlowTypeError` in the place of everything in it that is not. */
export type OnlyJson<T> =
  IsAny<T> extends true
    ? T
    : [T] extends [LooseJson] // `Json` itself too, which is too deep to look into
      ? T
      : unknown extends T
        ? T
        : T extends Primitive | undefined | Serializable
          ? T
          : OnlyJsonInside<T>

/**
 * `unknown` where a handler may return `T`, which may be a promise. Intersected with what it returns, anything else makes
 * the compiler point at the property that cannot be stored.
 */
export type ReturnedJson<T> = Unless<T, OnlyJsonReturned<T>, OnlyJsonReturned<T>>

type OnlyJsonReturned<T> =
  T extends PromiseLike<infer Value>
    ? [Value] extends [OnlyJson<Value>]
      ? T
      : FlowTypeError<OnlyJson<Value>>
    : OnlyJson<T>

/** `unknown` where a run can be started with `T`. */
export type InputJson<T> = Unless<T, OnlyJsonInput<T>, InputIsNotJson<OnlyJsonInput<T>>>

/** Its argument says what in the type of a flow's input is not JSON. No value has this type. */
interface InputIsNotJson<Problem> {
  readonly '~error': Problem
}

// biome-ignore lint/suspicious/noConfusingVoidType: it is no input, whoever writes it
type OnlyJsonInput<T> = T extends undefined | void
  ? FlowTypeError<'A run has an input: make it null where it needs none'>
  : OnlyJson<T>

/**
 * `unknown` where `T` is `Allowed`, else `Else`; of a type parameter it is `unknown` too, so that generic functions
 * compile. For that it is looked up in a table by a key whose other branch is `any`: the compiler ignores such a branch
 * where it does not know the key yet, and takes the entry of numbers for an `any` that it knows.
 */
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Unless<T, Allowed, Else> = UnlessTable<Else>[[T] extends [Allowed] ? 'allowed' : any]

interface UnlessTable<Else> {
  allowed: unknown
  [other: number]: Else
}

type OnlyJsonInside<T> = T extends Callable
  ? FlowTypeError<'A function is not JSON: leave it out'>
  : T extends symbol
    ? FlowTypeError<'A symbol is not JSON: leave it out'>
    : T extends bigint
      ? FlowTypeError<'A bigint is not JSON: make it a string'>
      : T extends Error
        ? FlowTypeError<'JSON keeps nothing of an Error: use its message'>
        : T extends PromiseLike<unknown>
          ? FlowTypeError<'A promise is not JSON: await it'>
          : T extends Opaque
            ? FlowTypeError<'JSON keeps nothing of this object: make it a plain object or an array'>
            : T extends readonly unknown[]
              ? OnlyJsonArray<T>
              : T extends object
                ? { [K in keyof T]: K extends symbol ? T[K] : OnlyJson<T[K]> }
                : T

type OnlyJsonArray<T extends readonly unknown[]> = readonly T[number][] extends T
  ? readonly OnlyJsonItem<T[number]>[]
  : T[number][] extends T
    ? OnlyJsonItem<T[number]>[]
    : { [K in keyof T]: OnlyJsonItem<T[K]> }

type OnlyJsonItem<T> = T extends undefined
  ? FlowTypeError<'An item of an array cannot be undefined in JSON: make it null'>
  : OnlyJson<T>
