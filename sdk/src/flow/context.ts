/** Where a handler, the worker and the client log. `console` is one. */
export interface Log {
  debug(message: string, data?: object): void
  info(message: string, data?: object): void
  warn(message: string, data?: object): void
  error(message: string, data?: object): void
}

/**
 * What a handler gets beside its payload.
 *
 * @example
 * .step('page', async ({ run }, { signal, resources }) => resources.fetch(run.url, { signal }))
 */
export interface Context<
  Resources = object,
  Payload = unknown,
  ProgressData extends [data?: unknown] = [data?: unknown],
> {
  /**
   * Aborted when the result is of no use any more. Its reason is a `TimeoutError`, a `CancelledError` (the run was
   * cancelled or failed), a `LeaseLostError` (another worker has the task) or a `WorkerStoppedError`.
   */
  readonly signal: AbortSignal
  /**
   * 1 at the first try. Attempts that do not count against `maxAttempts` are counted here too: one that a worker handed back
   * when it stopped, or one that failed with a `RetryAfterError` that says so.
   */
  readonly attempt: number
  readonly runId: string
  readonly flowSlug: string
  readonly stepSlug: string
  /** 0, except in the tasks of a map step. */
  readonly taskIndex: number
  readonly workerId: string
  /** The worker's `log`: by default warnings and errors go to the console. Entries have the ids of the task. */
  readonly log: Log
  /**
   * Says how far the step is; clients see it as `step:progress`. The first report goes out at once, then the latest one
   * once a second.
   *
   * @param value a number of any scale, such as a share of 1 or pages done
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
   * What the handler got. In a map step: what it would get if it were none, `run` and each dep's output. It is fetched
   * at the first call, once for all tasks of a worker, and so it is shared and frozen.
   */
  payload(): Promise<Payload>
  /** What the user handed to the worker: connections, clients, settings. */
  readonly resources: Resources
}
