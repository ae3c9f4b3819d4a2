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

/**
 * What clients see of the progress of a map or loop: what the handler of an item or turn reports, or how many items or turns are done.
 * `null` before the first report. The `total` of a loop is how many turns it takes at most.
 *
 * @example
 * if (progress && 'done' in progress) show(`${progress.done} of ${progress.total}`)
 */
export type MapProgress<Data = never> =
  | { readonly value: number; readonly data: DataOf<Data>; readonly task_index: number }
  | { readonly done: number; readonly total: number }
  | null

type DataOf<Data> = [Data] extends [never] ? Json | undefined : JsonOf<Data>
