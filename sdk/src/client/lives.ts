import { createNanoEvents } from 'nanoevents'
import { Connection } from './connection.ts'
import { Live } from './live.ts'
import type { SupabaseLike } from './supabase.ts'
import { Sync } from './sync.ts'
import type { RunSnapshot } from './types.ts'

interface LivesEvents {
  /** A run has been started or found (`isNew`), or its status has changed. */
  runsChanged: (isNew: boolean) => void
  /** Another user has signed in, or the user has signed out. No run of the former user is known any more. */
  userChanged: () => void
}

/** The runs that are followed through one supabase-js client: one `Live` for each, shared by all who follow it. */
export class Lives {
  readonly events = createNanoEvents<LivesEvents>()
  readonly connection: Connection
  /** Keeps the runs current that somebody follows. */
  readonly sync: Sync
  readonly #lives = new Map<string, WeakRef<Live>>()
  readonly #forgotten = new FinalizationRegistry<string>((runId) => {
    if (this.#lives.get(runId)?.deref() === undefined) this.#lives.delete(runId)
  })

  constructor(supabase: SupabaseLike) {
    this.connection = new Connection(supabase)
    this.sync = new Sync(this.connection)
    this.connection.user.events.on('changed', () => this.#forget())
  }

  /** How often the user has changed. */
  get userChanges(): number {
    return this.connection.user.changes
  }

  /** The run, if the current user has read it. */
  get(runId: string): Live | undefined {
    const live = this.#lives.get(runId)?.deref()
    return live?.store.isEmpty ? undefined : live
  }

  /** The run of a snapshot, which is taken if the run is not known yet. */
  at(snapshot: RunSnapshot): Live {
    const known = this.#lives.get(snapshot.run_id)?.deref()
    if (known !== undefined) return known.take(snapshot)
    const live = new Live(this.connection, this.sync, snapshot)
    this.#lives.set(snapshot.run_id, new WeakRef(live))
    this.#forgotten.register(live, snapshot.run_id)
    let { status } = snapshot
    live.events.on('changed', () => {
      if (status === live.snapshot.status) return
      status = live.snapshot.status
      this.events.emit('runsChanged', false)
    })
    this.events.emit('runsChanged', true)
    return live
  }

  /** The run of a snapshot, not older than it if that can be. */
  async adopt(snapshot: RunSnapshot, signal?: AbortSignal): Promise<Live> {
    const live = this.at(snapshot)
    await live.adopt(snapshot, signal)
    return live
  }

  /** Nothing that the former user has read is kept. */
  #forget(): void {
    this.sync.reset()
    for (const live of this.#lives.values()) live.deref()?.reset()
    this.events.emit('userChanged')
  }
}

const clients = new WeakMap<SupabaseLike, Lives>()

/** The live runs of a supabase-js client, shared by all who use it. */
export function livesOf(supabase: SupabaseLike): Lives {
  const lives = clients.get(supabase) ?? new Lives(supabase)
  clients.set(supabase, lives)
  return lives
}
