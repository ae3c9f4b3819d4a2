import { createNanoEvents } from 'nanoevents'
import { orAbort } from '../shared/abort.ts'
import type { PgflowError } from '../shared/errors.ts'
import { cancelRun, getRun, getRunEvents, pageSize, retryRun } from './api.ts'
import { RunChannel } from './channel.ts'
import type { Connection, RequestOptions } from './connection.ts'
import { isRefusal } from './errors.ts'
import { emptied, isOver, RunStore, type WireEvent } from './store.ts'
import { onWake, pollDelay } from './timing.ts'
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

/** So many polls in a row may find what the channel should have delivered, before it is left and joined again. */
const lossesAllowed = 2

/**
 * Keeps one run current while somebody holds it, and until the run is over. The log in the database is the truth: it is
 * read at the start, after each join, on a gap, on waking up and now and then. The channel only makes it fast.
 */
export class Live {
  readonly events = createNanoEvents<LiveEvents>()
  readonly #connection: Connection
  #store: RunStore
  readonly #channel: RunChannel
  #holders = 0
  #running = false
  #left: Promise<void> | undefined
  #unwake: (() => void) | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #reading: Promise<void> | undefined
  #readAgain = false
  #failures = 0
  #idle = 0
  #losses = 0
  /** Whether the last reading found events that the channel had not delivered. */
  #news = false

  constructor(connection: Connection, snapshot: RunSnapshot) {
    this.#connection = connection
    this.#store = new RunStore(snapshot)
    this.#channel = new RunChannel(connection.supabase, snapshot.run_id, {
      receive: (events) => this.#receive(events),
      joined: () => this.#hurry(),
      lost: () => this.#lost(),
    })
  }

  get snapshot(): RunSnapshot {
    return this.#store.snapshot
  }

  /**
   * The events that a listener has not been told of; for a new one (0), those that made the run what it is now. None
   * until the log has been read.
   */
  eventsAfter(seq: number): readonly RunEvent[] {
    return seq === 0 ? this.#store.currentEvents : this.#store.log.slice(seq)
  }

  /** The event with this number, if it has happened; `null` if the run has ended before it. */
  eventAt(seq: number): RunEvent | null | undefined {
    return this.#store.log[seq - 1] ?? (this.#store.loaded && this.#store.closed ? null : undefined)
  }

  /** Whether the user has changed since the run was read. */
  get isEmpty(): boolean {
    return this.#store.isEmpty
  }

  async cancel(reason?: string, options: RequestOptions = {}): Promise<void> {
    const snapshot = await cancelRun(this.#connection, this.snapshot.run_id, reason, options)
    await this.adopt(snapshot, options.signal)
  }

  async retry(options: RequestOptions = {}): Promise<void> {
    const snapshot = await retryRun(this.#connection, this.snapshot.run_id, options)
    await this.adopt(snapshot, options.signal)
  }

  /** Whether the run has ended, so that nothing more is to come. */
  get closed(): boolean {
    return this.#store.closed
  }

  /** Takes a snapshot that somebody has fetched, unless the run is being kept current. */
  take(snapshot: RunSnapshot): this {
    const { isEmpty } = this
    if ((this.#running && !isEmpty) || !this.#store.restart(snapshot)) return this
    // The user may read the run, and so may join its channel.
    if (this.#running && !isOver(snapshot)) this.#channel.open()
    this.events.emit('changed')
    return this
  }

  /** Takes a snapshot that somebody has fetched; settled when this run is as new, or cannot be for now. */
  async adopt(snapshot: RunSnapshot, signal?: AbortSignal): Promise<void> {
    this.take(snapshot)
    if (this.snapshot.seq < snapshot.seq) await orAbort(this.#read(), signal)
    // A run that was over may have been retried.
    if (this.#holders > 0) this.#start()
  }

  /** Forgets what was read as another user. While somebody holds the run, it is read again. */
  reset(): void {
    this.#stop()
    this.#store = new RunStore(emptied(this.snapshot))
    this.#reading = undefined
    this.#failures = 0
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

  /** Settled when the channel is left, if nobody holds the run. */
  async left(): Promise<void> {
    if (!this.#running) await this.#left
  }

  #start(): void {
    if (this.#running || (isOver(this.snapshot) && this.#store.loaded)) return
    this.#running = true
    if (!isOver(this.snapshot)) {
      this.#unwake = onWake(() => void this.#channel.refreshToken().then(() => this.#hurry()))
      // Whoever may not read the run may not join its channel either, and being refused there is expensive.
      if (!this.isEmpty) this.#channel.open()
    }
    this.#hurry()
  }

  #stop(): void {
    if (!this.#running) return
    this.#running = false
    clearTimeout(this.#timer)
    this.#unwake?.()
    this.#left = this.#channel.close()
  }

  #receive(events: readonly WireEvent[]): void {
    this.#losses = 0
    this.#store.add(events)
    // The log is being read, and its end is looked at when it is there.
    if (!this.#store.loaded) return
    this.#deliver()
    // A message without events, or beyond a gap, says that there is something to read; so may the end of the run.
    if (events.length === 0 || this.#store.missing || isOver(this.snapshot)) this.#hurry()
  }

  /** Applies, then emits: what a listener sees of the run is never older than its event. */
  #deliver(): void {
    const before = this.snapshot
    for (let event = this.#store.next(); event !== undefined; event = this.#store.next()) {
      this.events.emit('applied', event)
    }
    if (this.snapshot !== before) this.events.emit('changed')
    if (this.#store.closed) this.#stop()
  }

  #lost(): void {
    this.#idle = 0
    if (this.#reading === undefined) this.#schedule()
  }

  /** Something has happened: the log is read at once, and polled more often. */
  #hurry(): void {
    if (!this.#running) return
    this.#idle = 0
    void this.#read()
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (!this.#running) return
    const behind = this.#store.missing !== undefined
    const state = { failures: this.#failures, idle: this.#idle, behind, joined: this.#channel.joined }
    this.#timer = setTimeout(() => void this.#poll(), pollDelay(state))
  }

  async #poll(): Promise<void> {
    const { joined } = this.#channel
    this.#idle++
    await this.#read()
    if (!joined || !this.#news || ++this.#losses < lossesAllowed) return
    this.#losses = 0
    await this.#channel.renew()
  }

  /** Reads the log to its end; whoever asks meanwhile has it read once more. */
  #read(): Promise<void> {
    this.#readAgain = this.#reading !== undefined
    this.#reading ??= this.#readUntilQuiet(this.#store)
    return this.#reading
  }

  /** What is read into a store that has been replaced is of no interest any more. */
  async #readUntilQuiet(store: RunStore): Promise<void> {
    try {
      do {
        this.#readAgain = false
        await this.#readOnce(store)
        if (store !== this.#store) return
      } while (this.#readAgain && !store.closed)
      if (this.#failures > 0) this.events.emit('changed')
      this.#failures = 0
      if (isOver(this.snapshot) && store.missing === undefined) this.#stop()
    } catch (error) {
      if (store === this.#store) this.#fail(error)
    } finally {
      if (store === this.#store) {
        this.#reading = undefined
        this.#schedule()
      }
    }
  }

  async #readOnce(store: RunStore): Promise<void> {
    if (store.isEmpty) await this.#readRun(store)
    const log = await this.#readLog(store)
    if (store !== this.#store) return
    this.#news = store.add(log) > 0
    if (this.#news) this.#idle = 0
    if (!store.loaded) {
      store.load(log)
      this.events.emit('loaded')
    }
    this.#deliver()
    if (store.missing !== 'output') return
    store.fill(await getRun(this.#connection, this.snapshot.run_id))
    if (store === this.#store) this.#deliver()
  }

  async #readRun(store: RunStore): Promise<void> {
    const snapshot = await getRun(this.#connection, this.snapshot.run_id)
    if (store === this.#store) this.take(snapshot)
  }

  async #readLog(store: RunStore): Promise<WireEvent[]> {
    const log: WireEvent[] = []
    let after = store.loaded ? store.snapshot.seq : 0
    for (;;) {
      const page = await getRunEvents(this.#connection, store.snapshot.run_id, after, this.#channel.wanted)
      log.push(...page)
      const last = page.at(-1)
      if (last === undefined || page.length < pageSize) return log
      after = last.seq
    }
  }

  /** A refusal rejects the waits. Only a session that has ended may come back by itself. */
  #fail(error: unknown): void {
    this.#failures++
    if (!isRefusal(error)) return
    if (error.status !== 401) this.#stop()
    this.events.emit('refused', error)
  }
}
