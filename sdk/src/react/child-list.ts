import type { SyncedRun } from '../client/api.ts'
import { pageSize } from '../client/api.ts'
import type { ChildRow, ListChildrenOptions, PgflowClient } from '../client/index.ts'
import type { WireEvent } from '../client/store.ts'
import type { Reader } from '../client/sync.ts'
import type { ListSource } from './live-list.ts'
import { isOpen, openRuns } from './run-list.ts'

export interface ChildFilter extends Pick<ListChildrenOptions, 'limit'> {
  readonly runId: string
  readonly stepSlug: string
}

/** Says when a step of the parent has changed, so that it may have started runs. */
class Parent implements Reader {
  readonly runId: string
  readonly #stepSlug: string
  readonly #changed: () => void
  isOpen = true
  cursor = Number.POSITIVE_INFINITY
  readonly behind = false

  constructor({ runId, stepSlug }: ChildFilter, changed: () => void) {
    this.runId = runId
    this.#stepSlug = stepSlug
    this.#changed = changed
  }

  receive(events: readonly WireEvent[]): void {
    this.cursor = Math.max(this.cursor, events.at(-1)?.seq ?? 0)
    if (events.some(({ type, step_slug }) => type.startsWith('run:') || step_slug === this.#stepSlug))
      this.#changed()
  }

  update(run: SyncedRun | undefined): boolean {
    if (run === undefined) return false
    const isNews = run.seq > this.cursor
    this.cursor = run.seq
    this.isOpen = isOpen(run)
    if (isNews) this.#changed()
    return isNews
  }

  refuse(): void {
    this.#changed()
  }
}

/** Lists the runs that a step has started, and follows them and their parent. */
export function childList(client: PgflowClient, filter: ChildFilter): ListSource<ChildRow> {
  const followRuns = openRuns(client)
  let parent: Parent | undefined
  let stop: (() => void) | undefined
  return {
    async read(limit) {
      const quantity = Math.min(limit + 1, pageSize)
      const { runId: run_id, stepSlug: step_slug } = filter
      const args = { run_id, step_slug, after: undefined, quantity }
      const rows = await client.lives.connection.call('list_children', args)
      return { rows: rows.slice(0, limit), hasMore: rows.length > limit }
    },
    // An open parent may start more of them.
    longestPause: (rows) => (parent?.isOpen !== false || rows.some(isOpen) ? 30_000 : undefined),
    follow(rows, changed) {
      followRuns(rows, changed)
      if (rows === undefined) {
        stop?.()
        stop = parent = undefined
      } else if (parent === undefined) {
        parent = new Parent(filter, changed)
        stop = client.lives.sync.add(parent)
      }
    },
  }
}
