import type { Log } from '../flow/context.ts'
import { type LeaseThread, threadTime } from './lease-thread.ts'
import { keyOf } from './tasks.ts'
import { retryPause, sleep } from './time.ts'
import type { ClaimedTask, Lease, Transport } from './transport.ts'

/** Seconds between two heartbeats, and so until a handler is told that its run was cancelled. */
const longestPause = 5

export interface LeasesOptions {
  readonly transport: Pick<Transport, 'heartbeat'>
  readonly workerId: string
  /** Seconds. */
  readonly lease: number
  readonly log: Log
  /** Extends the leases while the event loop is blocked. */
  readonly thread: Pick<LeaseThread, 'works' | 'add' | 'replace' | 'clear'> | undefined
  /** What the worker holds at the moment. */
  readonly held: () => ClaimedTask[]
  /** The task is no longer this attempt's. */
  readonly onLost: (task: Lease) => void
}

/** Extends the leases of what the worker holds, until it ends. An idle worker's polls show that it is alive. */
export class Leases {
  readonly #options: LeasesOptions
  /** When all leases were last extended, by `threadTime`. */
  #extendedAt = 0

  constructor(options: LeasesOptions) {
    this.#options = options
  }

  /** These tasks were claimed, with fresh leases; the worker holds them from now on. */
  claimed(tasks: readonly ClaimedTask[]): void {
    const { thread, held } = this.#options
    if (thread === undefined || tasks.length === 0) return
    const all = held()
    if (all.length === tasks.length) this.#extendedAt = threadTime()
    thread.add(tasks, all, this.#extendedAt)
  }

  async keepUntil(end: AbortSignal): Promise<void> {
    const { lease, log } = this.#options
    const pause = Math.min(lease / 3, longestPause)
    let failures = 0
    while (true) {
      await sleep(failures === 0 ? pause : Math.min(retryPause(failures), pause), end)
      if (end.aborted) return
      try {
        await this.#extend()
        failures = 0
      } catch (error) {
        failures++
        if (!end.aborted) log.warn('The worker cannot extend its leases and tries again', { error })
      }
    }
  }

  async #extend(): Promise<void> {
    const { transport, workerId, lease, thread, held, onLost } = this.#options
    const tasks = held().map(keyOf)
    if (tasks.length === 0) return thread?.clear()
    const leases = await transport.heartbeat(workerId, tasks, lease)
    if (thread !== undefined) {
      this.#extendedAt = threadTime()
      thread.replace(held(), this.#extendedAt)
    }
    for (const task of leases) if (!task.active) onLost(task)
  }
}
