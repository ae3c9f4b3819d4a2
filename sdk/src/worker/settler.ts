import type { Log } from '../flow/context.ts'
import { explain, isTransient } from './faults.ts'
import { idOf, keyOf, sizeOf } from './tasks.ts'
import { pollPause } from './time.ts'
import type { FailedResult, Result, TaskKey, Work } from './transport.ts'

const mostCharacters = 8_000_000

export interface SettlerOptions {
  /** Results in one batch at most. */
  readonly settleBatch: number
  /** Seconds that a result waits for others at most. */
  readonly settleDelay: number
  /** A quarter of the slots is not kept waiting. */
  readonly concurrency: number
  /** Settles a batch and nothing else. */
  readonly settle: (results: readonly Result[]) => Promise<Settlement>
  readonly log: Log
  /** The attempt needs no lease any more: it is settled, stale or given up. */
  readonly onDone: (task: TaskKey) => void
}

/** Which results of a batch are not settled. */
export type Settlement = Pick<Work, 'stale' | 'held'>

/** When a result whose run is locked is sent again, in milliseconds, and how often it was sent. */
interface Delay {
  readonly until: number
  readonly times: number
}

/** Keeps results until the database has them. */
export class Settler {
  readonly #options: SettlerOptions
  readonly #results = new Set<Result>()
  /** Those whose runs somebody else has locked: they are sent again, and nothing waits for them. */
  readonly #postponed = new Map<Result, Delay>()
  /** Those that stand for a result which the database refused. */
  readonly #substitutes = new WeakSet<Result>()
  /** When the oldest result came, in milliseconds. */
  #since = 0

  constructor(options: SettlerOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#results.size + this.#postponed.size
  }

  /** How many results wait for a locked run. */
  get postponed(): number {
    return this.#postponed.size
  }

  isPostponed(result: Result): boolean {
    return this.#postponed.has(result)
  }

  add(result: Result): void {
    if (this.#results.size === 0) this.#since = performance.now()
    this.#results.add(result)
  }

  /** Seconds until there is a batch to settle, if no result comes before. @param mayCome whether one may */
  dueIn(mayCome: boolean): number {
    const { settleBatch, settleDelay, concurrency } = this.#options
    let due = Math.min(...[...this.#postponed.values()].map(({ until }) => until))
    if (this.#results.size > 0) {
      if (!mayCome || this.#results.size >= Math.min(settleBatch, concurrency / 4)) return 0
      due = Math.min(due, this.#since + settleDelay * 1000)
    }
    return Math.max(0, due - performance.now()) / 1000
  }

  nextBatch(): Result[] {
    const now = performance.now()
    const due = [...this.#postponed].flatMap(([result, { until }]) => (until <= now ? [result] : []))
    const batch: Result[] = []
    let characters = 0
    for (const result of [...due.slice(0, Math.ceil(this.#options.settleBatch / 2)), ...this.#results]) {
      characters += sizeOf(result)
      if (batch.length === this.#options.settleBatch || (batch.length > 0 && characters > mostCharacters))
        break
      batch.push(result)
    }
    return batch
  }

  settled(batch: readonly Result[], { stale, held }: Settlement): void {
    for (const task of stale) this.#options.log.info('A result came too late and was ignored', task)
    const ids = new Set(held.map(idOf))
    for (const result of batch) {
      if (ids.has(idOf(result))) this.#postpone(result)
      else this.#done(result)
    }
  }

  #postpone(result: Result): void {
    const times = (this.#postponed.get(result)?.times ?? 0) + 1
    // By chance, since several workers may settle tasks of one run.
    const pause = pollPause(times - 1) * (0.5 + Math.random() / 2)
    this.#results.delete(result)
    this.#postponed.set(result, { until: performance.now() + pause * 1000, times })
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
    this.#remove(result)
    this.#results.add(substitute)
  }

  #done(result: Result): void {
    this.#remove(result)
    this.#options.onDone(keyOf(result))
  }

  #remove(result: Result): void {
    this.#results.delete(result)
    this.#postponed.delete(result)
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
