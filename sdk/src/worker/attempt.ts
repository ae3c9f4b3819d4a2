import type { Context, Log } from '../flow/context.ts'
import type { AnyFlow, StepHandler } from '../flow/definition.ts'
import { describeError, toJson } from '../flow/json.ts'
import {
  LeaseLostError,
  NonRetryableError,
  RetryAfterError,
  TimeoutError,
  WorkerStoppedError,
} from './errors.ts'
import { keyOf } from './tasks.ts'
import { after } from './time.ts'
import type { ClaimedTask, FailedResult, Result } from './transport.ts'

/** What every handler of a worker gets. */
export interface Surroundings {
  readonly workerId: string
  readonly log: Log
  readonly resources: object
}

/** A claimed task on its way to a result. */
export class Attempt {
  readonly task: ClaimedTask
  readonly #controller = new AbortController()
  #isOver = false

  constructor(task: ClaimedTask) {
    this.task = task
  }

  /** Ends the attempt, whatever its handler does; no effect once it is over. */
  abort(reason: TimeoutError | LeaseLostError | WorkerStoppedError): void {
    if (!this.#isOver) this.#controller.abort(reason)
  }

  /** Never rejects. Resolves with `undefined` when there is nothing to settle: the task is another's by now, or will be. */
  async run(flow: AnyFlow | undefined, surroundings: Surroundings): Promise<Result | undefined> {
    const { step_slug, timeout } = this.task
    const step = flow?.steps.get(step_slug)
    if (step === undefined) return this.#unknown()
    const cancel = after(timeout, () => {
      this.abort(new TimeoutError(`step "${step_slug}" timed out after ${timeout} s`))
    })
    try {
      return this.#completed(await this.#output(step.handler, surroundings))
    } catch (error) {
      const { aborted, reason } = this.#controller.signal
      return this.#failed(aborted ? reason : error, surroundings.log)
    } finally {
      this.#isOver = true
      cancel()
    }
  }

  #output(handler: StepHandler, surroundings: Surroundings): Promise<unknown> {
    const { task } = this
    const { signal } = this.#controller
    signal.throwIfAborted()
    const context: Context = {
      ...surroundings,
      signal,
      attempt: task.attempt,
      runId: task.run_id,
      stepSlug: task.step_slug,
      taskIndex: task.task_index,
    }
    return new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      // Inside `then`, so that what the handler throws at once is a rejection too.
      Promise.resolve()
        .then(() => handler(task.input, context))
        .then(resolve, reject)
    })
  }

  #completed(output: unknown): Result {
    try {
      return { ...keyOf(this.task), outputJson: toJson(output) }
    } catch (error) {
      return this.#failure(`returned what cannot be stored: ${describeError(error).message}`)
    }
  }

  #failed(thrown: unknown, log: Log): FailedResult | undefined {
    if (thrown instanceof LeaseLostError || thrown instanceof WorkerStoppedError) return undefined
    log.warn('A step failed', { ...keyOf(this.task), error: thrown })
    if (thrown instanceof TimeoutError) return { ...keyOf(this.task), error: thrown.message }
    const { name, message } = describeError(thrown)
    if (thrown instanceof RetryAfterError) {
      return { ...this.#failure(`failed: ${message}`), retry_delay: thrown.seconds }
    }
    if (thrown instanceof NonRetryableError)
      return { ...this.#failure(`failed: ${message}`), permanent: true }
    return this.#failure(`failed: ${name === 'Error' ? message : `${name}: ${message}`}`)
  }

  #unknown(): FailedResult {
    const reason = `is not in the flow "${this.task.flow_slug}" as this worker knows it: deploy the worker with the flow that the database has`
    return { ...this.#failure(reason), permanent: true }
  }

  #failure(reason: string): FailedResult {
    return { ...keyOf(this.task), error: `step "${this.task.step_slug}" ${reason}` }
  }
}
