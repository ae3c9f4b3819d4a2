import type { PgflowError } from '../shared/errors.ts'
import { pageSize, type SyncedRun } from './api.ts'
import { type Message, SharedChannel } from './channel.ts'
import type { Connection } from './connection.ts'
import { errorFrom, isRefusal } from './errors.ts'
import type { WireEvent } from './store.ts'
import { checkInterval, onWake, pollDelay } from './timing.ts'

/** Who wants to know what becomes of a run; without a run (`''`), which waits begin and end that the user may complete. */
export interface Reader {
  readonly runId: string
  /** The number of the last event that is known; `Infinity` to learn only where the run stands. */
  readonly cursor: number
  /** Whether there is something to read that is known to be there. */
  readonly behind: boolean
  /** Takes what was broadcast: perhaps not all there was, and without events where they are too large for it. */
  receive(events: readonly WireEvent[]): void
  /** Takes what was read, `undefined` if there was nothing new; returns whether it had events that were not known. */
  update(run: SyncedRun | undefined): boolean
  /** The server has refused to show the run, or all that it is asked for. */
  refuse(error: PgflowError): void
}

/**
 * Keeps all runs of a supabase-js client current, for as long as somebody reads them. The log in the database is the truth:
 * one request reads what is new of all of them, at the start, after each join, on a gap, on waking up and every few seconds.
 * One channel makes it fast.
 */
export class Sync {
  readonly #connection: Connection
  readonly #channel: SharedChannel
  readonly #readers = new Set<Reader>()
  /** Names the topic of a client with a secret key. Made when it is needed: frameworks refuse random values in a prerendering. */
  #id: string | undefined
  readonly #due = new Set<Reader>()
  #current: Promise<void> | undefined
  #next: Promise<void> | undefined
  #unwake: (() => void) | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #failures = 0
  #idle = 0
  /** When all runs are to be read again, in milliseconds. */
  #checkAt = 0
  /** The runs of which the channel has to deliver all that happens from now on. */
  #covered = new Set<string>()
  /** The last event of each run that was read, and that the channel should have delivered. */
  readonly #owed = new Map<string, number>()
  /** How often the channel has not delivered it until the next look. */
  #losses = 0

  constructor(connection: Connection) {
    this.#connection = connection
    this.#channel = new SharedChannel(connection.supabase, {
      receive: (message) => this.#receive(message),
      changed: () => this.#restart(),
    })
  }

  /** Reads a run now and keeps it current, until the returned function is called. */
  add(reader: Reader): () => void {
    this.#readers.add(reader)
    this.#unwake ??= onWake(() => void this.#channel.refreshToken().then(() => this.#restart()))
    void this.read([reader])
    return () => {
      this.#covered.delete(reader.runId)
      if (this.#readers.delete(reader) && this.#readers.size === 0) this.#stop()
    }
  }

  /** Settled when the channel is left, if nobody reads any run. */
  async left(): Promise<void> {
    if (this.#readers.size === 0) await this.#channel.close()
  }

  /** Reads what is new of runs; settled when that is known, or cannot be for now. */
  read(readers: Iterable<Reader>): Promise<void> {
    for (const reader of readers) this.#due.add(reader)
    this.#next ??= this.#readDue()
    return this.#next
  }

  /** Forgets what was for the former user. */
  reset(): void {
    this.#due.clear()
    this.#stop()
  }

  #stop(): void {
    clearTimeout(this.#timer)
    this.#unwake?.()
    this.#unwake = undefined
    this.#failures = 0
    void this.#channel.close()
  }

  /** The channel is joined, or has been lost, or may be: what was broadcast until now may have been missed. */
  #restart(): void {
    this.#covered = new Set()
    this.#owed.clear()
    this.#idle = 0
    void this.read(this.#readers)
  }

  #receive({ runs = [], waits }: Message): void {
    this.#losses = 0
    const messages = new Map<string, readonly WireEvent[]>(waits && [['', []]])
    for (const { run_id, events } of runs) {
      messages.set(run_id, events)
      if (events.length === 0 || events.at(-1)!.seq >= this.#owed.get(run_id)!) this.#owed.delete(run_id)
    }
    for (const reader of this.#readers) {
      const events = messages.get(reader.runId)
      if (events === undefined) continue
      reader.receive(events)
      if (!reader.runId || (events.length > 0 && !reader.behind)) continue
      this.#idle = 0
      void this.read([reader])
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#readers.size === 0) return
    const failures = this.#failures
    const behind = [...this.#readers].filter((reader) => reader.behind)
    const joined = this.#channel.joined && this.#owed.size === 0
    const delay = pollDelay({ failures, idle: this.#idle, behind: behind.length > 0, joined })
    const untilCheck = failures > 0 ? delay : this.#checkAt - performance.now()
    this.#timer = setTimeout(
      () => {
        this.#idle++
        // After the first look, the second, the fourth, the eighth …
        if (this.#owed.size > 0 && (++this.#losses & (this.#losses - 1)) === 0) void this.#channel.renew()
        void this.read(delay < untilCheck && behind.length > 0 ? behind : this.#readers)
      },
      Math.min(delay, untilCheck),
    )
  }

  /** Waits for the request that is under way: what was asked for meanwhile is read together. */
  async #readDue(): Promise<void> {
    await this.#current
    this.#current = this.#next
    this.#next = undefined
    const due = [...this.#due]
    this.#due.clear()
    // All that are open are looked at within a time, whatever else is read meanwhile.
    if (due.length >= this.#readers.size) this.#checkAt = performance.now() + checkInterval
    for (let i = 0; i < due.length; i += pageSize) await this.#readPage(due.slice(i, i + pageSize))
    this.#schedule()
  }

  async #readPage(readers: readonly Reader[]): Promise<void> {
    const { user } = this.#connection
    const { changes } = user
    // A page without a secure context cannot make one, and has no secret key.
    this.#id ??= globalThis.crypto?.randomUUID?.() ?? readers[0]!.runId
    // A channel that is joined while this is being read need not have delivered it.
    const covered = this.#channel.joined ? this.#covered : new Set()
    try {
      // JSON makes `null` of `Infinity`, as the server expects it.
      const cursors: Record<string, number> = {}
      for (const { runId, cursor } of readers) {
        if (runId) cursors[runId] = Math.min(cursor, cursors[runId] ?? cursor)
      }
      const answer = await this.#connection.call('sync', {
        cursors,
        watch: this.#channel.refused ? undefined : this.#id,
      })
      if (changes !== user.changes) return
      const { missing, topic } = answer
      const answers = new Map([...answer.runs, ...missing].map((run) => [run.run_id, run]))
      const isCurrent = user.isCurrent(answer.user_id)
      // The network may have swallowed messages, too, while requests failed.
      if (this.#failures > 0) void this.#channel.renew()
      this.#failures = missing.length > 0 && !isCurrent ? this.#failures + 1 : 0
      const unfinished: Reader[] = []
      for (const reader of readers) {
        const { runId, cursor } = reader
        const run = answers.get(runId)
        if (run && 'code' in run) {
          // Whoever asked without their session is not told of their runs: they are asked for again.
          if (isCurrent) reader.refuse(errorFrom(run, { status: 404 }))
          continue
        }
        const isNews = reader.update(run)
        if (isNews) this.#idle = 0
        if (run?.more && reader.cursor !== cursor) unfinished.push(reader)
        if (run?.watched === false) continue
        if (isNews && covered.has(runId)) this.#owed.set(runId, run!.seq)
        covered.add(runId)
        if (topic && this.#readers.size > 0) this.#channel.open(topic)
      }
      if (unfinished.length > 0) await this.#readPage(unfinished)
    } catch (error) {
      if (changes !== user.changes) return
      this.#failures++
      if (isRefusal(error)) for (const reader of readers) reader.refuse(error)
    }
  }
}
