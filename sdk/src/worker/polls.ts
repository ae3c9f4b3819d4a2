import { Pace, pollPause } from './time.ts'

/** A worker that is not notified polls again after a seventh of the time since its last task, up to a second. */
const growthWithoutNotifications = 1.15

/** Decides when a worker looks for tasks: at once where there may be more, when it is woken, else after growing pauses. */
export class Polls {
  /** Every settlement of other workers may wake this one. */
  readonly #pace: Pace
  /** How many found nothing, since one did. */
  #empty = 0
  #mayHaveMore = false
  /** Whether somebody said that there are tasks since the last poll began. */
  #isWoken = false
  /** Milliseconds. */
  #next = 0

  /** @param interval seconds between polls for which the worker is woken, once they are frequent */
  constructor(interval: number) {
    this.#pace = new Pace(interval)
  }

  /** Whether the last one got all that it asked for, so that there may be more. */
  get mayHaveMore(): boolean {
    return this.#mayHaveMore
  }

  /** Whether the worker is idle; a busy one has many single polls that find nothing. */
  get areEmpty(): boolean {
    return this.#empty > 0
  }

  /** Seconds until the next one. */
  get dueIn(): number {
    return (this.#next - performance.now()) / 1000
  }

  /** Somebody knows that there are tasks. */
  wake(): void {
    this.#next = Math.min(this.#next, this.#pace.due)
    this.#isWoken = true
  }

  /** @param isAlone whether the call has no results to settle */
  began(isAlone: boolean): void {
    this.#isWoken = false
    if (isAlone) this.#pace.count()
  }

  ended({ settled, claimed, quantity }: PollResult, isNotified: boolean): void {
    this.#empty = settled + claimed > 0 ? 0 : this.#empty + 1
    this.#mayHaveMore = claimed === quantity
    const growth = isNotified ? undefined : growthWithoutNotifications
    const pause = this.#mayHaveMore ? 0 : pollPause(Math.max(0, this.#empty - 1), growth)
    const next = performance.now() + pause * 1000
    this.#next = this.#isWoken ? Math.min(next, this.#pace.due) : next
  }
}

/** What a call did that claimed `quantity` tasks at most. */
export interface PollResult {
  readonly settled: number
  readonly claimed: number
  readonly quantity: number
}
