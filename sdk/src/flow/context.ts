/** Where a handler, the worker and the client write what they have to say. `console` is one. */
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
export interface Context<Resources = object> {
  /** Aborted when the step's timeout is over, the run was cancelled or the worker has to stop. */
  readonly signal: AbortSignal
  /** 1 at the first try. */
  readonly attempt: number
  readonly runId: string
  readonly stepSlug: string
  /** 0, except in the tasks of a map step. */
  readonly taskIndex: number
  readonly workerId: string
  readonly log: Log
  /** What the user handed to the worker: connections, clients, settings. */
  readonly resources: Resources
}
