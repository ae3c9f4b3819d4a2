import type { Log } from '../flow/context.ts'
import { schemaProblem } from '../shared/schema-version.ts'
import { WorkerFailedError } from './errors.ts'
import { explain, isTransient, SchemaError } from './faults.ts'
import { retryPause, sleep } from './time.ts'
import type { Transport } from './transport.ts'

/** Seconds for which the database may refuse all calls until the worker gives up. */
const longestRefusal = 60

export interface FailuresOptions {
  readonly transport: Pick<Transport, 'schemaVersion'>
  readonly log: Log
  /** Ends the pauses. */
  readonly signal: AbortSignal
}

/** The failures of a worker's calls that came in a row: how long to wait, and when to give up. */
export class Failures {
  readonly #options: FailuresOptions
  #count = 0
  /** When the database began to refuse all calls, in milliseconds. */
  #refusedSince: number | undefined

  constructor(options: FailuresOptions) {
    this.#options = options
  }

  /** A call succeeded. */
  reset(): void {
    this.#count = 0
    this.#refusedSince = undefined
  }

  /**
   * Where the schema does not fit, no result is to blame.
   *
   * @throws SchemaError with what to do
   * @throws what the call threw by which the database was asked for its version
   */
  async assertSchemaFits(cause: unknown): Promise<void> {
    const problem = schemaProblem(await this.#options.transport.schemaVersion())
    if (problem !== undefined) throw new SchemaError(problem, { cause })
  }

  /**
   * Logs a failure and pauses. A database that is away is waited for without a limit.
   *
   * @throws WorkerFailedError if the database has refused all calls of a minute
   */
  async pauseAfter(error: unknown): Promise<void> {
    const { log, signal } = this.#options
    const seconds = retryPause(this.#count++)
    if (isTransient(error) && !(error instanceof SchemaError)) {
      this.#refusedSince = undefined
      log.error('The worker cannot reach its tasks and tries again', { error, seconds })
    } else {
      this.#giveUpIfLong(error)
      log.error('The database refuses the calls of the worker, which tries again', { error, seconds })
    }
    await sleep(seconds, signal)
  }

  #giveUpIfLong(cause: unknown): void {
    this.#refusedSince ??= performance.now()
    if (performance.now() - this.#refusedSince <= longestRefusal * 1000) return
    const reason = `the database refused all its calls for ${longestRefusal} s: ${explain(cause)}`
    const failure = new WorkerFailedError(`The worker stopped: ${reason}`, { cause })
    this.#options.log.error(failure.message, { error: cause })
    throw failure
  }
}
