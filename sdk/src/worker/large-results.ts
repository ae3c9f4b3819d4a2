import type { Log } from '../flow/context.ts'
import type { Settler } from './settler.ts'
import { sizeOf } from './tasks.ts'
import { retryPause, sleep } from './time.ts'
import type { Result } from './transport.ts'

/** Characters of a result that is settled apart from others. */
const large = 1_000_000

export function isLarge(result: Result): boolean {
  return sizeOf(result) > large
}

export interface LargeResultsOptions {
  /** For large results alone. */
  readonly settler: Settler
  readonly log: Log
  /** Ends the repetition of calls that fail. */
  readonly signal: AbortSignal
}

/** Settles large results one after the other, beside the calls for all others, which do not wait for them. */
export class LargeResults {
  readonly #options: LargeResultsOptions
  #isSettling = false

  constructor(options: LargeResultsOptions) {
    this.#options = options
  }

  add(result: Result): void {
    this.#options.settler.add(result)
    if (!this.#isSettling) void this.#settleAll()
  }

  async #settleAll(): Promise<void> {
    const { settler, log, signal } = this.#options
    this.#isSettling = true
    let failures = 0
    while (settler.size > 0 && !signal.aborted) {
      // One whose run somebody else holds is sent again later.
      await sleep(settler.dueIn(false), signal)
      const batch = settler.nextBatch()
      try {
        await settler.settle(batch)
        failures = 0
      } catch (error) {
        const seconds = retryPause(failures++)
        log.error('A large result cannot be settled and is sent again', { error, seconds })
        await sleep(seconds, signal)
      } finally {
        settler.release(batch)
      }
    }
    this.#isSettling = false
  }
}
