import { createNanoEvents } from 'nanoevents'
import { orAbort } from '../shared/abort.ts'
import type { PgflowError } from '../shared/errors.ts'
import { cancelRun, getRun, retryRun, type SyncedRun } from './api.ts'
import type { Connection, RequestOptions } from './connection.ts'
import { isRefusal } from './errors.ts'
import { emptied, isOver, RunStore, type WireEvent } from './store.ts'
import type { Reader, Sync } from './sync.ts'
import type { RunEvent, RunSnapshot } from './types.ts'

interface LiveEvents {
  /** The log is known; nothing has been applied yet. */
  loaded: () => void
  /** The user has changed, and what was known is forgotten. */
  reset: () => void
  applied: (event: RunEvent) => void
  /** The snapshot is another one, or can be read again. */
  changed: () => void
  refused: (error: PgflowError) => void
}

/** One run, which is kept current while somebody holds it, and until it is over. */
export class Live implements Reader {
  readonly events = createNanoEvents<LiveEvents>()
  readonly #connection: Connection
  readonly #sync: Sync
  #store: RunStore
  #holders = 0
  /** Ends that the run is kept current; there while it is. */
  #leave: (() => void) | undefined
  /** Whether the last answer said that there is more. */
  #more = false
  #refused = false

  constructor(connection: Connection, sync: Sync, snapshot: RunSnapshot) {
    this.#connection = connection
    this.#sync = sync
    this.#store = new RunStore(snapshot)
  }

  get snapshot(): RunSnapshot {
    return this.#store.snapshot
  }

  get runId(): string {
    return this.snapshot.run_id
  }

  get cursor(): number {
    return this.#store.cursor
  }

  get behind(): boolean {
    const { loaded, missing, closed } = this.#store
    return this.#more || !loaded || missing !== undefined || (isOver(this.snapshot) && !closed)
  }

  /**
   * The events that a listener has not been told of; for a new one (0), those that made the run what it is now. None
   * until the log has been read.
   */
  eventsAfter(seq: number): readonly RunEvent[] {
    if (!this.#store.loaded) return []
    return seq === 0 ? this.#store.currentEvents : this.#store.log.slice(seq)
  }

  /** The event with this number, if it has happened; `null` if the run has ended before it. */
  eventAt(seq: number): RunEvent | null | undefined {
    if (!this.#store.loaded) return undefined
    return this.#store.log[seq - 1] ?? (this.#store.closed ? null : undefined)
  }

  /** Whether the user has changed since the run was read. */
  get isEmpty(): boolean {
    return this.#store.isEmpty
  }

  async cancel(reason?: string, options: RequestOptions = {}): Promise<void> {
    const snapshot = await cancelRun(this.#connection, this.runId, reason, options)
    await this.adopt(snapshot, options.signal)
  }

  async retry(options: RequestOptions = {}): Promise<void> {
    const snapshot = await retryRun(this.#connection, this.runId, options)
    await this.adopt(snapshot, options.signal)
  }

  /** Whether the run has ended, so that nothing more is to come. */
  get closed(): boolean {
    return this.#store.closed
  }

  /** Takes a snapshot that somebody has fetched, unless the run is being kept current. */
  take(snapshot: RunSnapshot): this {
    if ((this.#leave && !this.isEmpty) || !this.#store.restart(snapshot)) return this
    if (this.#leave) void this.#sync.read([this])
    this.events.emit('changed')
    return this
  }

  /** Takes a snapshot that somebody has fetched; settled when this run is as new, or cannot be for now. */
  async adopt(snapshot: RunSnapshot, signal?: AbortSignal): Promise<void> {
    this.take(snapshot)
    if (this.snapshot.seq < snapshot.seq) await orAbort(this.#sync.read([this]), signal)
    // A run that was over may have been retried.
    if (this.#holders > 0) this.#start()
  }

  /** Forgets what was read as another user. While somebody holds the run, it is read again. */
  reset(): void {
    this.#stop()
    this.#store = new RunStore(emptied(this.snapshot))
    this.#more = false
    this.#refused = false
    this.events.emit('reset')
    if (this.#holders > 0) this.#start()
  }

  /** Keeps the run current until the returned function has been called, as often as it was asked for. */
  hold(): () => void {
    this.#holders++
    this.#start()
    let held = true
    return () => {
      if (!held) return
      held = false
      this.#holders--
      if (this.#holders === 0) this.#stop()
    }
  }

  /** Settled when the channel is left, if nobody needs it. */
  left(): Promise<void> {
    return this.#sync.left()
  }

  receive(events: readonly WireEvent[]): void {
    this.#store.add(events)
    this.#deliver()
  }

  async update(run: SyncedRun | undefined): Promise<boolean> {
    const store = this.#store
    let news = 0
    try {
      if (store.isEmpty) await this.#readRun(store)
      if (store !== this.#store) return false
      const { loaded } = store
      news = store.add(run?.events ?? [])
      this.#more = run?.more ?? false
      if (!loaded && store.loaded) this.events.emit('loaded')
      this.#deliver()
      if (store.missing === 'output') {
        store.fill(await getRun(this.#connection, this.runId))
        if (store === this.#store) this.#deliver()
      }
    } catch (error) {
      // What could be read before is asked for again; the next answer says whether it is refused.
      if (store === this.#store && store.isEmpty && isRefusal(error)) this.refuse(error)
      return false
    }
    if (store !== this.#store) return false
    if (this.#refused) {
      this.#refused = false
      this.events.emit('changed')
    }
    if (isOver(this.snapshot) && store.loaded && !this.#more && store.missing === undefined) this.#stop()
    return news > 0
  }

  /** A refusal rejects the waits. Only a session that has ended may come back by itself. */
  refuse(error: PgflowError): void {
    if (error.status !== 401) this.#stop()
    this.#refused = true
    this.events.emit('refused', error)
  }

  #start(): void {
    if (this.#leave || (isOver(this.snapshot) && this.#store.loaded)) return
    this.#leave = this.#sync.add(this)
  }

  #stop(): void {
    this.#leave?.()
    this.#leave = undefined
  }

  async #readRun(store: RunStore): Promise<void> {
    const snapshot = await getRun(this.#connection, this.runId)
    if (store === this.#store && store.restart(snapshot)) this.events.emit('changed')
  }

  /** Applies, then emits: what a listener sees of the run is never older than its event. */
  #deliver(): void {
    const before = this.snapshot
    for (let event = this.#store.next(); event !== undefined; event = this.#store.next()) {
      this.events.emit('applied', event)
    }
    if (this.snapshot !== before) this.events.emit('changed')
    if (this.#store.loaded && this.#store.closed) this.#stop()
  }
}
