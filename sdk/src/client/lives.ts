import { createNanoEvents } from 'nanoevents'
import { getRun } from './api.ts'
import { Live } from './live.ts'
import type { SupabaseLike } from './supabase.ts'
import type { RunSnapshot } from './types.ts'

/** The runs that somebody looks at through one supabase-js client: one `Live` for each, however many look. */
export class Lives {
  readonly events = createNanoEvents<{ /** A run has come, begun or ended. */ moved: () => void }>()
  readonly #supabase: SupabaseLike
  readonly #lives = new Map<string, WeakRef<Live>>()
  readonly #fetching = new Map<string, Promise<Live>>()
  readonly #forgotten = new FinalizationRegistry<string>((runId) => {
    if (this.get(runId) === undefined) this.#lives.delete(runId)
  })

  constructor(supabase: SupabaseLike) {
    this.#supabase = supabase
  }

  /** The run, if somebody has looked at it. */
  get(runId: string): Live | undefined {
    return this.#lives.get(runId)?.deref()
  }

  /** The run of a snapshot, which is taken if the run is not known yet. */
  at(snapshot: RunSnapshot): Live {
    const known = this.get(snapshot.run_id)
    if (known !== undefined) return known
    const live = new Live(this.#supabase, snapshot)
    this.#lives.set(snapshot.run_id, new WeakRef(live))
    this.#forgotten.register(live, snapshot.run_id)
    this.#watch(live)
    return live
  }

  /** The run of a snapshot, not older than it if that can be. */
  async adopt(snapshot: RunSnapshot): Promise<Live> {
    const live = this.at(snapshot)
    await live.adopt(snapshot)
    return live
  }

  #watch(live: Live): void {
    let { status } = live.snapshot
    live.events.on('changed', () => {
      if (status === live.snapshot.status) return
      status = live.snapshot.status
      this.events.emit('moved')
    })
    this.events.emit('moved')
  }

  /** The run, asked for once however many want it at the same time. */
  fetch(runId: string): Promise<Live> {
    const fetching =
      this.#fetching.get(runId) ??
      getRun(this.#supabase, runId)
        .then((snapshot) => this.adopt(snapshot))
        .finally(() => this.#fetching.delete(runId))
    this.#fetching.set(runId, fetching)
    return fetching
  }
}

const clients = new WeakMap<SupabaseLike, Lives>()

/** The live runs of a supabase-js client, shared by all who use it. */
export function livesOf(supabase: SupabaseLike): Lives {
  const lives = clients.get(supabase) ?? new Lives(supabase)
  clients.set(supabase, lives)
  return lives
}
