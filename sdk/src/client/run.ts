import type { AnyFlow } from '../flow/index.ts'
import { PgflowError } from '../shared/errors.ts'
import type { RequestOptions } from './connection.ts'
import type { EventsOptions } from './iterate.ts'
import { eventTypes, listen, stepEventTypes } from './listen.ts'
import type { ListChildrenOptions } from './lists.ts'
import type { Live } from './live.ts'
import { argumentsFrom, checkName, checkOptions } from './options.ts'
import type {
  ChildRow,
  ChildRows,
  EventOfType,
  RunEvent,
  RunEventType,
  RunSnapshot,
  RunStatus,
  StepEvent,
  StepEventType,
  StepState,
  StepStates,
  StepStatus,
} from './types.ts'
import { runOutcome, stepOutcome, type WaitOptions, waitFor } from './wait.ts'

export interface CancelOptions extends RequestOptions {
  /** Whether to undo the steps that have completed and have an undo. @default false */
  readonly undo?: boolean
}

/**
 * One run of a flow. With the first listener, wait or iterator it becomes live: its properties are kept up to date until the
 * run ends or the run object is closed. When the user changes, it is emptied (`seq` is 0 then) and read again as the new user.
 *
 * @example
 * await using run = await client.getRun<typeof AnalyzeDocument>(runId)
 * run.on('step:completed', (event) => show(event.step_slug, event.output))
 * const output = await run.waitForCompletion({ timeout: '1m' })
 */
export type Run<F extends AnyFlow = AnyFlow> = LiveRun<
  RunSnapshot<F>,
  StepStates<F>,
  RunEvent<F>,
  ChildRows<F>
>

/** It has the types of a flow one by one, so that a run of any flow is a `Run`. */
export class LiveRun<
  Snapshot extends RunSnapshot,
  States extends StepStates,
  Event extends RunEvent,
  Children extends ChildRows,
> implements AsyncDisposable
{
  readonly #live: Live
  readonly #onError: (error: unknown) => void
  readonly #closed = new AbortController()
  readonly #undo = new Set<() => void>()
  #steps: { of: RunSnapshot; states: StepStates } | undefined

  /** @internal */
  constructor(live: Live, onError: (error: unknown) => void) {
    this.#live = live
    this.#onError = onError
  }

  /** The whole run at this moment; it is never changed, but replaced. */
  get snapshot(): Snapshot {
    // The caller has said of which flow the run is.
    return this.#live.snapshot as Snapshot
  }

  get runId(): string {
    return this.snapshot.run_id
  }

  get flowSlug(): string {
    return this.snapshot.flow_slug
  }

  get status(): RunStatus {
    return this.snapshot.status
  }

  get input(): Snapshot['input'] {
    return this.snapshot.input
  }

  /** `null` until the run has completed. */
  get output(): Snapshot['output'] {
    return this.snapshot.output
  }

  get error(): string | null {
    return this.snapshot.error
  }

  /** The steps by their slugs, in the order of their definition. */
  get steps(): States {
    const { snapshot } = this.#live
    if (this.#steps?.of !== snapshot) {
      const states = Object.fromEntries(snapshot.steps.map((step) => [step.step_slug, step]))
      this.#steps = { of: snapshot, states }
    }
    // The caller has said of which flow the run is.
    return this.#steps.states as States
  }

  /**
   * Calls back with each event of a type, or with all (`'*'`), once and in order, whatever happens to the network.
   * A listener that is added later first gets the events that led to the current state: for a completed step its
   * `step:completed`, for a started one its `step:started` with what has followed it. What a listener throws is
   * given to `onError` of the client.
   *
   * @returns its undo
   * @throws InvalidInputError if there is no such event; PgflowError (`closed`) after `close()`
   *
   * @example
   * const stop = run.on('step:failed', ({ step_slug, error }) => show(step_slug, error))
   */
  on<Type extends RunEventType | '*'>(
    type: Type,
    callback: (event: EventOfType<Event, Type>) => void,
  ): () => void {
    return this.#listen(eventTypes, type, callback as (event: RunEvent) => void)
  }

  /**
   * One step of the run.
   *
   * @throws InvalidInputError if the run has no such step
   */
  step<Slug extends keyof States & string>(
    slug: Slug,
  ): RunStep<Slug, OutputIn<States[Slug]>, ProgressIn<States[Slug]>, Children[Slug]> {
    checkName(slug, Object.keys(this.steps), `The flow '${this.flowSlug}' has no step`)
    // The flow's type says what this step gives.
    return new RunStep<Slug, OutputIn<States[Slug]>, ProgressIn<States[Slug]>, Children[Slug]>(
      this.#live,
      slug,
      (type, callback) => this.#listen(stepEventTypes, type, callback, slug),
      (options) => this.#wait((run) => stepOutcome(run, slug), options),
    )
  }

  /**
   * The run's output, when it has completed.
   *
   * @throws RunFailedError, RunCancelledError, TimeoutError, the signal's reason, `PgflowError` (`closed`) when the run
   *   object is closed, or the error with which the server refuses the request (`NotFoundError` …)
   */
  waitForCompletion(options: WaitOptions = {}): Promise<Exclude<Snapshot['output'], null>> {
    // The flow's type says what a run gives.
    return this.#wait(runOutcome, options) as Promise<Exclude<Snapshot['output'], null>>
  }

  /**
   * All events after one, each once and in order: first those that have happened, then the others as they happen. It
   * ends when the run is over.
   *
   * @throws the signal's reason, `PgflowError` (`closed`) when the run object is closed, or the error with which the
   *   server refuses the request
   *
   * @example
   * for await (const event of run.events({ after: Number(request.headers.get('Last-Event-ID')) })) send(event)
   */
  async *events(options: EventsOptions = {}): AsyncGenerator<Event, void, undefined> {
    const { eventsOf } = await import('./iterate.ts')
    // The caller has said of which flow the run is.
    yield* eventsOf(
      this.#live,
      options,
      (...args) => this.#wait(...args),
      checkOptions,
    ) as AsyncGenerator<Event>
  }

  /**
   * Ends the run. Its open steps are cancelled, and the reason becomes its error. With `undo`, the steps that have completed and
   * have an undo are undone, as if the run had failed; `client.getRun(runId)` tells `undone_by` which run.
   *
   * @throws ConflictError if the run is over already
   *
   * @example
   * await run.cancel('no longer needed', { undo: true })
   */
  async cancel(reason?: string, options: CancelOptions = {}): Promise<void> {
    await this.#live.change('cancel_run', 'reason undo signal', { reason, ...options })
  }

  /**
   * Resumes a failed or cancelled run: completed steps keep their outputs. Its listeners are called again.
   *
   * @throws ConflictError if the run has not failed and was not cancelled, or its undo has begun
   */
  async retry(options: RequestOptions = {}): Promise<void> {
    await this.#live.change('retry_run', 'signal', { ...options })
  }

  /** Ends all listeners and waits of this object; the run itself continues. Settled when its channel is left. */
  async close(): Promise<void> {
    if (!this.#closed.signal.aborted)
      this.#closed.abort(new PgflowError('closed', 'The run object was closed'))
    for (const stop of this.#undo) stop()
    await this.#live.left()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #listen(
    types: readonly string[],
    type: string,
    callback: (event: RunEvent) => void,
    stepSlug?: string,
  ): () => void {
    if (type !== '*') checkName(type, [...types, "and '*' for all"], 'There is no event')
    this.#closed.signal.throwIfAborted()
    const wanted = stepSlug === undefined ? type : `step:${type}`
    const wants = (event: RunEvent) =>
      (type === '*' || event.type === wanted) && (stepSlug === undefined || event.step_slug === stepSlug)
    const undo = listen(this.#live, wants, callback, this.#onError)
    const stop = () => {
      this.#undo.delete(stop)
      undo()
    }
    this.#undo.add(stop)
    return stop
  }

  #wait(outcomeOf: Parameters<typeof waitFor>[1], options: WaitOptions): Promise<unknown> {
    return waitFor(this.#live, outcomeOf, options, this.#closed.signal)
  }
}

/** What a step gives, of which this is the state. */
type OutputIn<State> = State extends StepState<string, infer Output> ? Output : never

/** What clients see of the progress of a step, of which this is the state. */
type ProgressIn<State> = State extends StepState<string, unknown, infer Progress> ? Progress : never

/** One step of a run. */
export class RunStep<
  Slug extends string = string,
  Output = unknown,
  Progress = unknown,
  Child extends ChildRow = ChildRow,
> {
  readonly #live: Live
  readonly slug: Slug
  readonly #listen: (type: string, callback: (event: RunEvent) => void) => () => void
  readonly #wait: (options: WaitOptions) => Promise<unknown>

  /** @internal */
  constructor(
    live: Live,
    slug: Slug,
    listenTo: (type: string, callback: (event: RunEvent) => void) => () => void,
    wait: (options: WaitOptions) => Promise<unknown>,
  ) {
    this.#live = live
    this.slug = slug
    this.#listen = listenTo
    this.#wait = wait
  }

  /** The whole step at this moment; it is never changed, but replaced. */
  get state(): StepState<Slug, Output, Progress> {
    // The flow's type says what this step gives.
    return this.#live.snapshot.steps.find(({ step_slug }) => step_slug === this.slug) as StepState<
      Slug,
      Output,
      Progress
    >
  }

  get status(): StepStatus {
    return this.state.status
  }

  /** `null` until the step has completed. */
  get output(): Output | null {
    return this.state.output
  }

  get error(): string | null {
    return this.state.error
  }

  get progress(): Progress {
    return this.state.progress
  }

  /**
   * As the run's `on`, with the events of this step alone.
   *
   * @returns its undo
   * @throws InvalidInputError if there is no such event; PgflowError (`closed`) after `close()`
   *
   * @example
   * run.step('report').on('progress', ({ progress }) => show(progress))
   */
  on<Type extends StepEventType | '*'>(
    type: Type,
    callback: (
      event: EventOfType<
        StepEvent<Slug, Output, Exclude<Progress, null>>,
        Type extends '*' ? '*' : `step:${Type}`
      >,
    ) => void,
  ): () => void {
    return this.#listen(type, callback as (event: RunEvent) => void)
  }

  /**
   * The step's output, when it has completed.
   *
   * @throws RunFailedError if the step fails, or its run before it; `PgflowError` (`step_skipped`) if it is skipped; the
   *   rest as the run's `waitForCompletion`
   */
  waitForCompletion(options: WaitOptions = {}): Promise<Output> {
    return this.#wait(options) as Promise<Output>
  }

  /**
   * Completes a wait: its output is `output`, and the run goes on. Before the wait has begun, the output is kept for it. The
   * first one counts; the same value again is no error.
   *
   * @throws ForbiddenError if the caller is not asked; ConflictError if it was completed with another value, or is over;
   *   InvalidInputError if the value is not JSON, is not what the wait takes, or the step is no wait
   *
   * @example
   * await run.step('approval').complete({ approved: true })
   */
  async complete(output: Output, options: RequestOptions = {}): Promise<void> {
    await this.#live.change('complete_wait', 'output! signal', { output, ...options }, this.slug)
  }

  /**
   * Rejects a wait: the step fails with the reason, and so does the run, unless the step has `whenExhausted`.
   *
   * @throws as `complete`
   *
   * @example
   * await run.step('approval').reject('The figures are missing')
   */
  async reject(reason: string, options: RequestOptions = {}): Promise<void> {
    await this.#live.change('reject_wait', 'reason! signal', { reason, ...options }, this.slug)
  }

  /**
   * Lists the runs that this step has started, a sub-flow, in the order of its items. `getRun` follows one of them.
   *
   * @throws InvalidInputError if an option cannot be used; nothing is sent then
   *
   * @example
   * const lines = await run.step('lines').children()
   * const failed = lines.filter(({ status }) => status === 'failed')
   */
  async children(options: ListChildrenOptions = {}): Promise<Child[]> {
    const { listChildren } = await import('./lists.ts')
    // The flow's type says which flow the step starts.
    return listChildren(this.#live, argumentsFrom, this.slug, { ...options }) as Promise<Child[]>
  }
}
