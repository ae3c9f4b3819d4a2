import * as React from 'react'
import type { ChildRow, PgflowError } from '../client/index.ts'
import type { AnyFlow } from '../flow/index.ts'
import { childList } from './child-list.ts'
import { useLiveList } from './use-live-list.ts'

export interface UseChildrenOptions {
  /** The number of children on a page. @default 50 */
  readonly limit?: number
  /** With `false`, nothing is fetched; what was listed before is shown. @default true */
  readonly enabled?: boolean | undefined
}

/** The runs that a step has started; each change is another object. */
export interface ChildrenState<F extends AnyFlow = AnyFlow> {
  /** In the order of the items of a map; `null` until they are known. */
  readonly runs: readonly ChildRow<F>[] | null
  /** Why they cannot be listed at the moment. */
  readonly error: PgflowError | null
  /** Whether there are more. */
  readonly hasMore: boolean
  /** Lists one more page. */
  more(): void
  /** Reads the list again. */
  refresh(): void
}

/**
 * Lists the runs that a step of a run has started, a sub-flow. The list is live: it is read again when the step changes, when one of
 * them ends, when the page is shown again, and every 2 to 30 seconds while they or their parent are open.
 *
 * @param runId `null` or `undefined` while there is none: nothing is fetched
 *
 * @example
 * const { runs } = useChildren<typeof InvoiceLine>(runId, 'lines')
 * return <ul>{runs?.map((run) => <li key={run.run_id}>{run.input.sku}: {run.status}</li>)}</ul>
 */
export function useChildren<F extends AnyFlow = AnyFlow>(
  runId: string | null | undefined,
  stepSlug: string,
  { enabled = true, limit }: UseChildrenOptions = {},
): ChildrenState<F> {
  const filter = { runId: runId ?? '', stepSlug, ...(limit !== undefined && { limit }) }
  const [list, view] = useLiveList(filter, enabled && filter.runId !== '', childList)
  return React.useMemo(() => {
    const { rows, ...others } = view
    // The caller says of which flow the runs are.
    const runs = rows as unknown as readonly ChildRow<F>[] | null
    return { ...others, runs, more: list.more, refresh: list.refresh }
  }, [list, view])
}
