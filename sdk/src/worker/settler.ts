import type { Log } from '../flow/context.ts'
import { explain, isTransient } from './faults.ts'
import { idOf, keyOf, sizeOf } from './tasks.ts'
import { Pace, pollPause } from './time.ts'
import type { FailedResult, Result, TaskKey, Work } from './transport.ts'

const mostCharacters = 8_000_000

export interface SettlerOptions {
  /** Results in one batch at most. */
  readonly settleBatch: number
  /** Seconds that a result waits for others at most, if batches are frequent. */
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
  /** Those that are being settled at the moment. */
  readonly #sent = new Set<Result>()
  /** Those whose runs somebody else has locked: they are sent again, and nothing waits for them. */
  readonly #postponed = new Map<Result, Delay>()
  /** Those that stand for a result which the database refused. */
  readonly #substitutes = new WeakSet<Result>()
  /** When the oldest result came that is not sent, in milliseconds, about. */
  #since = 0
  readonly #pace: Pace

  constructor(options: SettlerOptions) {
    this.#options = options
    this.#pace = new Pace(options.settleDelay)
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
    if (this.#results.size <= this.#sent.size) this.#since = performance.now()
    this.#results.add(result)
  }

  /** How many results could be sent now: not those that are being settled, nor others of the same runs. */
  get ready(): number {
    if (this.#sent.size === 0) return this.#results.size
    return this.#unsent(this.#results).length
  }

  /** Seconds until there is a batch to settle, if no result comes before. @param mayCome whether one may */
  dueIn(mayCome: boolean): number {
    const { settleBatch, settleDelay, concurrency } = this.#options
    const { ready } = this
    let due = Math.min(...this.#unsent(this.#postponed.keys()).map((result) => this.#untilOf(result)))
    if (ready > 0) {
      if (!mayCome || ready >= Math.min(settleBatch, concurrency / 4)) return 0
      due = Math.min(due, this.#since + settleDelay * 1000, this.#pace.due)
    }
    return Math.max(0, due - performance.now()) / 1000
  }

  /** Takes results: no other batch has them, or others of their runs, until these are settled or released. */
  nextBatch(): Result[] {
    const now = performance.now()
    const { settleBatch } = this.#options
    const due = this.#unsent(this.#postponed.keys()).filter((result) => this.#untilOf(result) <= now)
    const batch: Result[] = []
    let characters = 0
    for (const result of [...due.slice(0, Math.ceil(settleBatch / 2)), ...this.#unsent(this.#results)]) {
      characters += sizeOf(result)
      if (batch.length === settleBatch || (batch.length > 0 && characters > mostCharacters)) break
      batch.push(result)
    }
    for (const result of batch) this.#sent.add(result)
    if (batch.length > 0) this.#pace.count()
    return batch
  }

  /** Nobody settles these any more: what is left of them may be sent again. */
  release(batch: readonly Result[]): void {
    for (const result of batch) this.#sent.delete(result)
  }

  #untilOf(result: Result): number {
    return this.#postponed.get(result)?.until ?? 0
  }

  /** Two calls that settle tasks of one run would hinder each other. */
  #unsent(results: Iterable<Result>): Result[] {
    if (this.#sent.size === 0) return [...results]
    const runs = new Set([...this.#sent].map(({ run_id }) => run_id))
    return [...results].filter(({ run_id }) => !runs.has(run_id))
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
