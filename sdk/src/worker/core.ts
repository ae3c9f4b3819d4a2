import type { AnyFlow } from '../flow/definition.ts'
import { Attempt, type Helpers, type Surroundings } from './attempt.ts'
import { CancelledError, LeaseLostError, WorkerStoppedError } from './errors.ts'
import { isLost, isTransient } from './faults.ts'
import { Progress } from './progress.ts'
import { Settler } from './settler.ts'
import { idOf, keyOf } from './tasks.ts'
import { after, Bell, pollPause, retryPause, sleep, turn } from './time.ts'
import type { ClaimedTask, Lease, Result, Transport, Work } from './transport.ts'
import { Values } from './values.ts'

const largestClaim = 100

/** Results that wait for locked runs take no slots, up to this many. */
const mostPostponed = 1000

/** Seconds for the last calls after the grace period. */
const lastCall = 2

/** Seconds between two heartbeats, and so until a handler hears that its run was cancelled. */
const longestBeat = 5

export interface CoreOptions extends Surroundings {
  readonly transport: Transport
  readonly flows: readonly AnyFlow[]
  readonly concurrency: number
  /** Seconds. */
  readonly lease: number
  readonly settleBatch: number
  readonly settleDelayMs: number
  /** Bytes. */
  readonly inlineLimit: number
  /** Bytes. */
  readonly cacheLimit: number
}

/**
 * Claims tasks, runs them and settles their results, on any platform.
 *
 * A claimed task holds one of the `concurrency` slots, and its lease is extended, until its result is settled. A result
 * whose run is locked is sent again later: it keeps its lease, and frees its slot. One loop settles what is ready and
 * claims for the slots that get free, in one call; another one extends the leases.
 */
export class Core {
  readonly #options: CoreOptions
  readonly #flows: ReadonlyMap<string, AnyFlow>
  readonly #held = new Map<string, Attempt>()
  readonly #settler: Settler
  readonly #progress: Progress
  readonly #helpers: Helpers
  readonly #bell = new Bell()
  /** Aborted when the grace period is over. */
  readonly #deadline = new AbortController()
  /** Aborted when nothing is under way any more. */
  readonly #end = new AbortController()
  #isStopping = false
  #isListening = false
  #emptyPolls = 0
  /** Milliseconds. */
  #nextPoll = 0

  constructor(options: CoreOptions) {
    this.#options = options
    this.#flows = new Map(options.flows.map((flow) => [flow.slug, flow]))
    this.#progress = new Progress(options)
    const values = new Values({ ...options, limit: options.cacheLimit, signal: this.#deadline.signal })
    this.#helpers = { ...surroundingsOf(options), values, progress: this.#progress }
    this.#settler = new Settler({
      ...options,
      settle: (results) => this.#call(results, 0),
      onDone: (task) => this.#held.delete(idOf(task)),
    })
  }

  start(): void {
    void this.#listen()
    void this.#work()
    void this.#keepLeases()
  }

  /** Looks for work now: somebody knows that there are tasks. */
  wake(): void {
    this.#nextPoll = 0
    this.#bell.ring()
  }

  /**
   * Claims no more, and resolves when all that was claimed is settled, or when these seconds are over: then what still
   * runs is aborted and handed back. A further call can only shorten the wait.
   */
  async stop(gracePeriod: number): Promise<void> {
    this.#isStopping = true
    this.#bell.ring()
    const cancel = after(this.#held.size === 0 ? 0 : gracePeriod, () => this.#abandon())
    await sleep(Number.POSITIVE_INFINITY, this.#end.signal)
    cancel()
  }

  get #freeSlots(): number {
    const busy = this.#held.size - Math.min(this.#settler.postponed, mostPostponed)
    return this.#isStopping ? 0 : this.#options.concurrency - busy
  }

  get #isDrained(): boolean {
    return this.#isStopping && this.#held.size === 0
  }

  async #listen(): Promise<void> {
    const { transport, log } = this.#options
    try {
      this.#isListening =
        (await transport.listen?.((flow_slug) => {
          if (flow_slug === undefined || this.#flows.has(flow_slug)) this.wake()
        })) ?? false
    } catch (error) {
      if (!this.#isStopping) log.warn('The worker cannot listen for tasks and polls instead', { error })
    }
  }

  async #work(): Promise<void> {
    let failures = 0
    while (!this.#isDrained) {
      await turn()
      const pause = this.#pause()
      if (pause > 0) {
        await this.#bell.wait(pause)
        continue
      }
      try {
        await this.#exchange()
        failures = 0
      } catch (error) {
        if (this.#deadline.signal.aborted) break
        await this.#pauseAfter(error, failures++)
      }
    }
    this.#progress.close()
    this.#end.abort()
  }

  /** Seconds until there is something to settle or to look for. */
  #pause(): number {
    const poll = this.#freeSlots > 0 ? (this.#nextPoll - performance.now()) / 1000 : Number.POSITIVE_INFINITY
    return Math.min(poll, this.#settler.dueIn(this.#held.size > this.#settler.size))
  }

  /** Settles a batch, and claims for the slots that it frees and those that are free already. */
  async #exchange(): Promise<void> {
    const results = this.#settler.nextBatch()
    const freed = results.filter((result) => !this.#settler.isPostponed(result)).length
    const quantity = this.#isStopping ? 0 : Math.max(0, Math.min(this.#freeSlots + freed, largestClaim))
    try {
      const work = await this.#call(results, quantity)
      this.#settler.settled(results, work)
      this.#take(work.tasks)
      this.#planPoll(results.length - work.held.length, work.tasks.length, quantity)
    } catch (error) {
      if (results.length === 0 || (isTransient(error) && !isLost(error))) throw error
      // Whatever was refused, the results or the claim: the others are settled.
      await this.#settler.settle(results)
    }
  }

  #call(results: readonly Result[], quantity: number): Promise<Work> {
    const { transport, workerId, lease, inlineLimit } = this.#options
    return transport.settleAndClaim({
      results,
      flow_slugs: [...this.#flows.keys()],
      quantity,
      worker_id: workerId,
      lease,
      inline_limit: inlineLimit,
      // Not at the first empty poll, since a busy worker has many of those.
      waiting: this.#isListening && quantity > 0 && this.#emptyPolls > 0,
    })
  }

  #planPoll(settled: number, claimed: number, quantity: number): void {
    if (quantity === 0) return
    this.#emptyPolls = settled + claimed > 0 ? 0 : this.#emptyPolls + 1
    const pause = claimed === quantity ? 0 : pollPause(Math.max(0, this.#emptyPolls - 1))
    this.#nextPoll = performance.now() + pause * 1000
  }

  #take(tasks: readonly ClaimedTask[]): void {
    const attempts = tasks.map((task) => new Attempt(task, this.#helpers))
    for (const attempt of attempts) this.#held.set(idOf(attempt.task), attempt)
    if (this.#isStopping) void this.#handBack(attempts)
    else for (const attempt of attempts) void this.#run(attempt)
  }

  async #run(attempt: Attempt): Promise<void> {
    const result = await attempt.run(this.#flows.get(attempt.task.flow_slug))
    if (result) this.#settler.add(result)
    else if (!attempt.isGivenBack) this.#held.delete(idOf(attempt.task))
    this.#bell.ring()
  }

  async #pauseAfter(error: unknown, failures: number): Promise<void> {
    const pause = retryPause(failures)
    this.#options.log.error('The worker cannot reach its tasks and tries again', { error, seconds: pause })
    await sleep(pause, this.#deadline.signal)
  }

  async #keepLeases(): Promise<void> {
    const { lease, log } = this.#options
    const pause = Math.min(lease / 3, longestBeat)
    let failures = 0
    while (true) {
      await sleep(failures === 0 ? pause : Math.min(retryPause(failures), pause), this.#end.signal)
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

  /** An idle worker's polls show that it is alive. */
  async #beat(): Promise<void> {
    const { transport, workerId, lease } = this.#options
    if (this.#held.size === 0) return
    const tasks = [...this.#held.values()].map(({ task }) => keyOf(task))
    for (const task of await transport.heartbeat(workerId, tasks, lease)) {
      if (!task.active) this.#held.get(idOf(task))?.abort(reasonOf(task))
    }
  }

  #abandon(): void {
    if (this.#deadline.signal.aborted) return
    this.#deadline.abort()
    const cancel = after(lastCall, () => this.#end.abort())
    this.#end.signal.addEventListener('abort', cancel)
    const running = [...this.#held.values()].filter((attempt) => attempt.isRunning)
    if (running.length === 0) return
    const tasks = running.map(({ task }) => keyOf(task))
    this.#options.log.warn('The grace period is over; what still runs is handed back', { tasks })
    for (const attempt of running) {
      attempt.abort(new WorkerStoppedError('The worker stopped and its grace period is over'))
    }
    void this.#handBack(running)
  }

  /** Others may run them at once. */
  async #handBack(attempts: readonly Attempt[]): Promise<void> {
    try {
      await this.#options.transport.handBack(attempts.map(({ task }) => keyOf(task)))
    } catch (error) {
      this.#options.log.warn('Tasks cannot be handed back; they are run again when their leases are over', {
        error,
      })
    }
    for (const { task } of attempts) this.#held.delete(idOf(task))
    this.#bell.ring()
  }
}

function surroundingsOf({ workerId, log, resources }: CoreOptions): Surroundings {
  return { workerId, log, resources }
}

function reasonOf({ status }: Lease): CancelledError | LeaseLostError {
  return status === null || status === 'queued'
    ? new LeaseLostError('Another attempt has the task')
    : new CancelledError(`The task is ${status}: nobody needs its result`)
}
