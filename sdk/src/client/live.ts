import { createNanoEvents } from 'nanoevents'
import { orAbort } from '../shared/abort.ts'
import type { PgflowError } from '../shared/errors.ts'
import { getRun, type RunChange, type SyncedRun } from './api.ts'
import type { Connection } from './connection.ts'
import { isRefusal } from './errors.ts'
import { argumentsFrom, type CallOptions } from './options.ts'
import { emptied, isOver, RunStore, type WireEvent } from './store.ts'
import type { Reader, Sync } from './sync.ts'
import type { RunEvent, RunSnapshot } from './types.ts'

interface LiveEvents {
  /** The log is known, and nothing has been applied yet; or it is not known any more, since the user has changed. */
  loaded: () => void
  applied: (event: RunEvent) => void
  /** The snapshot is another one, or can be read again. */
  changed: () => void
  refused: (error: PgflowError) => void
}

/** One run, which is kept current while somebody holds it, and until it is over. */
export class Live implements Reader {
  readonly events = createNanoEvents<LiveEvents>()
  readonly connection: Connection
  readonly #sync: Sync
  /** What is known of it; another one after each change of users. */
  store: RunStore
  readonly #holders = new Set<object>()
  /** Ends that the run is kept current; there while it is. */
  #leave: (() => void) | undefined
  /** Whether the last answer said that there is more. */
  #more = false
  /** The request for the whole run that is under way. */
  #fetching: Promise<void> | undefined
  #refused = false

  constructor(connection: Connection, sync: Sync, snapshot: RunSnapshot) {
    this.connection = connection
    this.#sync = sync
    this.store = new RunStore(snapshot)
  }

  get snapshot(): RunSnapshot {
    return this.store.snapshot
  }

  get runId(): string {
    return this.snapshot.run_id
  }

  /** `Infinity` while only a snapshot is needed, after which the log is asked for. */
  get cursor(): number {
    return this.store.isEmpty ? Number.POSITIVE_INFINITY : this.store.cursor
  }

  get behind(): boolean {
    const { loaded, missing, closed } = this.store
    return this.#more || !loaded || missing !== undefined || (isOver(this.snapshot) && !closed)
  }

  /**
   * Calls a function that changes the run, and takes what it answers.
   *
   * @param known the names of its arguments and options, as in `checkOptions`
   */
  async change(name: RunChange, known: string, options: CallOptions, step_slug?: string): Promise<void> {
    const args = await argumentsFrom<object>(options, known)
    // Whoever calls it names what this function takes.
    const all = { ...args, run_id: this.runId, step_slug } as never
    await this.adopt(await this.connection.call(name, all, options), options.signal)
  }

  /** Takes a snapshot that somebody has fetched, unless the run is being kept current. */
  take(snapshot: RunSnapshot): this {
    if ((this.#leave && !this.store.isEmpty) || !this.store.restart(snapshot)) return this
    if (this.#leave) void this.#sync.read([this])
    this.events.emit('changed')
    return this
  }

  /** Takes a snapshot that somebody has fetched; settled when this run is as new, or cannot be for now. */
  async adopt(snapshot: RunSnapshot, signal?: AbortSignal): Promise<void> {
    this.take(snapshot)
    if (this.snapshot.seq < snapshot.seq) await orAbort(this.#readNow(), signal)
    // A run that was over may have been retried.
    if (this.#holders.size > 0) this.#start()
  }

  /** Forgets what was read as another user. While somebody holds the run, it is read again. */
  reset(): void {
    this.#stop()
    this.store = new RunStore(emptied(this.snapshot))
    this.#more = false
    this.#refused = false
    this.#fetching = undefined
    this.events.emit('loaded')
    if (this.#holders.size > 0) this.#start()
  }

  /** Keeps the run current until the returned function has been called, as often as it was asked for. */
  hold(): () => void {
    const holder = {}
    this.#holders.add(holder)
    this.#start()
    return () => {
      if (this.#holders.delete(holder) && this.#holders.size === 0) this.#stop()
    }
  }

  /** Settled when the channel is left, if nobody needs it. */
  left(): Promise<void> {
    return this.#sync.left()
  }

  receive(events: readonly WireEvent[]): void {
    this.store.add(events)
    this.#deliver()
  }

  update(run: SyncedRun | undefined): boolean {
    const store = this.store
    const { loaded } = store
    const news = store.add(run?.events ?? [])
    this.#more = run?.more ?? false
    if (!loaded && store.loaded) this.events.emit('loaded')
    this.#deliver()
    if (this.#refused && !store.isEmpty) {
      this.#refused = false
      this.events.emit('changed')
    }
    if (store.isEmpty || store.missing === 'output') this.#fetching ??= this.#fetch(store)
    else if (isOver(this.snapshot) && store.loaded && !this.#more && !store.missing) this.#stop()
    return news > 0
  }

  /** A refusal rejects the waits. Only a session that has ended may come back by itself. */
  refuse(error: PgflowError): void {
    if (error.status !== 401) this.#stop()
    this.#refused = true
    this.events.emit('refused', error)
  }

  #start(): void {
    if (this.#leave || (isOver(this.snapshot) && this.store.loaded)) return
    this.#leave = this.#sync.add(this)
  }

  #stop(): void {
    this.#leave?.()
    this.#leave = undefined
  }

  /** Settled when what is new is known, or cannot be for now. */
  async #readNow(): Promise<void> {
    await this.#sync.read([this])
    await this.#fetching
  }

  /** Reads the whole run: for its first snapshot, and for outputs that are too large for the log. */
  async #fetch(store: RunStore): Promise<void> {
    try {
      const snapshot = await getRun(this.connection, this.runId)
      if (store !== this.store) return
      if (store.restart(snapshot)) this.events.emit('changed')
      store.fill(snapshot)
      this.#deliver()
      if (this.#leave && this.behind) void this.#sync.read([this])
    } catch (error) {
      // What could be read before is asked for again; the next answer says whether it is refused.
      if (store === this.store && store.isEmpty && isRefusal(error)) this.refuse(error)
    } finally {
      if (store === this.store) this.#fetching = undefined
    }
  }

  /** Applies, then emits: what a listener sees of the run is never older than its event. */
  #deliver(): void {
    const before = this.snapshot
    for (let event = this.store.next(); event !== undefined; event = this.store.next()) {
      this.events.emit('applied', event)
    }
    if (this.snapshot !== before) this.events.emit('changed')
    if (this.store.loaded && this.store.closed) this.#stop()
  }
}
