import { isSchemaFault, isTransient } from './faults.ts'
import { retryPause, sleep } from './time.ts'
import type { Transport, ValueRef } from './transport.ts'

/** A value that many tasks may use. */
export interface SharedValue {
  /** A copy of the task's own. */
  copy(): unknown
  /** The same frozen value for all. */
  frozen(): unknown
}

interface Entry {
  readonly value: Promise<SharedValue>
  size: number
}

export interface ValuesOptions {
  readonly transport: Pick<Transport, 'fetchValue'>
  /** How many bytes of JSON text are kept, about. */
  readonly limit: number
  /** Ends the repetition of calls that fail. */
  readonly signal: AbortSignal
}

/**
 * The large values of a worker's tasks. Each is fetched once, however many tasks ask for it at the same time, and kept
 * until others need its room: the one that was not used for longest goes first.
 */
export class Values {
  readonly #options: ValuesOptions
  /** In the order of their last use. */
  readonly #entries = new Map<string, Entry>()
  #size = 0

  constructor(options: ValuesOptions) {
    this.#options = options
  }

  /** @throws what the database refused for good */
  get(ref: ValueRef): Promise<SharedValue> {
    const key = `${ref.run_id} ${ref.name} ${ref.version}`
    const entry = this.#entries.get(key) ?? { value: this.#load(key, ref), size: 0 }
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    return entry.value
  }

  async #load(key: string, ref: ValueRef): Promise<SharedValue> {
    try {
      const text = await this.#fetch(ref)
      this.#keep(key, text.length)
      return sharedValue(text)
    } catch (error) {
      this.#entries.delete(key)
      throw error
    }
  }

  async #fetch(ref: ValueRef): Promise<string> {
    const { transport, signal } = this.#options
    for (let failures = 0; ; failures++) {
      try {
        return await transport.fetchValue(ref)
      } catch (error) {
        // A schema that does not fit ends the worker, not the attempt.
        const mayPass = isTransient(error) || isSchemaFault(error)
        if (!mayPass || signal.aborted) throw error
        await sleep(retryPause(failures), signal)
      }
    }
  }

  #keep(key: string, size: number): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    entry.size = size
    this.#size += size
    for (const [oldest, { size }] of this.#entries) {
      if (this.#size <= this.#options.limit) return
      this.#size -= size
      if (size > 0) this.#entries.delete(oldest)
    }
  }
}

function sharedValue(text: string): SharedValue {
  let frozen: { readonly value: unknown } | undefined
  return {
    copy: () => JSON.parse(text),
    frozen: () => {
      frozen ??= { value: deeplyFrozen(JSON.parse(text)) }
      return frozen.value
    },
  }
}

function deeplyFrozen(value: unknown): unknown {
  if (typeof value === 'object' && value !== null) {
    for (const part of Object.values(value)) deeplyFrozen(part)
    Object.freeze(value)
  }
  return value
}
