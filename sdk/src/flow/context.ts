import type { OnceMethods, TransactionMethods } from './once-types.ts'

/** A logger, such as `console`. */
export interface Log {
  debug(message: string, data?: object): void
  info(message: string, data?: object): void
  warn(message: string, data?: object): void
  error(message: string, data?: object): void
}

/**
 * The second argument of a handler.
 *
 * @example
 * .step('page', async ({ run }, { signal, resources }) => resources.fetch(run.url, { signal }))
 */
export interface Context<
  Resources = object,
  Payload = unknown,
  ProgressData extends [data?: unknown] = [data?: unknown],
> extends OnceMethods,
    TransactionMethods {
  /**
   * Aborted when the result is not needed any more. Its reason is a `TimeoutError`, a `CancelledError` (the run was
   * cancelled or failed), a `LeaseLostError` (another worker has the task) or a `WorkerStoppedError`.
   */
  readonly signal: AbortSignal
  /**
   * The number of this attempt, from 1. Attempts that do not count against `maxAttempts` are counted here too: one that a worker handed back
   * when it stopped, or one that failed with a `RetryAfterError` that says so.
   */
  readonly attempt: number
  readonly runId: string
  readonly flowSlug: string
  readonly stepSlug: string
  /** The index of a map's item, or the turn of a loop, from 0; 0 in other steps. */
  readonly taskIndex: number
  readonly workerId: string
  /** The worker's `log`: by default warnings and errors go to the console. Entries have the ids of the task. */
  readonly log: Log
  /**
   * Reports how far the step is; clients get it as the event `step:progress`. The first report is sent at once, after that
   * the latest one once a second.
   *
   * @param value a number on any scale, such as a fraction of 1 or the number of pages
   * @param data JSON of at most 16,384 characters; of the type that the step's option `progress` names
   * @throws RangeError if the value is no finite number, or the data is too long
   * @throws NotJsonError if the data cannot be stored
   *
   * @example
   * for (const [index, page] of pages.entries()) {
   *   progress((index + 1) / pages.length, { page: page.title })
   * }
   */
  progress(value: number, ...data: ProgressData): void
  /**
   * The payload. In a map or loop, whose handler gets only its item or state: `run` and the output of each dep. It is fetched at the first
   * call, once for all tasks of a worker, which share it; therefore it is frozen.
   */
  payload(): Promise<Payload>
  /**
   * The URL that completes a later wait of this run, which has `webhook`: give it to whom shall call it. It is valid before the
   * wait begins.
   *
   * @throws Error if the flow has no such wait, or the worker no option `webhooks`
   *
   * @example
   * const url = await waitUrl('paid')
   */
  waitUrl(stepSlug: string): Promise<string>
  /** What the worker was started with as `resources`. */
  readonly resources: Resources
}
