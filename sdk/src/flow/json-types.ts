import type { FlowTypeError } from './type-error.ts'

/** A value as JSON and Postgres `jsonb` know it. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

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
export type JsonOf<T> =
  IsAny<T> extends true
    ? T
    : unknown extends T
      ? Json
      : T extends Json
        ? T
        : T extends Serializable
          ? JsonOf<ReturnType<T['toJSON']>>
          : T extends Callable | symbol | bigint | undefined | Opaque
            ? never
            : T extends readonly unknown[]
              ? { [K in keyof T]: JsonOf<T[K]> }
              : T extends object
                ? JsonObjectOf<T>
                : never

type JsonObjectOf<T> = Plain<
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

/**
 * `T` where it is JSON, a `FlowTypeError` in the place of everything in it that is not. Intersected with what a
 * handler returns, it makes the compiler point at the property that cannot be stored.
 */
export type OnlyJson<T> =
  IsAny<T> extends true
    ? T
    : [T] extends [Json] // `Json` itself too, which is too deep to look into
      ? T
      : unknown extends T
        ? T
        : T extends Primitive | undefined | Serializable
          ? T
          : T extends PromiseLike<infer Value>
            ? [Value] extends [OnlyJson<Value>]
              ? T
              : FlowTypeError<OnlyJson<Value>>
            : OnlyJsonInside<T>

type OnlyJsonInside<T> = T extends Callable
  ? FlowTypeError<'A function is not JSON: leave it out of the output'>
  : T extends symbol
    ? FlowTypeError<'A symbol is not JSON: leave it out of the output'>
    : T extends bigint
      ? FlowTypeError<'A bigint is not JSON: return it as a string'>
      : T extends Error
        ? FlowTypeError<'JSON keeps nothing of an Error: throw it, or return its message'>
        : T extends Opaque
          ? FlowTypeError<'JSON keeps nothing of this object: return a plain object or an array made from it'>
          : T extends readonly unknown[]
            ? { [K in keyof T]: OnlyJsonItem<T[K]> }
            : T extends object
              ? { [K in keyof T]: K extends symbol ? T[K] : OnlyJson<T[K]> }
              : T

type OnlyJsonItem<T> = T extends undefined
  ? FlowTypeError<'An item of an array cannot be undefined in JSON: return null'>
  : OnlyJson<T>
