import type { Log } from '../flow/context.ts'
import { explain, isTransient } from './faults.ts'
import { keyOf, sizeOf } from './tasks.ts'
import type { FailedResult, Result, TaskKey } from './transport.ts'

const mostCharacters = 8_000_000

export interface SettlerOptions {
  /** Results in one batch at most. */
  readonly settleBatch: number
  /** Seconds that a result waits for others at most. */
  readonly settleDelay: number
  /** A quarter of the slots is not kept waiting. */
  readonly concurrency: number
  /** Settles a batch and nothing else; answers with those that came too late. */
  readonly settle: (results: readonly Result[]) => Promise<readonly TaskKey[]>
  readonly log: Log
  /** The attempt needs no lease any more: it is settled, stale or given up. */
  readonly onDone: (task: TaskKey) => void
}

/** Keeps results until the database has them. */
export class Settler {
  readonly #options: SettlerOptions
  readonly #results = new Set<Result>()
  /** Those that stand for a result which the database refused. */
  readonly #substitutes = new WeakSet<Result>()
  /** When the oldest result came, in milliseconds. */
  #since = 0

  constructor(options: SettlerOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#results.size
  }

  add(result: Result): void {
    if (this.#results.size === 0) this.#since = performance.now()
    this.#results.add(result)
  }

  /** Seconds until there is a batch to settle, if no result comes before. @param mayCome whether one may */
  dueIn(mayCome: boolean): number {
    const { settleBatch, settleDelay, concurrency } = this.#options
    if (this.#results.size === 0) return Number.POSITIVE_INFINITY
    if (!mayCome || this.#results.size >= Math.min(settleBatch, concurrency / 4)) return 0
    return Math.max(0, settleDelay - (performance.now() - this.#since) / 1000)
  }

  nextBatch(): Result[] {
    const batch: Result[] = []
    let characters = 0
    for (const result of this.#results) {
      characters += sizeOf(result)
      if (batch.length === this.#options.settleBatch || (batch.length > 0 && characters > mostCharacters))
        break
      batch.push(result)
    }
    return batch
  }

  settled(batch: readonly Result[], stale: readonly TaskKey[]): void {
    for (const task of stale) this.#options.log.info('A result came too late and was ignored', task)
    for (const result of batch) this.#done(result)
  }

  /**
   * Settles a batch, or all of it but the result which the database refuses: that one becomes a failed attempt.
   *
   * @throws what a call threw that may succeed later; its results are kept
   */
  async settle(batch: readonly Result[]): Promise<void> {
    const [first] = batch
    try {
      this.settled(batch, await this.#options.settle(batch))
    } catch (error) {
      if (first === undefined || isTransient(error)) throw error
      if (batch.length === 1) {
        this.#refused(first, error)
        return
      }
      const middle = batch.length >> 1
      await this.settle(batch.slice(0, middle))
      await this.settle(batch.slice(middle))
    }
  }

  #refused(result: Result, error: unknown): void {
    const data = { ...keyOf(result), error }
    if (this.#substitutes.has(result)) {
      this.#options.log.error(
        'A result cannot be settled; its task is run again when the lease is over',
        data,
      )
      this.#done(result)
      return
    }
    this.#options.log.warn('The database refused a result; it is settled as a failed attempt', data)
    const substitute = substituteFor(result, error)
    this.#substitutes.add(substitute)
    this.#results.delete(result)
    this.#results.add(substitute)
  }

  #done(result: Result): void {
    this.#results.delete(result)
    this.#options.onDone(keyOf(result))
  }
}

function substituteFor(result: Result, error: unknown): FailedResult {
  const isFailure = 'error' in result
  const refused = isFailure ? 'error' : 'output'
  return {
    ...keyOf(result),
    error: `step "${result.step_slug}" failed: the database refused its ${refused}: ${explain(error)}`,
    ...(isFailure && result.permanent && { permanent: true }),
  }
}
