import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { IsAny, LooseJson, NeverJson, OnlyJson, OutputFrom } from './json-types.ts'
import type { FlowTypeError } from './type-error.ts'

/** `Schema` if it takes JSON, a `FlowTypeError` if not. */
export type TakesJson<Schema extends StandardSchemaV1> =
  AcceptsJson<StandardSchemaV1.InferInput<Schema>> extends true
    ? Schema
    : [Schema] extends [never]
      ? never
      : FlowTypeError<NotJson>

/** `Schema` if it takes what a step gets: `run`, as the flow's schema made it, and JSON of its deps. */
export type TakesPayload<Schema extends StandardSchemaV1, Dep extends string> = [
  PayloadProblem<StandardSchemaV1.InferInput<Schema>, Dep>,
] extends [never]
  ? Schema
  : FlowTypeError<PayloadProblem<StandardSchemaV1.InferInput<Schema>, Dep>>

type NotJson = 'What this schema takes is not JSON: values arrive as JSON, for instance a date as a string'

type PayloadProblem<Taken, Dep extends string> =
  IsAny<Taken> extends true
    ? never
    : AcceptsJson<Omit<Taken, 'run'>> extends true
      ? string extends Dep
        ? never
        : `The step's input never has '${UnknownKey<Taken, Dep>}'`
      : NotJson

/** The keys that a payload must have and does not. */
type UnknownKey<Taken, Dep> = {
  [K in keyof Taken]-?: undefined extends Taken[K] ? never : K extends 'run' | Dep ? never : K & string
}[keyof Taken]

/** `true` if JSON can be of type `T`. It compares, since a type that refers to itself cannot be walked through. */
type AcceptsJson<T> = [T] extends [JsonPart<T>] ? true : false

type JsonPart<T> =
  IsAny<T> extends true
    ? T
    : unknown extends T
      ? T
      : [Exclude<T, undefined>] extends [NeverJson]
        ? [Exclude<T, undefined>] extends [never]
          ? T
          : FlowTypeError<NotJson>
        : T extends NeverJson | LooseJson
          ? T
          : { [K in keyof T]: JsonPart<T[K]> }

/** `Schema` if what it makes is JSON, a `FlowTypeError` if not. */
export type MakesJson<Schema extends StandardSchemaV1> = [StandardSchemaV1.InferOutput<Schema>] extends [
  OnlyJson<StandardSchemaV1.InferOutput<Schema>>,
]
  ? Schema
  : FlowTypeError<OnlyJson<StandardSchemaV1.InferOutput<Schema>>>

/** What a handler gets: what the schema makes of the payload, or the payload. */
export type HandlerInput<Payload, Schema extends StandardSchemaV1> = [Schema] extends [never]
  ? Payload
  : StandardSchemaV1.InferOutput<Schema>

/** What a schema makes of a payload, in a tuple; `false` without a schema. */
export type SchemaOutput<Schema extends StandardSchemaV1> = [Schema] extends [never]
  ? false
  : [StandardSchemaV1.InferOutput<Schema>]

/** What is stored of what a handler returned: what the schema makes of it, as JSON. */
export type StoredOutput<Returned, Schema extends StandardSchemaV1> = [Schema] extends [never]
  ? OutputFrom<Returned>
  : OutputFrom<StandardSchemaV1.InferOutput<Schema>>
