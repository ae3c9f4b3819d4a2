import { isRefusal, type PgflowError } from '../client/errors.ts'
import type { RunSnapshot } from '../client/index.ts'
import type { Live } from '../client/live.ts'
import type { Lives } from '../client/lives.ts'
import { backOff, onWake } from '../client/timing.ts'

/** What is known of a run; it is never changed, but replaced. */
export interface RunView {
  readonly run: RunSnapshot | null
  readonly error: PgflowError | null
}

/**
 * One run for one component, as `useSyncExternalStore` wants it. What has to be asked of the server is asked while
 * somebody is subscribed; everything behind it is shared with whoever else shows the run.
 */
export class RunSource {
  readonly #lives: Lives
  readonly #runId: string
  readonly #initialRun: RunSnapshot | undefined
  readonly #initial: RunView
  #live: Live | undefined
  #view: RunView

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
    const show = (view: RunView) => {
      this.#view = view
      notify()
    }
    const live = this.#find()
    if (live !== undefined) this.#follow(live, show, signal)
    else void this.#fetch(show, signal).then((fetched) => fetched && this.#follow(fetched, show, signal))
    return () => subscription.abort()
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
  async #fetch(show: (view: RunView) => void, signal: AbortSignal): Promise<Live | undefined> {
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        return await this.#lives.fetch(this.#runId)
      } catch (error) {
        if (signal.aborted) return undefined
        // All that a request is rejected with is of this class.
        show({ run: this.#view.run, error: error as PgflowError })
        // Only a session that has ended may come back by itself.
        if (isRefusal(error) && error.status !== 401) return undefined
        await nextTry(failures, signal)
      }
    }
    return undefined
  }

  #follow(live: Live, show: (view: RunView) => void, signal: AbortSignal): void {
    if (signal.aborted) return
    this.#live = live
    const undo: (() => void)[] = []
    let held = false
    const look = (error: PgflowError | null = null) => {
      if (!held && !live.closed) {
        held = true
        undo.push(live.hold())
      }
      if (live.snapshot !== this.#view.run || error !== this.#view.error) show({ run: live.snapshot, error })
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
      resolve()
    }
    const timer = setTimeout(now, backOff(failures))
    const unwake = onWake(now)
    signal.addEventListener('abort', now)
  })
}
