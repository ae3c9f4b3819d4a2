import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Duration } from '../shared/duration.ts'
import type { Context } from './context.ts'
import type { HandlerFunction } from './handler-types.ts'
import type { IsAny, OnlyJson, Unless } from './json-types.ts'
import type { FlowTypeError } from './type-error.ts'

/** How the tasks of a step are gathered into batches. Only workers use it: the definition in the database has no batches. */
export interface BatchOptions<Size extends number = number> {
  /** How many tasks the handler gets at most, from 1 to 1,000. A worker needs as many slots (its option `concurrency`). */
  readonly size: Size
  /** How long the first task waits for others, up to an hour. A full batch does not wait. @default '50ms' */
  readonly wait?: Duration
}

export interface BatchSettings<Size extends number> {
  /**
   * Lets the handler run for many tasks at once. It gets an array of payloads, or of items of a map, and returns an array of
   * results at the same positions; a result that is an `Error` fails its task alone.
   * @default one task at a time
   */
  readonly batch?: BatchOptions<Size>
}

/** One of the tasks of a batch. */
export type BatchTask<Payload = unknown, ProgressData extends [data?: unknown] = [data?: unknown]> = Pick<
  Context<object, Payload, ProgressData>,
  | 'runId'
  | 'taskIndex'
  | 'attempt'
  | 'signal'
  | 'log'
  | 'progress'
  | 'payload'
  | 'waitUrl'
  | 'once'
  | 'idempotencyKey'
>

/**
 * The second argument of a handler that has `batch`.
 *
 * @example
 * .map({ slug: 'vectors', items: 'run.texts', batch: { size: 100 } }, (texts, { signal, tasks }) => {
 *   tasks.forEach(({ attempt, log }) => attempt > 1 && log.info('Again'))
 *   return embed(texts, { signal })
 * })
 */
export interface BatchContext<
  Resources = object,
  Payload = unknown,
  ProgressData extends [data?: unknown] = [data?: unknown],
> extends Pick<Context<Resources>, 'flowSlug' | 'stepSlug' | 'workerId' | 'resources'> {
  /**
   * Aborted when no result is needed any more: with a `TimeoutError` when the step's timeout is over, which counts from the
   * start of the call, or when all tasks have been closed. `tasks[i].signal` is that of one task.
   */
  readonly signal: AbortSignal
  /** The tasks of the payloads, at the same positions. */
  readonly tasks: readonly BatchTask<Payload, ProgressData>[]
  /** The worker's `log`. Entries have the slugs; those of `tasks[i].log` have the ids of the task. */
  readonly log: Log
}

type Log = Context['log']

/** A batch handler without the types of its flow, as the worker calls it. */
export type BatchHandler = (payloads: readonly unknown[], context: BatchContext) => unknown

/** The handler of a step: of batches, where it has a size. */
export type HandlerOf<
  Size extends number,
  Input,
  Resources extends object,
  Payload,
  ProgressData extends [data?: unknown],
  Returned,
  Out extends StandardSchemaV1,
> = [Size] extends [never]
  ? HandlerFunction<Input, Context<Resources, Payload, ProgressData>, Returned, Out>
  : BatchFunction<Input, BatchContext<Resources, Payload, ProgressData>, Returned, Out>

type BatchFunction<Input, Context, Returned, Out extends StandardSchemaV1> = [Out] extends [never]
  ? (payloads: readonly Input[], context: Context) => Returned & ReturnedResults<Returned>
  : (
      payloads: readonly Input[],
      context: Context,
    ) => Results<StandardSchemaV1.InferInput<Out>> | PromiseLike<Results<StandardSchemaV1.InferInput<Out>>>

type Results<Output> = readonly (Output | Error)[]

/** What a handler has returned for one task: all of it, or one of a batch's results that is no error. */
export type ReturnedForOne<Returned, Size extends number> = [Size] extends [never]
  ? Returned
  : ResultFrom<Awaited<Returned>>

type ResultFrom<All> =
  IsAny<All> extends true ? All : All extends readonly (infer Result)[] ? WithoutErrors<Result> : never

type WithoutErrors<Result> = IsAny<Result> extends true ? Result : IsError<Result, never, Result>

/** JSON with a name and a message is no `Error`: it has no stack. */
type IsError<T, Then, Else> = T extends Error ? ('stack' extends keyof T ? Then : Else) : Else

/** `unknown` where a batch handler may return `T`, which may be a promise. */
type ReturnedResults<T> = Unless<T, OnlyResultsReturned<T>, OnlyResultsReturned<T>>

type OnlyResultsReturned<T> =
  T extends PromiseLike<infer Value>
    ? [Value] extends [OnlyResults<Value>]
      ? T
      : FlowTypeError<OnlyResults<Value>>
    : OnlyResults<T>

type OnlyResults<T> =
  IsAny<T> extends true
    ? T
    : T extends readonly unknown[]
      ? readonly OnlyResult<T[number]>[]
      : FlowTypeError<'A batch handler returns an array with a result, or an Error, for each payload'>

type OnlyResult<T> = IsAny<T> extends true ? T : IsError<T, T, OnlyJson<T>>
