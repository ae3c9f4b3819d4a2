import type { TransactionSql } from 'postgres'
import type { Context, Log } from '../flow/context.ts'
import { type AnyFlow, type HandledStep, hasHandler, type StepDefinition } from '../flow/definition.ts'
import { describeError, summaryOf } from '../flow/error-description.ts'
import { NonRetryableError, RetryAfterError } from '../flow/errors.ts'
import { toJson } from '../flow/json.ts'
import { TimeoutError } from '../shared/errors.ts'
import { type Batches, type BatchStep, hasBatches, type Place, withoutError } from './batches.ts'
import { CancelledError, LeaseLostError, WorkerStoppedError } from './errors.ts'
import { explain } from './faults.ts'
import { KeptResults } from './kept-results.ts'
import { withData } from './log.ts'
import type { LoopMonitor } from './loop-monitor.ts'
import { type Progress, reportOf } from './progress.ts'
import { checkedInput, checkedOutput } from './schemas.ts'
import { TaskTransaction } from './task-transaction.ts'
import { keyOf } from './tasks.ts'
import type { ClaimedTask, FailedResult, Result, Transport } from './transport.ts'
import type { SharedValue, Values } from './values.ts'
import type { WebhookSettings } from './webhooks/settings.ts'
import { waitUrl } from './webhooks/wait-url.ts'

/** What a worker gives to each of its handlers. */
export interface WorkerContext {
  readonly workerId: string
  readonly log: Log
  readonly resources: object
  readonly webhooks?: WebhookSettings | undefined
}

/** What attempts get from their worker. */
export interface AttemptOptions extends WorkerContext {
  readonly values: Pick<Values, 'get'>
  readonly progress: Pick<Progress, 'add' | 'drop'>
  readonly loop: Pick<LoopMonitor, 'after'>
  readonly batches: Pick<Batches, 'add'>
  readonly transport: Pick<Transport, 'keepResult' | 'keptResultsOf' | 'transact'>
  /** A handler's transaction has settled its task, so that others may have started. */
  readonly onCommitted: () => void
  /** Bytes. */
  readonly outputLimit: number
}

type AbortReason = TimeoutError | CancelledError | LeaseLostError | WorkerStoppedError

/** A claimed task on its way to a result. */
export class Attempt {
  readonly task: ClaimedTask
  readonly #options: AttemptOptions
  /** Made when a handler asks for its signal: most do not. */
  #controller: AbortController | undefined
  #reason: AbortReason | undefined
  #onAbort: ((reason: AbortReason) => void) | undefined
  #cancelTimeout: (() => void) | undefined
  /** Of a step with batches. */
  #place: Place | undefined
  /** Made when a handler asks for them. */
  #kept: KeptResults | undefined
  #transaction: TaskTransaction | undefined
  #isOver = false

  constructor(task: ClaimedTask, options: AttemptOptions) {
    this.task = task
    this.#options = options
  }

  get isRunning(): boolean {
    return !this.#isOver && this.#reason === undefined
  }

  /** Whether its handler's transaction has settled the task: it has no lease any more. */
  get isSettled(): boolean {
    return this.#transaction?.isCommitted ?? false
  }

  /** Whether its worker gives it back, since it stops. */
  get isGivenBack(): boolean {
    return this.#reason instanceof WorkerStoppedError
  }

  /** Ends the attempt, whatever its handler does; no effect once it is over. */
  abort(reason: AbortReason): void {
    if (this.#isOver || this.#reason !== undefined) return
    // What still runs has its time, and its worker.
    if (this.isSettled && (reason instanceof CancelledError || reason instanceof LeaseLostError)) return
    this.#reason = reason
    this.#onAbort?.(reason)
    this.#controller?.abort(reason)
    this.#place?.leave(reason)
  }

  /** Never rejects. Resolves with `undefined` when there is nothing to settle: the task is another's by now, or will be. */
  async run(flow: AnyFlow | undefined): Promise<Result | undefined> {
    const step = flow?.steps.get(this.task.step_slug)
    if (flow === undefined || step === undefined || !hasHandler(step)) return this.#unknown()
    try {
      const output = await new Promise((resolve, reject) => {
        this.#onAbort = reject
        this.#output(flow, step).then(resolve, reject)
      })
      return this.isSettled ? this.#noteReturned(output) : this.#completed(output)
    } catch (error) {
      return this.#failed(this.#reason ?? error)
    } finally {
      this.#isOver = true
      this.#cancelTimeout?.()
      this.#options.progress.drop(this.task)
    }
  }

  /** What the handler gets. A single step's large values are its own copies, as the small ones are. */
  async #input(step: StepDefinition): Promise<unknown> {
    const { input, refs } = this.task
    if (hasItem(step) || refs === null) return input
    return { ...(input as object), ...(await this.#fetch((value) => value.copy())) }
  }

  /** The values that the claim left out. */
  async #fetch(view: (value: SharedValue) => unknown): Promise<Record<string, unknown>> {
    const { run_id, refs } = this.task
    const names = Object.entries(refs ?? {}).map(async ([name, version]) => {
      return [name, view(await this.#value({ run_id, name, version }))] as const
    })
    return Object.fromEntries(await Promise.all(names))
  }

  async #value(ref: Parameters<Values['get']>[0]): Promise<SharedValue> {
    try {
      return await this.#options.values.get(ref)
    } catch (cause) {
      throw new Error(`its input "${ref.name}" cannot be fetched: ${explain(cause)}`, { cause })
    }
  }

  /** The handler between its schemas. What it does after an abort has no effect. */
  async #output(flow: AnyFlow, step: HandledStep): Promise<unknown> {
    const { timeout, step_slug } = this.task
    const claimed = await this.#input(step)
    if (this.#reason) throw this.#reason
    this.#cancelTimeout = this.#options.loop.after(timeout, () => {
      this.abort(new TimeoutError(`step "${step_slug}" timed out after ${timeout} s`))
    })
    const input = await checkedInput(flow, step, claimed)
    if (this.#reason) throw this.#reason
    const context = this.#context(flow, step, input)
    const output = hasBatches(step)
      ? this.#outputOfBatch(flow, step, input, context)
      : step.handler(input, context)
    const returned = await output
    await this.#transaction?.ended()
    return this.isSettled ? returned : checkedOutput(step, returned)
  }

  /** The task has the output of its transaction. */
  #noteReturned(returned: unknown): undefined {
    if (!this.#transaction?.differsFrom(returned)) return
    this.#options.log.warn(
      'A handler returned another value than its transaction, whose value counts: return what context.transaction resolves with',
      keyOf(this.task),
    )
  }

  /** Its timeout counts from the start of the batch. */
  async #outputOfBatch(flow: AnyFlow, step: BatchStep, payload: unknown, context: Context): Promise<unknown> {
    const { timeout } = this.task
    this.#cancelTimeout?.()
    const abort = (reason: TimeoutError) => this.abort(reason)
    this.#place = this.#options.batches.add(flow, step, { payload, context, timeout, abort })
    return withoutError(await this.#place.result)
  }

  get #signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#reason) this.#controller.abort(this.#reason)
    return this.#controller.signal
  }

  #context(flow: AnyFlow, step: HandledStep, input: unknown): Context {
    const { task } = this
    const { workerId, resources, log, progress, webhooks } = this.#options
    const signal = () => this.#signal
    return {
      workerId,
      resources,
      get log() {
        return withData(log, keyOf(task))
      },
      get signal() {
        return signal()
      },
      attempt: task.attempt,
      runId: task.run_id,
      flowSlug: task.flow_slug,
      stepSlug: task.step_slug,
      taskIndex: task.task_index,
      progress: (value, data) => {
        const report = reportOf(task, value, data, hasItem(step))
        if (!this.#isOver) progress.add(report)
      },
      async waitUrl(stepSlug) {
        if (webhooks !== undefined)
          return waitUrl(webhooks, flow, { run_id: task.run_id, step_slug: stepSlug })
        throw new Error('the worker has no option webhooks, which context.waitUrl needs: give it url and key')
      },
      get idempotencyKey() {
        return `${task.run_id}:${task.step_slug}:${task.task_index}`
      },
      // The types say what is kept.
      once: (name, call) => this.#keptResults.once(name, call) as Promise<never>,
      transaction: (work) => this.#transact(step, work),
      payload: async () => (hasItem(step) ? this.#fetch((value) => value.frozen()) : input),
    }
  }

  get #keptResults(): KeptResults {
    const { task, ...rest } = this.#taskOptions
    this.#kept ??= new KeptResults({ task: keyOf(task), ...rest })
    return this.#kept
  }

  async #transact<Output>(
    step: HandledStep,
    work: (sql: TransactionSql) => Output,
  ): Promise<Awaited<Output>> {
    if (hasBatches(step)) {
      throw new Error(
        'context.transaction completes one task, and this step has batches: leave out its option batch',
      )
    }
    this.#transaction ??= new TaskTransaction({
      ...this.#taskOptions,
      store: async (output) => toJson(await checkedOutput(step, output), this.#options.outputLimit),
      onCommitted: this.#options.onCommitted,
    })
    return this.#transaction.run(work)
  }

  get #taskOptions() {
    const { transport } = this.#options
    const onLost = (reason: LeaseLostError) => this.abort(reason)
    return { task: this.task, transport, signal: this.#signal, onLost }
  }

  #completed(output: unknown): Result {
    try {
      return { ...keyOf(this.task), outputJson: toJson(output, this.#options.outputLimit) }
    } catch (error) {
      return this.#failure('returned what cannot be stored', error)
    }
  }

  #failed(thrown: unknown): FailedResult | undefined {
    if (
      thrown instanceof LeaseLostError ||
      thrown instanceof CancelledError ||
      thrown instanceof WorkerStoppedError
    )
      return undefined
    if (this.isSettled) {
      const message = 'A handler failed after its transaction had completed the task, which stays completed'
      this.#options.log.warn(message, { ...keyOf(this.task), error: thrown })
      return undefined
    }
    if (!this.#place?.isLogged) {
      this.#options.log.warn('A step failed', { ...keyOf(this.task), error: thrown })
    }
    if (thrown instanceof TimeoutError) return { ...keyOf(this.task), error: thrown.message }
    return {
      ...this.#failure('failed', thrown),
      ...(thrown instanceof RetryAfterError && { retry_delay: thrown.seconds }),
      ...(thrown instanceof RetryAfterError && thrown.countsAsAttempt === false && { uncounted: true }),
      ...(thrown instanceof NonRetryableError && { permanent: true }),
    }
  }

  #unknown(): FailedResult {
    const reason = `is not in the flow "${this.task.flow_slug}" as this worker knows it: deploy the worker with the flow that the database has`
    return {
      ...keyOf(this.task),
      error: `step "${this.task.step_slug}" ${reason}`,
      permanent: true,
    }
  }

  #failure(what: string, error: unknown): FailedResult {
    const thrown = describeError(error)
    const { name } = thrown
    const message = summaryOf(thrown)
    const isPlain = ['Error', 'NotJsonError', 'RetryAfterError', 'NonRetryableError'].includes(name)
    const reason = isPlain ? message : `${name}: ${message}`
    return { ...keyOf(this.task), error: `step "${this.task.step_slug}" ${what}: ${reason}`, thrown }
  }
}

/** Whether the handler gets an item of a map or the state of a loop, not `run` and the outputs of deps. */
function hasItem(step: StepDefinition): boolean {
  return step.type === 'map' || step.type === 'loop'
}
