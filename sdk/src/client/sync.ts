import type { PgflowError } from '../shared/errors.ts'
import { pageSize, type SyncedRun, sync } from './api.ts'
import { type RunMessage, SharedChannel } from './channel.ts'
import type { Connection } from './connection.ts'
import { errorFrom, isRefusal } from './errors.ts'
import type { WireEvent } from './store.ts'
import { checkInterval, onWake, pollDelay } from './timing.ts'

/** Who wants to know what becomes of a run. */
export interface Reader {
  readonly runId: string
  /** The number of the last event that is known; `null` to learn only where the run stands. */
  readonly cursor: number | null
  /** Whether there is something to read that is known to be there. */
  readonly behind: boolean
  /** Takes what was broadcast: perhaps not all there was, and without events where they are too large for it. */
  receive(events: readonly WireEvent[]): void
  /** Takes what was read, `undefined` if there was nothing new; returns whether it had events that were not known. */
  update(run: SyncedRun | undefined): Promise<boolean>
  /** The server has refused to show the run. */
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
  /** Names the topic of a client with a secret key; a user's does not need it, nor a page without a secure context. */
  readonly #id = globalThis.crypto?.randomUUID?.() ?? '00000000-0000-4000-8000-000000000000'
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
  readonly #covered = new Set<string>()
  /** The last event of each run that was read, and that the channel should have delivered. */
  readonly #owed = new Map<string, number>()
  /** How often the channel has not delivered it until the next look. */
  #losses = 0

  constructor(connection: Connection) {
    this.#connection = connection
    this.#channel = new SharedChannel(connection.supabase, {
      receive: (runs) => this.#receive(runs),
      changed: () => this.#restart(),
    })
  }

  /** Reads a run now and keeps it current, until the returned function is called. */
  add(reader: Reader): () => void {
    this.#readers.add(reader)
    this.#unwake ??= onWake(() => void this.#channel.refreshToken().then(() => this.#restart()))
    void this.read([reader])
    return () => {
      if (this.#readers.delete(reader) && this.#readers.size === 0) void this.#stop()
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
    this.#covered.clear()
    this.#owed.clear()
    this.#idle = 0
    void this.read(this.#readers)
  }

  #receive(runs: readonly RunMessage[]): void {
    this.#losses = 0
    const messages = new Map(runs.map((run) => [run.run_id, run.events]))
    for (const reader of this.#readers) {
      const { runId } = reader
      const events = messages.get(runId)
      if (events === undefined) continue
      reader.receive(events)
      const last = events.at(-1)
      if (!(last && last.seq < this.#owed.get(runId)!)) this.#owed.delete(runId)
      if (last && !reader.behind) continue
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
    try {
      const cursors: Record<string, number | null> = {}
      for (const { runId, cursor } of readers) cursors[runId] ??= cursor
      const answer = await sync(this.#connection, cursors, this.#channel.refused ? undefined : this.#id)
      if (changes !== user.changes) return
      const runs = new Map(answer.runs.map((run) => [run.run_id, run]))
      const refusals = new Map(answer.missing.map((run) => [run.run_id, run]))
      const isCurrent = user.isCurrent(answer.user_id)
      const unfinished: Reader[] = []
      const update = async (reader: Reader) => {
        const { runId } = reader
        const run = runs.get(runId)
        const refusal = refusals.get(runId)
        // Whoever asked without their session is not told of their runs: they are asked for again.
        if (refusal) return isCurrent && reader.refuse(errorFrom(refusal, { status: 404 }))
        const isNews = await reader.update(run)
        if (isNews) this.#idle = 0
        if (run?.more && run.events.length > 0) unfinished.push(reader)
        if (run?.watched === false) return
        if (isNews && this.#covered.has(runId)) this.#owed.set(runId, run!.events.at(-1)!.seq)
        if (this.#channel.joined) this.#covered.add(runId)
        if (answer.topic && this.#readers.size > 0) this.#channel.open(answer.topic)
      }
      // The network may have swallowed messages, too, while requests failed.
      if (this.#failures > 0) void this.#channel.renew()
      this.#failures = answer.missing.length > 0 && !isCurrent ? this.#failures + 1 : 0
      await Promise.all(readers.map(update))
      if (unfinished.length > 0 && changes === user.changes) await this.#readPage(unfinished)
    } catch (error) {
      if (changes !== user.changes) return
      this.#failures++
      if (isRefusal(error)) for (const reader of readers) reader.refuse(error)
    }
  }
}
