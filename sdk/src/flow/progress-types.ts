import type { Json, JsonOf, OnlyJson } from './json-types.ts'
import type { TypeOf } from './type.ts'

/** The option that names the type of the data; a `FlowTypeError` where it is not JSON. */
export type ProgressType<Data> = TypeOf<[Data] extends [OnlyJson<Data>] ? Data : OnlyJson<Data>>

/** What `context.progress` takes after the value. */
export type ProgressArguments<Data> = [Data] extends [never] ? [data?: unknown] : [data: Data]

/** What clients see of the progress of a step. */
export type StepProgress<Data> = [Data] extends [never]
  ? Json
  : { readonly value: number; readonly data: JsonOf<Data> } | null

/** What clients see of the progress of a map: of an item, or how many items are done. */
export type MapProgress<Data> = [Data] extends [never]
  ? Json
  :
      | { readonly value: number; readonly data: JsonOf<Data>; readonly task_index: number }
      | { readonly done: number; readonly total: number }
      | null
