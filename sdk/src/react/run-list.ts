import type { SyncedRun } from '../client/api.ts'
import type { ListOptions, PgflowClient, RunRow } from '../client/index.ts'
import type { WireEvent } from '../client/store.ts'
import type { Reader } from '../client/sync.ts'
import type { AnyFlow } from '../flow/index.ts'
import type { ListSource } from './live-list.ts'

export type RunFilter = Omit<ListOptions<AnyFlow>, 'cursor' | 'signal'>

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

/** Follows the open ones among runs, through the channel and the requests of all runs of the client. */
export function openRuns(client: PgflowClient): ListSource<RunRow>['follow'] {
  const followed = new Map<string, () => void>()
  return (runs = [], changed) => {
    const open = new Map(runs.filter(isOpen).map((run) => [run.run_id, run]))
    for (const [runId, stop] of followed) {
      if (open.has(runId)) continue
      followed.delete(runId)
      stop()
    }
    for (const [runId, run] of open) {
      if (!followed.has(runId)) followed.set(runId, client.lives.sync.add(new ListedRun(run, changed)))
    }
  }
}

/** Lists runs, and follows those that are open. */
export function runList(client: PgflowClient, filter: RunFilter): ListSource<RunRow> {
  return {
    async read(limit) {
      const { runs, cursor } = await client.listRuns({ ...filter, limit })
      return { rows: runs, hasMore: cursor !== null }
    },
    longestPause: (runs) => (runs.some(isOpen) ? 30_000 : undefined),
    follow: openRuns(client),
  }
}

export function isOpen({ status }: Pick<RunRow, 'status'>): boolean {
  return status === 'started'
}
