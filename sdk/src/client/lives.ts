import { Live } from './live.ts'
import type { SupabaseLike } from './supabase.ts'
import type { RunSnapshot } from './types.ts'

/** The runs that somebody looks at through one supabase-js client: one `Live` for each, however many look. */
class Lives {
  readonly #supabase: SupabaseLike
  readonly #lives = new Map<string, WeakRef<Live>>()
  readonly #forgotten = new FinalizationRegistry<string>((runId) => {
    if (this.#lives.get(runId)?.deref() === undefined) this.#lives.delete(runId)
  })

  constructor(supabase: SupabaseLike) {
    this.#supabase = supabase
  }

  async at(snapshot: RunSnapshot): Promise<Live> {
    const known = this.#lives.get(snapshot.run_id)?.deref()
    if (known !== undefined) {
      await known.adopt(snapshot)
      return known
    }
    const live = new Live(this.#supabase, snapshot)
    this.#lives.set(snapshot.run_id, new WeakRef(live))
    this.#forgotten.register(live, snapshot.run_id)
    return live
  }
}

const clients = new WeakMap<SupabaseLike, Lives>()

/** The live run of a snapshot, shared by all who use the same supabase-js client. */
export function liveAt(supabase: SupabaseLike, snapshot: RunSnapshot): Promise<Live> {
  const lives = clients.get(supabase) ?? new Lives(supabase)
  clients.set(supabase, lives)
  return lives.at(snapshot)
}
