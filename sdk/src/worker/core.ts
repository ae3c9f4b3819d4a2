import type { AnyFlow } from '../flow/definition.ts'
import { Attempt, type Surroundings } from './attempt.ts'
import { LeaseLostError, WorkerStoppedError } from './errors.ts'
import { Settler } from './settler.ts'
import { idOf, keyOf } from './tasks.ts'
import { after, Bell, pollPause, retryPause, sleep, turn } from './time.ts'
import type { ClaimedTask, Transport } from './transport.ts'

const largestClaim = 100

/** Seconds for the last settlement after the grace period. */
const lastCall = 2

export interface CoreOptions extends Surroundings {
  readonly transport: Transport
  readonly flows: readonly AnyFlow[]
  readonly concurrency: number
  /** Seconds. */
  readonly lease: number
}

/**
 * Claims tasks, runs them and settles their results, on any platform.
 *
 * A claimed task holds one of the `concurrency` slots, and its lease is extended, until its result is settled. One loop
 * settles what is ready and then claims for the slots that are free; another one extends the leases.
 */
export class Core {
  readonly #options: CoreOptions
  readonly #flows: ReadonlyMap<string, AnyFlow>
  readonly #held = new Map<string, Attempt>()
  readonly #settler: Settler
  readonly #bell = new Bell()
  /** Aborted when the grace period is over. */
  readonly #deadline = new AbortController()
  /** Aborted when nothing is under way any more. */
  readonly #end = new AbortController()
  #isStopping = false

  constructor(options: CoreOptions) {
    this.#options = options
    this.#flows = new Map(options.flows.map((flow) => [flow.slug, flow]))
    this.#settler = new Settler({ ...options, onDone: (task) => this.#held.delete(idOf(task)) })
  }

  start(): void {
    void this.#work()
    void this.#keepLeases()
  }

  /** Looks for work now: a slot is free, a result is ready, or somebody knows that there are tasks. */
  wake(): void {
    this.#bell.ring()
  }

  /**
   * Claims no more, and resolves when all that was claimed is settled, or when these seconds are over: then what still
   * runs is aborted. A further call can only shorten the wait.
   */
  async stop(gracePeriod: number): Promise<void> {
    this.#isStopping = true
    this.wake()
    const cancel = after(gracePeriod, () => this.#abandon())
    await sleep(Number.POSITIVE_INFINITY, this.#end.signal)
    cancel()
  }

  get #freeSlots(): number {
    return this.#isStopping ? 0 : this.#options.concurrency - this.#held.size
  }

  get #isDrained(): boolean {
    return this.#isStopping && this.#held.size === 0
  }

  async #work(): Promise<void> {
    let failures = 0
    let emptyPolls = 0
    while (!this.#isDrained) {
      await turn()
      try {
        const settled = await this.#settler.flush()
        const claimed = await this.#claim()
        failures = 0
        if (settled + claimed > 0) emptyPolls = 0
        if (claimed > 0 || this.#isDrained) continue
      } catch (error) {
        if (this.#deadline.signal.aborted) break
        await this.#pauseAfter(error, failures++)
        continue
      }
      await this.#bell.wait(this.#freeSlots > 0 ? pollPause(emptyPolls++) : Number.POSITIVE_INFINITY)
    }
    this.#end.abort()
  }

  async #claim(): Promise<number> {
    const quantity = Math.min(this.#freeSlots, largestClaim)
    if (quantity === 0) return 0
    const { transport, workerId, lease } = this.#options
    const flow_slugs = [...this.#flows.keys()]
    const tasks = await transport.claim({ flow_slugs, quantity, worker_id: workerId, lease })
    for (const task of tasks) void this.#run(task)
    return tasks.length
  }

  async #run(task: ClaimedTask): Promise<void> {
    const { workerId, log, resources } = this.#options
    const attempt = new Attempt(task)
    this.#held.set(idOf(task), attempt)
    if (this.#deadline.signal.aborted) attempt.abort(stopped())
    const result = await attempt.run(this.#flows.get(task.flow_slug), { workerId, log, resources })
    if (result) this.#settler.add(result)
    else this.#held.delete(idOf(task))
    this.wake()
  }

  async #pauseAfter(error: unknown, failures: number): Promise<void> {
    const pause = retryPause(failures)
    this.#options.log.error('The worker cannot reach its tasks and tries again', { error, seconds: pause })
    await sleep(pause, this.#deadline.signal)
  }

  async #keepLeases(): Promise<void> {
    const { lease, log } = this.#options
    let failures = 0
    while (true) {
      await sleep(failures === 0 ? lease / 3 : Math.min(retryPause(failures), lease / 3), this.#end.signal)
      if (this.#end.signal.aborted) return
      try {
        await this.#beat()
        failures = 0
      } catch (error) {
        failures++
        if (!this.#end.signal.aborted)
          log.warn('The worker cannot extend its leases and tries again', { error })
      }
    }
  }

  async #beat(): Promise<void> {
    const { transport, workerId, lease } = this.#options
    if (this.#held.size > 0) {
      const tasks = [...this.#held.values()].map(({ task }) => keyOf(task))
      for (const { active, ...task } of await transport.extend(tasks, lease)) {
        if (!active)
          this.#held.get(idOf(task))?.abort(new LeaseLostError('The task is no longer this attempt’s'))
      }
    }
    await transport.heartbeat(workerId)
  }

  #abandon(): void {
    if (this.#deadline.signal.aborted) return
    this.#deadline.abort()
    if (this.#held.size > 0) {
      const tasks = [...this.#held.values()].map(({ task }) => keyOf(task))
      this.#options.log.warn('The grace period is over; what still runs is left to other workers', { tasks })
    }
    for (const attempt of this.#held.values()) attempt.abort(stopped())
    const cancel = after(lastCall, () => this.#end.abort())
    this.#end.signal.addEventListener('abort', cancel)
  }
}

function stopped(): WorkerStoppedError {
  return new WorkerStoppedError('The worker stopped and its grace period is over')
}
