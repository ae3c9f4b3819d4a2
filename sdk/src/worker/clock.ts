import type { Log } from '../flow/context.ts'
import { after, retryPause } from './time.ts'
import type { Transport } from './transport.ts'

/** Seconds between two questions of when something is due, which are part of other calls. */
const interval = 0.5

export interface ClockOptions {
  readonly tick: Transport['tick']
  /** What cannot be done where a tick fails, for the log. */
  readonly task: string
  readonly log: Log
  /** Something was settled, so that there may be tasks. */
  readonly onSettled: () => void
}

/**
 * Ticks when something is due: waits and sleeps, of whatever flow, or functions of SQL steps. Exchanges say when that is, now and then;
 * so does each tick. All workers tick at the same time, and share what is due.
 */
export class Clock {
  readonly #options: ClockOptions
  #askedAt = Number.NEGATIVE_INFINITY
  #isTicking = false
  #isStopped = false
  /** Ticks in a row that have failed, or found only what another transaction holds: the next one waits. */
  #vain = 0
  #notBefore = Number.NEGATIVE_INFINITY
  #cancel: () => void = () => {}

  constructor(options: ClockOptions) {
    this.#options = options
  }

  /**
   * Whether the next exchange has to say when something is due: now and then, and always where nothing else will call soon.
   *
   * @param isUrgent whether the last exchange found nothing to do, or something may be due at once
   */
  ask(isUrgent: boolean): boolean {
    const now = performance.now()
    if (!isUrgent && now - this.#askedAt < interval * 1000) return false
    this.#askedAt = now
    return true
  }

  /** Something is due in these seconds; nothing is, for null. */
  plan(seconds: number | null): void {
    if (this.#isTicking || this.#isStopped) return
    this.#cancel()
    const pause = Math.max(
      seconds ?? Number.POSITIVE_INFINITY,
      (this.#notBefore - performance.now()) / 1000,
      0,
    )
    this.#cancel = after(pause, () => void this.#tick())
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel()
  }

  async #tick(): Promise<void> {
    const { tick, task, log, onSettled } = this.#options
    let next: number | null = 0
    this.#isTicking = true
    try {
      const { settled, next_due_in } = await tick()
      next = next_due_in
      this.#vain = settled > 0 || next === null || next > 0 ? 0 : this.#vain + 1
      if (settled > 0) onSettled()
    } catch (error) {
      this.#vain++
      if (!this.#isStopped) log.warn(`The worker cannot ${task} and tries again`, { error })
    }
    if (this.#vain > 0) this.#notBefore = performance.now() + retryPause(this.#vain - 1) * 1000
    this.#isTicking = false
    this.plan(next)
  }
}
