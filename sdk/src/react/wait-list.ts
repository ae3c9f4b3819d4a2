import { pageSize } from '../client/api.ts'
import type { ListWaitsOptions, PgflowClient, WaitRow } from '../client/index.ts'
import type { Reader } from '../client/sync.ts'
import type { AnyFlow } from '../flow/index.ts'
import type { ListSource } from './live-list.ts'

export type WaitFilter = Omit<ListWaitsOptions<AnyFlow>, 'afterWait' | 'signal'>

/** A user's topic is known without it. */
const anyUuid = '00000000-0000-4000-8000-000000000000'

/** Reads no run: while it is there, the channel of the user is joined, and says when a wait begins or is over. */
function inbox(changed: () => void): Reader {
  return {
    runId: '',
    cursor: 0,
    behind: false,
    receive: changed,
    update: () => false,
    refuse: changed,
  }
}

/** Lists the waits that the user may complete. */
export function waitList(client: PgflowClient, { flowSlug }: WaitFilter): ListSource<WaitRow> {
  let stop: (() => void) | undefined
  return {
    async read(limit) {
      const args = {
        flow_slug: flowSlug,
        quantity: Math.min(limit + 1, pageSize),
        after: undefined,
        watch: anyUuid,
      }
      const rows = await client.lives.connection.call('list_waits', args)
      return { rows: rows.slice(0, limit), hasMore: rows.length > limit }
    },
    // Others start and complete them.
    longestPause: () => 10_000,
    follow(waits, changed) {
      if (waits !== undefined) {
        stop ??= client.lives.sync.add(inbox(changed))
        return
      }
      stop?.()
      stop = undefined
    },
  }
}
