import { isRefusal } from '../client/errors.ts'
import type { PgflowError, RunSnapshot } from '../client/index.ts'
import type { Live } from '../client/live.ts'
import type { Lives } from '../client/lives.ts'
import { backOff, onWake } from '../client/timing.ts'
import { onAbort } from '../shared/abort.ts'

/** What is known of a run; it is never changed, but replaced. */
export interface RunView {
  readonly run: RunSnapshot | null
  readonly error: PgflowError | null
}

/**
 * One run for one component, as `useSyncExternalStore` wants it. What has to be asked of the server is asked while the
 * component is subscribed; everything behind it is shared with whoever else shows the run.
 */
export class RunSource {
  readonly #lives: Lives
  readonly #runId: string
  readonly #initialRun: RunSnapshot | undefined
  readonly #initial: RunView
  #view: RunView
  #live: Live | undefined
  #notify = () => {}
  #acting = false

  constructor(lives: Lives, runId: string, initialRun?: RunSnapshot) {
    this.#lives = lives
    this.#runId = runId
    this.#initialRun = initialRun?.run_id === runId ? initialRun : undefined
    this.#initial = { run: this.#initialRun ?? null, error: null }
    const known = lives.get(runId)?.snapshot
    const isNewer = known !== undefined && known.seq > (this.#initialRun?.seq ?? 0)
    this.#view = isNewer ? { run: known, error: null } : this.#initial
  }

  /** What a server renders, and what a page begins with. */
  readonly initial = (): RunView => this.#initial

  readonly view = (): RunView => this.#view

  readonly subscribe = (notify: () => void): (() => void) => {
    const subscription = new AbortController()
    const { signal } = subscription
    this.#notify = notify
    const live = this.#find()
    if (live !== undefined) this.#follow(live, signal)
    else void this.#fetch(signal).then((fetched) => fetched && this.#follow(fetched, signal))
    return () => subscription.abort()
  }

  readonly cancel = (reason?: string): Promise<void> => this.#act((live) => live.cancel(reason))

  readonly retry = (): Promise<void> => this.#act((live) => live.retry())

  /** One thing at a time; what fails is shown. */
  async #act(action: (live: Live) => Promise<void>): Promise<void> {
    if (this.#acting) return
    this.#acting = true
    try {
      this.#show(this.#view.run)
      await action(this.#live ?? (await this.#lives.fetch(this.#runId)))
    } catch (error) {
      this.#show(this.#view.run, error)
    } finally {
      this.#acting = false
    }
  }

  /** All that a request is rejected with is a `PgflowError`. */
  #show(run: RunSnapshot | null, error: unknown = null): void {
    if (run === this.#view.run && error === this.#view.error) return
    this.#view = { run, error: error as PgflowError | null }
    this.#notify()
  }

  /** The run, where nothing has to be asked to show it. One that was over may have been retried by somebody else. */
  #find(): Live | undefined {
    if (this.#live === undefined && this.#initialRun !== undefined) {
      this.#live = this.#lives.at(this.#initialRun)
      void this.#live.adopt(this.#initialRun)
    }
    const known = this.#lives.get(this.#runId)
    return this.#live ?? (known?.closed ? undefined : known)
  }

  /** Asks until there is an answer: the run, or a refusal. */
  async #fetch(signal: AbortSignal): Promise<Live | undefined> {
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        return await this.#lives.fetch(this.#runId)
      } catch (error) {
        if (signal.aborted) return undefined
        this.#show(this.#view.run, error)
        // Only a session that has ended may come back by itself.
        if (isRefusal(error) && error.status !== 401) return undefined
        await nextTry(failures, signal)
      }
    }
    return undefined
  }

  #follow(live: Live, signal: AbortSignal): void {
    if (signal.aborted) return
    this.#live = live
    const undo: (() => void)[] = []
    let held = false
    const look = (error?: PgflowError) => {
      if (!held && !live.closed) {
        held = true
        undo.push(live.hold())
      }
      this.#show(live.snapshot, error)
    }
    undo.push(
      live.events.on('changed', () => look()),
      live.events.on('refused', look),
    )
    signal.addEventListener('abort', () => {
      for (const stop of undo) stop()
    })
    look()
  }
}

/** Resolves when it is time to ask again, or when nobody wants to know any more. */
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
