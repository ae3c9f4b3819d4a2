import { isRefusal } from '../client/errors.ts'
import type { ListOptions, PgflowClient, PgflowError, RunRow } from '../client/index.ts'
import { backOff, onWake } from '../client/timing.ts'
import type { AnyFlow } from '../flow/index.ts'

export type RunFilter = Omit<ListOptions<AnyFlow>, 'cursor' | 'signal'>

/** What is known of the runs; it is never changed, but replaced. */
export interface ListView {
  readonly runs: readonly RunRow[] | null
  readonly error: PgflowError | null
  readonly hasMore: boolean
}

const unknown: ListView = { runs: null, error: null, hasMore: false }

/**
 * The runs of one component's list, as `useSyncExternalStore` wants them. They are read again when a run of this client
 * begins or ends, when the page is shown again, and now and then while some are open.
 */
export class RunList {
  readonly #client: PgflowClient
  readonly #filter: RunFilter
  readonly #step: number
  #limit: number
  #view = unknown
  #notify: (() => void) | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #reading = false
  #readAgain = false
  #idle = 0
  #failures = 0

  constructor(client: PgflowClient, { limit = 50, ...filter }: RunFilter) {
    this.#client = client
    this.#filter = filter
    this.#step = limit
    this.#limit = limit
  }

  readonly initial = (): ListView => unknown

  readonly view = (): ListView => this.#view

  readonly subscribe = (notify: () => void): (() => void) => {
    this.#notify = notify
    const undo = [this.#client.lives.events.on('runsChanged', this.refresh), onWake(this.refresh)]
    this.refresh()
    return () => {
      this.#notify = undefined
      clearTimeout(this.#timer)
      for (const stop of undo) stop()
    }
  }

  readonly refresh = (): void => {
    this.#idle = 0
    void this.#read()
  }

  readonly more = (): void => {
    this.#limit += this.#step
    this.refresh()
  }

  /** Reads the list; whoever asks meanwhile has it read once more. */
  async #read(): Promise<void> {
    this.#readAgain = this.#reading
    if (this.#reading) return
    clearTimeout(this.#timer)
    this.#reading = true
    do {
      this.#readAgain = false
      await this.#readOnce()
    } while (this.#readAgain && this.#notify)
    this.#reading = false
  }

  async #readOnce(): Promise<void> {
    try {
      const { runs, cursor } = await this.#client.listRuns({ ...this.#filter, limit: this.#limit })
      this.#failures = 0
      this.#show({ runs, error: null, hasMore: cursor !== null })
      const open = runs.some(({ status }) => status === 'started')
      if (open) this.#readLater(Math.min(30_000, 2000 * 2 ** this.#idle++))
    } catch (error) {
      // All that a request is rejected with is of this class.
      this.#show({ ...this.#view, error: error as PgflowError })
      // Only a session that has ended may come back by itself.
      if (!isRefusal(error) || error.status === 401) this.#readLater(backOff(++this.#failures))
    }
  }

  #readLater(ms: number): void {
    if (this.#notify) this.#timer = setTimeout(() => void this.#read(), ms)
  }

  #show(view: ListView): void {
    if (JSON.stringify(view.runs) === JSON.stringify(this.#view.runs)) {
      if (view.error === this.#view.error && view.hasMore === this.#view.hasMore) return
      view = { ...view, runs: this.#view.runs }
    }
    this.#view = view
    this.#notify?.()
  }
}
