import type { SyncedRun } from '../client/api.ts'
import { isRefusal } from '../client/errors.ts'
import type { ListOptions, PgflowClient, PgflowError, RunRow } from '../client/index.ts'
import type { WireEvent } from '../client/store.ts'
import type { Reader } from '../client/sync.ts'
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

/** Milliseconds between two readings of a list of which many runs change at once. */
const pause = 1000

/** Says when an open run of a list has another status than the one that is listed. */
class ListedRun implements Reader {
  readonly runId: string
  readonly #status: string
  readonly #changed: () => void
  /** Until it is known, the server says where the run stands. */
  cursor = Number.POSITIVE_INFINITY
  readonly behind = false

  constructor({ run_id, status }: RunRow, changed: () => void) {
    this.runId = run_id
    this.#status = status
    this.#changed = changed
  }

  receive(events: readonly WireEvent[]): void {
    this.cursor = Math.max(this.cursor, events.at(-1)?.seq ?? 0)
    if (events.some(({ type }) => type.startsWith('run:'))) this.#changed()
  }

  update(run: SyncedRun | undefined): boolean {
    if (run === undefined) return false
    const isNews = run.seq > this.cursor
    // What it has become is all that counts: its other events are not needed.
    this.cursor = run.seq
    if (run.status !== this.#status) this.#changed()
    return isNews
  }

  refuse(): void {
    this.#changed()
  }
}

/**
 * The runs of one component's list, as `useSyncExternalStore` expects them. They are read again when one of them ends, when a
 * run of this client begins, when the page is shown again, and every 2 to 30 seconds while some are open.
 */
export class RunList {
  readonly #client: PgflowClient
  readonly #filter: RunFilter
  readonly #step: number
  #limit: number
  #view = unknown
  #notify: (() => void) | undefined
  #follows = false
  #userChanges: number
  #timer: ReturnType<typeof setTimeout> | undefined
  #reading = false
  #readAgain = false
  #idle = 0
  #failures = 0
  /** The open runs of the list, and the ends of following them. */
  readonly #open = new Map<string, () => void>()
  #readAt = 0
  #pause: ReturnType<typeof setTimeout> | undefined

  constructor(client: PgflowClient, { limit = 50, ...filter }: RunFilter) {
    this.#client = client
    this.#userChanges = client.lives.userChanges
    this.#filter = filter
    this.#step = limit
    this.#limit = limit
  }

  readonly initial = (): ListView => unknown

  readonly view = (): ListView => this.#view

  /** Reads the list now, and whenever it may have changed. */
  readonly subscribe = (notify: () => void): (() => void) => this.#subscribe(notify, true)

  /** Reads the list only when `refresh` or `more` is called. */
  readonly subscribeIdle = (notify: () => void): (() => void) => this.#subscribe(notify, false)

  readonly refresh = (): void => {
    this.#idle = 0
    void this.#read()
  }

  readonly more = (): void => {
    this.#limit += this.#step
    this.refresh()
  }

  #subscribe(notify: () => void, follows: boolean): () => void {
    const { events } = this.#client.lives
    this.#notify = notify
    this.#follows = follows
    const userChanged = () => {
      this.#forgetFormerUser()
      if (follows) this.refresh()
    }
    const undo = [events.on('userChanged', userChanged)]
    if (follows)
      undo.push(
        events.on('runsChanged', (isNew) => (isNew ? this.refresh() : this.#readSoon())),
        onWake(this.refresh),
      )
    userChanged()
    return () => {
      this.#notify = undefined
      this.#follows = false
      clearTimeout(this.#timer)
      clearTimeout(this.#pause)
      this.#pause = undefined
      this.#followRuns([])
      for (const stop of undo) stop()
    }
  }

  #forgetFormerUser(): void {
    const { userChanges } = this.#client.lives
    if (this.#userChanges === userChanges) return
    this.#userChanges = userChanges
    this.#limit = this.#step
    this.#failures = 0
    this.#followRuns([])
    this.#show(unknown)
  }

  /** Has the status of runs that are open watched, through the channel and the requests of all runs of the client. */
  #followRuns(runs: readonly RunRow[]): void {
    const open = new Map(runs.filter(({ status }) => status === 'started').map((run) => [run.run_id, run]))
    for (const [runId, stop] of this.#open) {
      if (open.has(runId)) continue
      this.#open.delete(runId)
      stop()
    }
    for (const [runId, run] of open) {
      if (this.#open.has(runId)) continue
      this.#open.set(runId, this.#client.lives.sync.add(new ListedRun(run, this.#readSoon)))
    }
  }

  /** The first change is read at once; those that follow it closely, together. */
  readonly #readSoon = (): void => {
    this.#pause ??= setTimeout(
      () => {
        this.#pause = undefined
        this.refresh()
      },
      this.#readAt + pause - performance.now(),
    )
  }

  /** Reads the list. If this is called while it is being read, it is read once more. */
  async #read(): Promise<void> {
    this.#readAgain = this.#reading
    if (this.#reading) return
    clearTimeout(this.#timer)
    this.#reading = true
    this.#readAt = performance.now()
    do {
      this.#readAgain = false
      await this.#readOnce()
    } while (this.#readAgain && this.#notify)
    this.#reading = false
  }

  async #readOnce(): Promise<void> {
    const { userChanges } = this.#client.lives
    const isForFormerUser = () => this.#client.lives.userChanges !== userChanges
    try {
      const { runs, cursor } = await this.#client.listRuns({ ...this.#filter, limit: this.#limit })
      if (isForFormerUser()) return
      this.#failures = 0
      this.#show({ runs, error: null, hasMore: cursor !== null })
      if (this.#follows) this.#followRuns(runs)
      if (runs.some(({ status }) => status === 'started'))
        this.#readLater(Math.min(30_000, 2000 * 2 ** this.#idle++))
    } catch (error) {
      if (isForFormerUser()) return
      // All that a request is rejected with is of this class.
      const known = isRefusal(error) && error.status !== 401 ? unknown : this.#view
      this.#show({ ...known, error: error as PgflowError })
      // Only a session that has ended may come back by itself.
      if (!isRefusal(error) || error.status === 401) this.#readLater(backOff(++this.#failures))
    }
  }

  #readLater(ms: number): void {
    if (this.#follows) this.#timer = setTimeout(() => void this.#read(), ms)
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
