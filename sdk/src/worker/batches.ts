import type { BatchContext, BatchHandler, BatchOptions } from '../flow/batch-types.ts'
import type { Context } from '../flow/context.ts'
import type { AnyFlow, HandledStep } from '../flow/definition.ts'
import { secondsOf } from '../shared/duration.ts'
import { TimeoutError } from '../shared/errors.ts'
import type { WorkerContext } from './attempt.ts'
import { WorkerStartError } from './errors.ts'
import { withData } from './log.ts'
import type { LoopMonitor } from './loop-monitor.ts'
import { after } from './time.ts'

/** Tasks, where a worker is given no number. */
const usualConcurrency = 200

/** How long the first task of a batch waits for others. */
const usualWait = '50ms'

/** A step whose handler gets batches. */
export interface BatchStep extends HandledStep {
  readonly batch: BatchOptions
}

export function hasBatches(step: HandledStep): step is BatchStep {
  return step.batch !== undefined
}

/** A task on its way through a batch. */
export interface BatchTask {
  readonly payload: unknown
  readonly context: Context
  /** Seconds. */
  readonly timeout: number
  /** Ends its attempt, which then leaves the batch. */
  abort(reason: TimeoutError): void
}

/** What a task has of its batch. */
export interface Place {
  /** Rejects with what failed the task. */
  readonly result: Promise<unknown>
  /** Whether the batch as a whole has failed, which is logged once. */
  readonly isLogged: boolean
  /** Its result is not needed any more. */
  leave(reason: unknown): void
}

export interface BatchesOptions extends WorkerContext {
  readonly loop: Pick<LoopMonitor, 'after'>
}

/** Gathers tasks of the same flow and step, and runs their handler for all of them. */
export class Batches {
  readonly #options: BatchesOptions
  /** Those that wait for more tasks. */
  readonly #gathered = new Map<string, Batch>()
  #isStopping = false

  constructor(options: BatchesOptions) {
    this.#options = options
  }

  add(flow: AnyFlow, step: BatchStep, task: BatchTask): Place {
    const key = `${flow.slug} ${step.slug}`
    let batch = this.#gathered.get(key)
    if (batch === undefined) {
      batch = new Batch(flow, step, this.#options, () => this.#gathered.delete(key))
      batch.waitFor(this.#isStopping ? 0 : secondsOf(step.batch.wait ?? usualWait)!) // the builder has validated it
      this.#gathered.set(key, batch)
    }
    return batch.add(task)
  }

  /** Runs what has been gathered; from now on no task waits for others. */
  stop(): void {
    this.#isStopping = true
    for (const batch of [...this.#gathered.values()]) batch.start()
  }
}

interface Member extends BatchTask {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: unknown) => void
}

class Batch {
  readonly #flow: AnyFlow
  readonly #step: BatchStep
  readonly #options: BatchesOptions
  readonly #onGathered: () => void
  /** Those whose results are needed. */
  readonly #members = new Set<Member>()
  readonly #controller = new AbortController()
  #isGathered = false
  #isLogged = false
  #cancelTimer = () => {}

  constructor(flow: AnyFlow, step: BatchStep, options: BatchesOptions, onGathered: () => void) {
    this.#flow = flow
    this.#step = step
    this.#options = options
    this.#onGathered = onGathered
  }

  /** @param seconds for further tasks */
  waitFor(seconds: number): void {
    this.#cancelTimer = after(seconds, () => this.start())
  }

  add(task: BatchTask): Place {
    const { promise, ...settle } = promiseWithResolvers()
    const member = { ...task, ...settle }
    this.#members.add(member)
    if (this.#members.size === this.#step.batch.size) this.start()
    const isLogged = () => this.#isLogged
    return {
      result: promise,
      get isLogged() {
        return isLogged()
      },
      leave: (reason) => this.#leave(member, reason),
    }
  }

  start(): void {
    if (this.#isGathered) return
    this.#gather()
    const members = [...this.#members]
    const timeout = Math.max(...members.map((member) => member.timeout))
    this.#cancelTimer = this.#options.loop.after(timeout, () => this.#timeOut(timeout))
    void this.#run(members)
  }

  /** No task is added any more. */
  #gather(): void {
    this.#isGathered = true
    this.#cancelTimer()
    this.#onGathered()
  }

  async #run(members: readonly Member[]): Promise<void> {
    try {
      const results = await this.#results(members)
      for (const [index, { resolve }] of members.entries()) resolve(results[index])
      // Where types did not refuse promises, the timeout holds for them, too.
      await Promise.allSettled(results)
    } catch (error) {
      this.#log(error)
      for (const { reject } of members) reject(error)
    } finally {
      this.#cancelTimer()
    }
  }

  /** @throws what the handler throws, or an error that says what it should return */
  async #results(members: readonly Member[]): Promise<readonly unknown[]> {
    const handler = this.#step.handler as unknown as BatchHandler // since the step has batches
    const payloads = members.map(({ payload }) => payload)
    const results = await handler(payloads, this.#context(members))
    if (!Array.isArray(results)) {
      const returned = typeof results === 'object' && results !== null ? 'an object' : String(results)
      throw new Error(
        `the handler returned ${returned}: return an array with one result for each payload, in their order`,
      )
    }
    if (results.length !== members.length) {
      throw new Error(
        `the handler returned ${results.length} results for ${members.length} payloads: return one for each, in their order`,
      )
    }
    return results
  }

  #context(members: readonly Member[]): BatchContext {
    const { workerId, resources, log } = this.#options
    const [flowSlug, stepSlug] = [this.#flow.slug, this.#step.slug]
    return {
      ...{ workerId, resources, flowSlug, stepSlug },
      log: withData(log, { flow_slug: flowSlug, step_slug: stepSlug }),
      signal: this.#controller.signal,
      tasks: members.map(({ context }) => context),
    }
  }

  #timeOut(seconds: number): void {
    const error = new TimeoutError(`step "${this.#step.slug}" timed out after ${seconds} s`)
    this.#log(error)
    for (const member of [...this.#members]) member.abort(error)
  }

  #log(error: unknown): void {
    const tasks = this.#members.size
    if (tasks === 0) return
    this.#isLogged = true
    const [flow_slug, step_slug] = [this.#flow.slug, this.#step.slug]
    this.#options.log.warn('A batch failed', { flow_slug, step_slug, tasks, error })
  }

  #leave(member: Member, reason: unknown): void {
    if (!this.#members.delete(member) || this.#members.size > 0) return
    if (this.#isGathered) {
      this.#cancelTimer()
      this.#controller.abort(reason)
    } else this.#gather()
  }
}

function promiseWithResolvers() {
  let resolve: (result: unknown) => void = () => {}
  let reject: (error: unknown) => void = () => {}
  const promise = new Promise<unknown>((onResult, onError) => {
    resolve = onResult
    reject = onError
  })
  return { promise, resolve, reject }
}

/**
 * Throws a result that is an error.
 *
 * @returns any other one
 */
export function withoutError(result: unknown): unknown {
  if (isError(result)) throw result
  return result
}

/** Also one of another realm, which is no instance of this one's `Error`. */
function isError(value: unknown): boolean {
  try {
    return value instanceof Error || Object.prototype.toString.call(value) === '[object Error]'
  } catch {
    // It cannot be looked at (a revoked proxy).
    return false
  }
}

/**
 * How many tasks a worker runs at the same time: as many as its largest batch has, at least.
 *
 * @param concurrency the worker's option
 * @throws WorkerStartError if a batch could never be full
 */
export function concurrencyFor(flows: readonly AnyFlow[], concurrency: number | undefined): number {
  let least = usualConcurrency
  for (const flow of flows) {
    for (const { slug, batch } of flow.steps.values()) {
      if (batch === undefined) continue
      if (concurrency !== undefined && batch.size > concurrency) {
        throw new WorkerStartError(
          `concurrency is ${concurrency}, but the step "${slug}" of the flow "${flow.slug}" has batches of ${batch.size}: make it ${batch.size} or more, or the batches smaller`,
        )
      }
      least = Math.max(least, batch.size)
    }
  }
  return concurrency ?? least
}
