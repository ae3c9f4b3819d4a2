import type { AnyFlow } from '../flow/definition.ts'
import { Attempt, type AttemptOptions, type WorkerContext } from './attempt.ts'
import { Batches } from './batches.ts'
import { Clock } from './clock.ts'
import { CancelledError, LeaseLostError, WorkerStoppedError } from './errors.ts'
import { Failures } from './failures.ts'
import { isMissingQueue, isSchemaFault, isTransient } from './faults.ts'
import { isLarge, LargeResults } from './large-results.ts'
import { Leases, type LeasesOptions } from './leases.ts'
import { LoopMonitor } from './loop-monitor.ts'
import { Polls } from './polls.ts'
import { Progress } from './progress.ts'
import { type Settlement, Settler } from './settler.ts'
import { idOf, keyOf } from './tasks.ts'
import { after, Notifier, sleep, turn } from './time.ts'
import type { ClaimedTask, Lease, Result, TaskKey, Transport, Work, WorkRequest } from './transport.ts'
import { Values } from './values.ts'

const largestClaim = 100

/** So many results, or free slots, are worth an exchange beside another one. */
const smallestShare = 20

/** Results that wait for locked runs take no slots, up to this many. */
const mostPostponed = 1000

/** Seconds for the last calls after the grace period. */
const lastCall = 2

export interface CoreOptions extends WorkerContext {
  readonly transport: Transport
  readonly flows: readonly AnyFlow[]
  readonly concurrency: number
  /** Seconds. */
  readonly lease: number
  readonly settleBatch: number
  /** Seconds. */
  readonly settleDelay: number
  /** Bytes. */
  readonly inlineLimit: number
  /** Bytes. */
  readonly cacheLimit: number
  /** Bytes. */
  readonly outputLimit: number
  /** Extends the leases while the event loop is blocked. */
  readonly thread: LeasesOptions['thread']
}

/**
 * Claims tasks, runs them and settles their results, on any platform.
 *
 * A claimed task holds one of the `concurrency` slots, and its lease is extended, until its result is settled. A result
 * whose run is locked is sent again later: it keeps its lease, and frees its slot. An exchange settles what is ready and
 * claims for the slots that get free, in one call; a second one goes on beside it while there is enough to do. Another loop
 * extends the leases.
 */
export class Core {
  readonly #options: CoreOptions
  readonly #flows: ReadonlyMap<string, AnyFlow>
  readonly #held = new Map<string, Attempt>()
  readonly #settler: Settler
  readonly #large: LargeResults
  readonly #failures: Failures
  readonly #leases: Leases
  readonly #clock: Clock
  /** Of the functions of SQL steps, each of which takes its time. */
  readonly #calls: Clock
  /** Whether one of its flows has SQL steps: what it settles may make one due. */
  readonly #hasCalls: boolean
  readonly #loop = new LoopMonitor((seconds) => this.#warnOfBlock(seconds))
  readonly #progress: Progress
  readonly #batches: Batches
  readonly #attemptOptions: AttemptOptions
  /** Each has at most one exchange under way. */
  readonly #lanes: readonly Lane[]
  /** Aborted when the grace period is over. */
  readonly #deadline = new AbortController()
  /** Aborted when nothing runs any more. */
  readonly #end = new AbortController()
  #failure: { readonly reason: unknown } | undefined
  #isStopping = false
  #isListening = false
  /** How many results make a batch that is worth an exchange of its own. */
  readonly #share: number
  readonly #polls: Polls
  /** Whether a call has failed, and is repeated after a pause. */
  #isPausing = false

  constructor(options: CoreOptions) {
    this.#options = options
    const { exchanges = 1 } = options.transport
    this.#lanes = Array.from({ length: exchanges }, () => ({ notifier: new Notifier(), reserved: undefined }))
    this.#share = Math.max(smallestShare, Math.ceil(options.concurrency / exchanges))
    this.#polls = new Polls(options.settleDelay)
    this.#flows = new Map(options.flows.map((flow) => [flow.slug, flow]))
    this.#progress = new Progress(options)
    const values = new Values({ ...options, limit: options.cacheLimit, signal: this.#deadline.signal })
    const { outputLimit } = options
    const context = workerContextOf(options)
    this.#batches = new Batches({ ...context, loop: this.#loop })
    this.#attemptOptions = {
      ...context,
      values,
      progress: this.#progress,
      loop: this.#loop,
      batches: this.#batches,
      transport: options.transport,
      onCommitted: () => this.wake(),
      outputLimit,
    }
    this.#failures = new Failures({ ...options, signal: this.#deadline.signal })
    this.#settler = new Settler({
      ...options,
      // So that lanes share what is ready together.
      settleBatch: exchanges === 1 ? options.settleBatch : Math.min(options.settleBatch, this.#share),
      settle: (results) => this.#settle(results),
      onDone: (task) => this.#release(task),
    })
    this.#large = new LargeResults({
      ...options,
      settler: new Settler({
        ...options,
        settleBatch: 1,
        settle: (results) => this.#settle(results, { apart: true }),
        onDone: (task) => {
          this.#release(task)
          this.#notify()
        },
      }),
      signal: this.#deadline.signal,
    })
    const { transport } = options
    const onSettled = () => this.wake()
    this.#clock = new Clock({
      ...options,
      onSettled,
      task: 'settle what is due',
      tick: () => transport.tick(),
    })
    this.#calls = new Clock({
      ...options,
      onSettled,
      task: 'call the function of an SQL step',
      tick: () => transport.callFunctions(),
    })
    this.#hasCalls = options.flows.some((flow) => [...flow.steps.values()].some(({ type }) => type === 'sql'))
    this.#leases = new Leases({
      ...options,
      held: () => [...this.#held.values()].filter(({ isSettled }) => !isSettled).map(({ task }) => task),
      onLost: (task) => this.#held.get(idOf(task))?.abort(reasonOf(task)),
    })
  }

  start(): void {
    this.#end.signal.addEventListener('abort', () => {
      this.#loop.stop()
      this.#clock.stop()
      this.#calls.stop()
    })
    void this.#listen()
    void this.#work()
    void this.#leases.keepUntil(this.#end.signal)
  }

  /** Resolves when the worker has stopped; rejects if it stopped by itself, since it failed. */
  async ended(): Promise<void> {
    await sleep(Number.POSITIVE_INFINITY, this.#end.signal)
    if (this.#failure) throw this.#failure.reason
  }

  /** Looks for work now: somebody knows that there are tasks. */
  wake(): void {
    this.#polls.wake()
    this.#notify()
  }

  #notify(): void {
    for (const { notifier } of this.#lanes) notifier.notify()
  }

  /**
   * Claims no more, and resolves when all that was claimed is settled, or when these seconds are over: then what still
   * runs is aborted and handed back. A further call can only shorten the wait.
   */
  async stop(gracePeriod: number): Promise<void> {
    this.#isStopping = true
    if (gracePeriod > 0) this.#batches.stop()
    this.#notify()
    const cancel = after(this.#held.size === 0 ? 0 : gracePeriod, () => this.#abandon())
    await sleep(Number.POSITIVE_INFINITY, this.#end.signal)
    cancel()
  }

  /** Those that are neither taken nor claimed for at the moment. */
  get #freeSlots(): number {
    const busy = this.#held.size - Math.min(this.#settler.postponed, mostPostponed)
    const reserved = this.#lanes.reduce((sum, lane) => sum + (lane.reserved ?? 0), 0)
    return this.#isStopping ? 0 : this.#options.concurrency - busy - reserved
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
    try {
      await Promise.all(this.#lanes.map((lane) => this.#exchangeIn(lane)))
    } catch (failure) {
      this.#fail(failure)
    }
    this.#progress.close()
    this.#end.abort()
  }

  async #exchangeIn(lane: Lane): Promise<void> {
    while (!this.#isDrained) {
      await turn()
      const pause = this.#pauseOf(lane)
      if (pause > 0) await lane.notifier.wait(pause)
      else if (!(await this.#tryToExchange(lane))) break
    }
    // The others look whether that was the last.
    this.#notify()
  }

  /**
   * @returns false if it failed and there is no time to try again
   * @throws WorkerFailedError
   */
  async #tryToExchange(lane: Lane): Promise<boolean> {
    try {
      await this.#exchange(lane)
      this.#failures.reset()
    } catch (error) {
      if (this.#deadline.signal.aborted) return false
      this.#isPausing = true
      await this.#failures.pauseAfter(error)
    } finally {
      this.#isPausing = false
      lane.reserved = undefined
      this.#notify()
    }
    return true
  }

  #fail(failure: unknown): void {
    this.#isStopping = true
    this.#failure = { reason: failure }
    this.#deadline.abort()
    for (const attempt of this.#held.values()) {
      attempt.abort(new WorkerStoppedError('The worker failed', { cause: failure }))
    }
  }

  /** Seconds until there is something to settle or to look for. */
  #pause(): number {
    const poll = this.#freeSlots > 0 ? this.#polls.dueIn : Number.POSITIVE_INFINITY
    return Math.min(poll, this.#settler.dueIn(this.#held.size > this.#settler.size))
  }

  /** Seconds until this lane has something to do. Beside an exchange, what is little waits for its end. */
  #pauseOf(lane: Lane): number {
    if (this.#lanes.every(({ reserved }) => reserved === undefined)) {
      return lane === this.#lanes[0] ? this.#pause() : Number.POSITIVE_INFINITY
    }
    const enough = Math.max(smallestShare, Math.ceil(this.#share / 2))
    const claims = this.#polls.mayHaveMore && this.#freeSlots >= enough
    return !this.#isPausing && (claims || this.#settler.ready >= enough) ? 0 : Number.POSITIVE_INFINITY
  }

  /** Settles a batch, and claims for the slots that it frees and those that are free already. */
  async #exchange(lane: Lane): Promise<void> {
    const results = this.#settler.nextBatch()
    const freed = results.filter((result) => !this.#settler.isPostponed(result)).length
    const quantity = this.#isStopping ? 0 : Math.max(0, Math.min(this.#freeSlots + freed, largestClaim))
    lane.reserved = Math.max(0, quantity - freed)
    if (quantity > 0) this.#polls.began(results.length === 0)
    try {
      const work = await this.#call(results, quantity, { lane: this.#lanes.indexOf(lane) })
      this.#settler.settled(results, work)
      lane.reserved = 0
      this.#take(work.tasks)
      const [settled, claimed] = [results.length - work.held.length, work.tasks.length]
      if (quantity > 0) this.#polls.ended({ settled, claimed, quantity }, this.#isListening)
    } catch (error) {
      if (isSchemaFault(error)) await this.#failures.assertSchemaFits(error)
      if (results.length === 0 || (isTransient(error) && !isMissingQueue(error))) throw error
      // Whatever was refused, the results or the claim: the others are settled.
      await this.#settler.settle(results)
    } finally {
      this.#settler.release(results)
    }
  }

  async #settle(results: readonly Result[], options?: Pick<WorkRequest, 'apart'>): Promise<Settlement> {
    try {
      return await this.#call(results, 0, options)
    } catch (error) {
      if (isSchemaFault(error)) await this.#failures.assertSchemaFits(error)
      throw error
    }
  }

  async #call(
    results: readonly Result[],
    quantity: number,
    options?: Pick<WorkRequest, 'lane' | 'apart'>,
  ): Promise<Work> {
    const { transport, workerId, lease, inlineLimit } = this.#options
    const work = await transport.settleAndClaim({
      results,
      flow_slugs: [...this.#flows.keys()],
      quantity,
      worker_id: workerId,
      lease,
      inline_limit: inlineLimit,
      waiting: this.#isListening && quantity > 0 && this.#polls.areEmpty,
      due: this.#clock.ask(this.#polls.areEmpty || this.#hasCalls),
      ...options,
    })
    if (work.next_due_in !== undefined) this.#clock.plan(work.next_due_in)
    if (work.next_call_in !== undefined) this.#calls.plan(work.next_call_in)
    return work
  }

  #take(tasks: readonly ClaimedTask[]): void {
    const attempts = tasks.map((task) => new Attempt(task, this.#attemptOptions))
    for (const attempt of attempts) this.#held.set(idOf(attempt.task), attempt)
    if (tasks.length > 0 && !this.#end.signal.aborted) this.#loop.start()
    this.#leases.claimed(tasks)
    if (this.#isStopping) void this.#handBack(attempts)
    else for (const attempt of attempts) void this.#run(attempt)
  }

  async #run(attempt: Attempt): Promise<void> {
    const result = await attempt.run(this.#flows.get(attempt.task.flow_slug))
    if (result && isLarge(result)) void this.#large.add(result)
    else if (result) this.#settler.add(result)
    else if (!attempt.isGivenBack) this.#release(attempt.task)
    this.#notify()
  }

  /** Its lease needs not be extended any more. */
  #release(task: TaskKey): void {
    this.#held.delete(idOf(task))
    if (this.#held.size === 0) this.#loop.stop()
  }

  #warnOfBlock(seconds: number): void {
    const { log, thread } = this.#options
    const steps = new Set([...this.#held.values()].map(({ task }) => `${task.flow_slug}.${task.step_slug}`))
    const leases = thread?.works ? '' : ', and leases were not extended'
    log.warn(`The event loop was blocked for ${seconds.toFixed(1)} s: other steps had to wait${leases}`, {
      seconds,
      steps: [...steps],
    })
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
    for (const { task } of attempts) this.#release(task)
    this.#notify()
  }
}

/** One place for an exchange. */
interface Lane {
  readonly notifier: Notifier
  /** How many free slots its exchange claims for; `undefined` while there is none. */
  reserved: number | undefined
}

function workerContextOf({ workerId, log, resources, webhooks }: CoreOptions): WorkerContext {
  return { workerId, log, resources, webhooks }
}

function reasonOf({ status }: Lease): CancelledError | LeaseLostError {
  return status === null || status === 'queued'
    ? new LeaseLostError('Another attempt has the task')
    : new CancelledError(`The task is ${status}: nobody needs its result`)
}
