import { onAbort } from '../shared/abort.ts'

/** Longer timers fire at once. */
const longestTimer = 2 ** 31 - 1

/** Calls back after these seconds; returns what undoes it. */
export function after(seconds: number, callback: () => void): () => void {
  if (seconds === Number.POSITIVE_INFINITY) return () => {}
  const timer = setTimeout(callback, Math.min(seconds * 1000, longestTimer))
  return () => clearTimeout(timer)
}

/** Resolves after these seconds, or as soon as the signal is aborted. */
export function sleep(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const end = () => {
      cancel()
      forget()
      resolve()
    }
    const cancel = after(seconds, end)
    const forget = onAbort(signal, end)
  })
}

/** Lets everything that is ready now run first. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Seconds before the next poll: 20 ms after work, then `growth` times as long each time, up to 1 s. */
export function pollPause(emptyPolls: number, growth = 2): number {
  return Math.min(0.02 * growth ** emptyPolls, 1)
}

/** Seconds before a failed call is repeated: 0.1 s, twice as long each time, up to 5 s; up to half of it less, by chance. */
export function retryPause(failures: number, random = Math.random()): number {
  return Math.min(0.1 * 2 ** failures, 5) * (1 - random / 2)
}

/** So many calls may follow each other at once. */
const burst = 10

/** Lets calls be made at once while they are rare, and one in an interval while they are frequent. */
export class Pace {
  readonly #interval: number
  /** Each call takes an interval's time; when those that were made would be through. */
  #paidUntil = 0

  /** @param seconds the interval */
  constructor(seconds: number) {
    this.#interval = seconds * 1000
  }

  /** When the next call may be made, in milliseconds; it may be over. */
  get due(): number {
    return this.#paidUntil - burst * this.#interval
  }

  /** A call is made. */
  count(): void {
    this.#paidUntil = Math.max(this.#paidUntil, performance.now()) + this.#interval
  }
}

/** Wakes one waiter. A notification that nobody waits for ends the next wait at once. */
export class Notifier {
  #isNotified = false
  #end: (() => void) | undefined

  notify(): void {
    this.#isNotified = true
    this.#end?.()
  }

  /** Resolves at the next notification, or after these seconds; says whether it was notified. */
  async wait(seconds: number): Promise<boolean> {
    if (!this.#isNotified) {
      await new Promise<void>((resolve) => {
        const cancel = after(seconds, resolve)
        this.#end = () => {
          cancel()
          resolve()
        }
      })
    }
    const isNotified = this.#isNotified
    this.#end = undefined
    this.#isNotified = false
    return isNotified
  }
}
