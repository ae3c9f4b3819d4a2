import type { Log } from '../flow/context.ts'
import { explain, isTransient } from './faults.ts'
import { keyOf, sizeOf } from './tasks.ts'
import type { FailedResult, Result, TaskKey, Transport } from './transport.ts'

const mostResults = 100
const mostCharacters = 8_000_000

export interface SettlerOptions {
  readonly transport: Pick<Transport, 'settle'>
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

  constructor(options: SettlerOptions) {
    this.#options = options
  }

  add(result: Result): void {
    this.#results.add(result)
  }

  /**
   * Settles what there is, and what comes meanwhile, in small batches.
   *
   * @returns how many results the database took
   * @throws what a call threw that may succeed later; its results are kept
   */
  async flush(): Promise<number> {
    let taken = 0
    while (this.#results.size > 0) taken += await this.#settle(this.#nextBatch())
    return taken
  }

  #nextBatch(): Result[] {
    const batch: Result[] = []
    let characters = 0
    for (const result of this.#results) {
      characters += sizeOf(result)
      if (batch.length > 0 && (batch.length === mostResults || characters > mostCharacters)) break
      batch.push(result)
    }
    return batch
  }

  async #settle(batch: readonly Result[]): Promise<number> {
    try {
      const settlements = await this.#options.transport.settle(batch)
      for (const { applied, ...task } of settlements) {
        if (!applied) this.#options.log.info('A result came too late and was ignored', task)
      }
    } catch (error) {
      if (isTransient(error)) throw error
      return this.#isolate(batch, error)
    }
    for (const result of batch) this.#done(result)
    return batch.length
  }

  /** Finds the result which the database refuses, so that the others are settled. */
  async #isolate(batch: readonly Result[], error: unknown): Promise<number> {
    const [first] = batch
    if (batch.length === 1 && first !== undefined) return this.#refused(first, error)
    const middle = batch.length >> 1
    return (await this.#settle(batch.slice(0, middle))) + (await this.#settle(batch.slice(middle)))
  }

  async #refused(result: Result, error: unknown): Promise<number> {
    const data = { ...keyOf(result), error }
    if (this.#substitutes.has(result)) {
      this.#options.log.error(
        'A result cannot be settled; its task is run again when the lease is over',
        data,
      )
      this.#done(result)
      return 0
    }
    this.#options.log.warn('The database refused a result; it is settled as a failed attempt', data)
    const substitute = substituteFor(result, error)
    this.#substitutes.add(substitute)
    this.#results.delete(result)
    this.#results.add(substitute)
    return 0
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
