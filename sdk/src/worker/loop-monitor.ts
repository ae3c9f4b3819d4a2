import { after } from './time.ts'

/** Milliseconds between two looks at the event loop. */
const interval = 100

/** Milliseconds; timers are late by less than that without anything being wrong. */
const shortestBlock = 100

/** Seconds; shorter blocks are not reported. */
const shortestReport = 1

/** Measures how long the event loop was blocked: by a handler that computes without a pause, for instance. */
export class LoopMonitor {
  readonly #onBlock: (seconds: number) => void
  #cancel: (() => void) | undefined
  /** Milliseconds. */
  #lastLook = 0
  #lost = 0

  /** @param onBlock called after a block of a second or more */
  constructor(onBlock: (seconds: number) => void) {
    this.#onBlock = onBlock
  }

  start(): void {
    if (this.#cancel !== undefined) return
    this.#lastLook = performance.now()
    this.#plan()
  }

  stop(): void {
    this.#cancel?.()
    this.#cancel = undefined
  }

  /**
   * Calls back after seconds in which the loop was running: a timer that is late because of somebody else's block gets
   * the length of that block in addition.
   *
   * @returns what undoes it
   */
  after(seconds: number, callback: () => void): () => void {
    const lost = this.#look()
    let cancel = after(seconds, () => {
      const missing = this.#look() - lost
      if (missing > 0) cancel = this.after(missing / 1000, callback)
      else callback()
    })
    return () => cancel()
  }

  #plan(): void {
    this.#cancel = after(interval / 1000, () => {
      this.#look()
      this.#plan()
    })
  }

  /** @returns milliseconds for which the loop was blocked so far */
  #look(): number {
    if (this.#cancel === undefined) return this.#lost
    const since = performance.now() - this.#lastLook
    this.#lastLook += since
    if (since > interval + shortestBlock) {
      this.#lost += since
      if (since >= shortestReport * 1000) this.#onBlock(since / 1000)
    }
    return this.#lost
  }
}
