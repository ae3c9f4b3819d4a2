import { NotJsonError } from '../flow/errors.ts'
import { toJson } from '../flow/json.ts'
import type { Json } from '../flow/json-types.ts'
import type { LeaseLostError } from './errors.ts'
import { explain, isSchemaFault, isTransient } from './faults.ts'
import { lostLease } from './lost-lease.ts'
import { keyOf } from './tasks.ts'
import { retryPause, sleep } from './time.ts'
import type { TaskKey, Transport } from './transport.ts'

/** Bytes of JSON. */
const largest = 1_048_576

const longestName = 255

export interface KeptResultsOptions {
  readonly task: TaskKey
  readonly transport: Pick<Transport, 'keepResult' | 'keptResultsOf'>
  /** Ends the repetition of calls that fail. */
  readonly signal: AbortSignal
  /** The attempt is not the task's current one any more. */
  readonly onLost: (reason: LeaseLostError) => void
}

/** The results that the attempts of a task keep: `context.once`. */
export class KeptResults {
  readonly #options: KeptResultsOptions
  readonly #calls = new Map<string, Promise<Json>>()
  /** What earlier attempts have kept; it is read once. */
  #earlier: Promise<ReadonlyMap<string, Json>> | undefined

  constructor(options: KeptResultsOptions) {
    this.#options = options
  }

  async once(name: string, call: () => unknown): Promise<Json> {
    checkName(name)
    const known = this.#calls.get(name)
    if (known !== undefined) return known
    const result = this.#result(name, call)
    this.#calls.set(name, result)
    // What has failed may be tried again.
    result.catch(() => this.#calls.delete(name))
    return result
  }

  async #result(name: string, call: () => unknown): Promise<Json> {
    const { task, transport, signal } = this.#options
    signal.throwIfAborted()
    if (task.attempt > 1) {
      const earlier = await this.#readEarlier()
      const kept = earlier.get(name)
      if (kept !== undefined) return kept
    }
    const valueJson = jsonOf(name, await call())
    return this.#persist(`cannot keep the result "${name}"`, () =>
      transport.keepResult({ ...keyOf(task), name, valueJson }),
    )
  }

  async #readEarlier(): Promise<ReadonlyMap<string, Json>> {
    const { task, transport } = this.#options
    this.#earlier ??= this.#persist('cannot read what was kept', async () => {
      return new Map(Object.entries(await transport.keptResultsOf(task)))
    })
    try {
      return await this.#earlier
    } catch (error) {
      this.#earlier = undefined
      throw error
    }
  }

  /** Repeats what may succeed later: what the function did has been paid for. */
  async #persist<Answer>(what: string, ask: () => Promise<Answer>): Promise<Answer> {
    const { signal, onLost } = this.#options
    for (let failures = 0; ; failures++) {
      signal.throwIfAborted()
      try {
        return await ask()
      } catch (error) {
        const lost = lostLease(error)
        if (lost !== undefined) {
          onLost(lost)
          throw lost
        }
        // A schema that does not fit ends the worker, not the attempt.
        if (!isTransient(error) && !isSchemaFault(error)) {
          throw new Error(`context.once ${what}: ${explain(error)}`, { cause: error })
        }
        await sleep(retryPause(failures), signal)
      }
    }
  }
}

function checkName(name: unknown): void {
  const isFit = typeof name === 'string' && name.length > 0 && [...name].length <= longestName
  if (!isFit || !/^[^\0\p{Surrogate}]+$/u.test(name)) {
    throw new TypeError(
      `context.once got ${typeof name === 'string' ? JSON.stringify(name.slice(0, 50)) : `a ${typeof name}`} as a name: give it a text of 1 to ${longestName} characters`,
    )
  }
}

function jsonOf(name: string, value: unknown): string {
  const json = toNamedJson(name, value)
  const bytes = json.length * 3 > largest ? new TextEncoder().encode(json).length : 0
  if (bytes <= largest) return json
  throw new RangeError(
    `context.once got ${bytes} bytes of JSON for "${name}": it keeps ${largest} at most. Store it elsewhere, for instance in Supabase Storage, and keep where it is`,
  )
}

function toNamedJson(name: string, value: unknown): string {
  try {
    return toJson(value)
  } catch (error) {
    if (!(error instanceof NotJsonError)) throw error
    throw new NotJsonError(
      error.path,
      `${error.message.slice(error.path.length + 1)} (in context.once("${name}"))`,
      {
        cause: error.cause,
      },
    )
  }
}
