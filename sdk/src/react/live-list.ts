import { isRefusal } from '../client/errors.ts'
import type { PgflowClient, PgflowError } from '../client/index.ts'
import { backOff, onWake } from '../client/timing.ts'

/** What is known of a list; it is never changed, but replaced. */
export interface ListView<Row> {
  readonly rows: readonly Row[] | null
  readonly error: PgflowError | null
  readonly hasMore: boolean
}

const unknown: ListView<never> = { rows: null, error: null, hasMore: false }

/** Milliseconds between two readings of a list of which much changes at once. */
const pause = 1000

/** What a list has, and when it changes. */
export interface ListSource<Row> {
  read(limit: number): Promise<{ readonly rows: readonly Row[]; readonly hasMore: boolean }>
  /** Milliseconds after which the list is read again at the latest; `undefined` where it cannot change. */
  longestPause(rows: readonly Row[]): number | undefined
  /** Follows what was read, until it is called again; of no rows at the end. */
  follow(rows: readonly Row[] | undefined, changed: () => void): void
}

/**
 * One component's list, as `useSyncExternalStore` expects it. It is read again when what it follows changes, when a run of
 * this client begins or ends, when the page is shown again, and after 2, 4, 8 … seconds up to the longest pause of its source.
 */
export class LiveList<Row> {
  readonly #client: PgflowClient
  readonly #source: ListSource<Row>
  readonly #step: number
  #limit: number
  #view: ListView<Row> = unknown
  #notify: (() => void) | undefined
  #follows = false
  #userChanges: number
  #timer: ReturnType<typeof setTimeout> | undefined
  #reading = false
  #readAgain = false
  #idle = 0
  #failures = 0
  #readAt = 0
  #pause: ReturnType<typeof setTimeout> | undefined

  constructor(client: PgflowClient, source: ListSource<Row>, limit = 50) {
    this.#client = client
    this.#userChanges = client.lives.userChanges
    this.#source = source
    this.#step = limit
    this.#limit = limit
  }

  readonly initial = (): ListView<Row> => unknown

  readonly view = (): ListView<Row> => this.#view

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
      this.#follow(undefined)
      for (const stop of undo) stop()
    }
  }

  #forgetFormerUser(): void {
    const { userChanges } = this.#client.lives
    if (this.#userChanges === userChanges) return
    this.#userChanges = userChanges
    this.#limit = this.#step
    this.#failures = 0
    this.#follow(undefined)
    this.#show(unknown)
  }

  #follow(rows: readonly Row[] | undefined): void {
    this.#source.follow(rows, this.#readSoon)
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
      const { rows, hasMore } = await this.#source.read(this.#limit)
      if (isForFormerUser()) return
      this.#failures = 0
      this.#show({ rows, error: null, hasMore })
      if (this.#follows) this.#follow(rows)
      const longest = this.#source.longestPause(rows)
      if (longest !== undefined) this.#readLater(Math.min(longest, 2000 * 2 ** this.#idle++))
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

  #show(view: ListView<Row>): void {
    if (JSON.stringify(view.rows) === JSON.stringify(this.#view.rows)) {
      if (view.error === this.#view.error && view.hasMore === this.#view.hasMore) return
      view = { ...view, rows: this.#view.rows }
    }
    this.#view = view
    this.#notify?.()
  }
}
