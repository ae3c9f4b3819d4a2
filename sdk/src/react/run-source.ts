import { isRefusal, NotFoundError } from '../client/errors.ts'
import type { CancelOptions, PgflowError, RunSnapshot } from '../client/index.ts'
import type { Live } from '../client/live.ts'
import type { Lives } from '../client/lives.ts'
import { isOver } from '../client/store.ts'
import { backOff, onWake } from '../client/timing.ts'
import { onAbort } from '../shared/abort.ts'
import { fetchRun } from './fetch-run.ts'

/** What is known of a run; it is never changed, but replaced. */
export interface RunView {
  readonly run: RunSnapshot | null
  readonly error: PgflowError | null
}

/** What a component that shows no run sees. */
export const noRun: RunView = { run: null, error: null }

export interface RunSourceOptions {
  /** The run as a server has read it. */
  readonly initialRun?: RunSnapshot | undefined
  /** Called each time the run ends; not for a run that had ended before anything was known of it. */
  readonly onEnd?: (run: RunSnapshot) => void
  /** Whether `onEnd` is called for a run that had ended before, too. */
  readonly reportsPastEnd?: boolean
}

/**
 * One run for one component, as `useSyncExternalStore` expects it. Requests are made only while the component is
 * subscribed; all components that show the run share them.
 */
export class RunSource {
  readonly #lives: Lives
  readonly #runId: string
  readonly #onEnd: (run: RunSnapshot) => void
  readonly #initial: RunView
  #initialRun: RunSnapshot | undefined
  #view: RunView
  #live: Live | undefined
  /** Whether the run had ended when it was last seen; `undefined` until it is known. */
  #hadEnded: boolean | undefined
  #notify = () => {}
  #acting: Promise<void> | undefined
  /** Of the client, when this was made or has last forgotten a former user's run. */
  #userChanges: number

  constructor(
    lives: Lives,
    runId: string,
    { initialRun, onEnd = () => {}, reportsPastEnd = false }: RunSourceOptions = {},
  ) {
    this.#lives = lives
    this.#runId = runId
    this.#onEnd = onEnd
    this.#userChanges = lives.userChanges
    if (initialRun?.run_id === runId && isOfCurrentUser(initialRun, lives)) this.#initialRun = initialRun
    this.#initial = this.#initialRun ? { run: this.#initialRun, error: null } : noRun
    const known = lives.get(runId)?.snapshot
    const isNewer = known !== undefined && known.seq > (this.#initialRun?.seq ?? 0)
    this.#view = isNewer ? { run: known, error: null } : this.#initial
    this.#hadEnded = reportsPastEnd ? false : this.#view.run ? hasEnded(this.#view.run) : undefined
  }

  /** What a server renders, and what a page begins with. */
  readonly initial = (): RunView => this.#initial

  readonly view = (): RunView => this.#view

  /** Follows the run. */
  readonly subscribe = (notify: () => void): (() => void) => this.#subscribe(notify, true)

  /** Shows what is known of the run, and what `cancel` and `retry` change, but does not follow it. */
  readonly subscribeIdle = (notify: () => void): (() => void) => this.#subscribe(notify, false)

  readonly cancel = (reason?: string, options: Pick<CancelOptions, 'undo'> = {}): Promise<void> =>
    this.#act((live) => live.change('cancel_run', 'reason undo signal', { reason, ...options }))

  readonly retry = (): Promise<void> => this.#act((live) => live.change('retry_run', 'signal', {}))

  #subscribe(notify: () => void, follows: boolean): () => void {
    this.#notify = notify
    let following = new AbortController()
    const connect = () => {
      const former = following
      following = new AbortController()
      this.#forgetFormerUser()
      if (follows) this.#connect(following.signal)
      former.abort()
    }
    const stop = this.#lives.events.on('userChanged', connect)
    connect()
    this.#reportEnd()
    return () => {
      stop()
      following.abort()
    }
  }

  #connect(signal: AbortSignal): void {
    const live = this.#find()
    if (live !== undefined) this.#follow(live, signal)
    else void this.#fetch(signal).then((fetched) => fetched && this.#follow(fetched, signal))
  }

  #forgetFormerUser(): void {
    if (this.#userChanges === this.#lives.userChanges) return
    this.#userChanges = this.#lives.userChanges
    this.#initialRun = undefined
    this.#hadEnded = undefined
    this.#acting = undefined
    this.#show(null)
  }

  /** One action at a time; why it failed is shown. */
  async #act(action: (live: Live) => Promise<void>): Promise<void> {
    if (this.#acting !== undefined) return
    this.#show(this.#view.run)
    const acting = this.#perform(action)
    this.#acting = acting
    const error: unknown = await acting.then(
      () => null,
      (reason) => reason,
    )
    // Nothing of this is for another user, who has signed in meanwhile.
    if (this.#acting !== acting) return
    this.#acting = undefined
    if (error !== null) this.#show(error instanceof NotFoundError ? null : this.#view.run, error)
  }

  async #perform(action: (live: Live) => Promise<void>): Promise<void> {
    const live = this.#live ?? (await fetchRun(this.#lives, this.#runId))
    await action(live)
    if (!live.store.isEmpty) this.#show(live.snapshot)
  }

  /** All that a request is rejected with is a `PgflowError`. */
  #show(run: RunSnapshot | null, error: unknown = null): void {
    if (run === this.#view.run && error === this.#view.error) return
    this.#view = { run, error: error as PgflowError | null }
    this.#notify()
    this.#reportEnd()
  }

  #reportEnd(): void {
    const { run } = this.#view
    if (run === null) return
    const ended = hasEnded(run)
    const isNew = ended && this.#hadEnded === false
    this.#hadEnded = ended
    // What the callback throws is reported like an error in an event handler, and stops nothing here.
    if (isNew) queueMicrotask(() => this.#onEnd(run))
  }

  /** The run, if it can be shown without a request. One that had ended may have been retried by somebody else. */
  #find(): Live | undefined {
    if (this.#live === undefined && this.#initialRun !== undefined) {
      this.#live = this.#lives.at(this.#initialRun)
      void this.#live.adopt(this.#initialRun)
    }
    const known = this.#lives.get(this.#runId)
    return this.#live ?? (known?.store.closed ? undefined : known)
  }

  /** Asks until there is an answer: the run, or a refusal. */
  async #fetch(signal: AbortSignal): Promise<Live | undefined> {
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        return await fetchRun(this.#lives, this.#runId)
      } catch (error) {
        if (signal.aborted) return undefined
        this.#fail(error)
        // Only a session that has ended may come back by itself.
        if (isRefusal(error) && error.status !== 401) return undefined
        await nextTry(failures, signal)
      }
    }
    return undefined
  }

  /** What the server refuses to show is not shown any longer. */
  #fail(error: unknown): void {
    const isGone = isRefusal(error) && (error.status === 403 || error.status === 404)
    this.#show(isGone ? null : this.#view.run, error)
  }

  #follow(live: Live, signal: AbortSignal): void {
    if (signal.aborted) return
    this.#live = live
    const undo: (() => void)[] = []
    let held = false
    const look = () => {
      if (!held && !live.store.closed) {
        held = true
        undo.push(live.hold())
      }
      this.#show(live.store.isEmpty ? null : live.snapshot)
    }
    undo.push(
      live.events.on('changed', look),
      live.events.on('refused', (error) => this.#fail(error)),
    )
    signal.addEventListener('abort', () => {
      for (const stop of undo) stop()
    })
    look()
  }
}

/** For each run that a server has read, how often the user had changed when it was first given. */
const givenAt = new WeakMap<RunSnapshot, number>()

/** Whether the user is still the one to whom the run was given: components may be mounted with it again later. */
function isOfCurrentUser(initialRun: RunSnapshot, { userChanges }: Lives): boolean {
  const given = givenAt.get(initialRun) ?? userChanges
  givenAt.set(initialRun, given)
  return given === userChanges
}

/** Whether the run is over, and all its steps as well: their last events follow that of the run. */
function hasEnded(run: RunSnapshot): boolean {
  return isOver(run) && run.steps.every(({ status }) => status !== 'created' && status !== 'started')
}

/** Resolves when it is time to ask again, or when the subscription ends. */
function nextTry(failures: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const now = () => {
      clearTimeout(timer)
      unwake()
      unhear()
      resolve()
    }
    const timer = setTimeout(now, backOff(failures))
    const unwake = onWake(now)
    const unhear = onAbort(signal, now)
  })
}
