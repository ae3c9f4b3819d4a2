import { useMemo, useSyncExternalStore } from 'react'
import type { PgflowError, RunRow } from '../client/index.ts'
import type { AnyFlow } from '../flow/index.ts'
import { usePgflow } from './provider.ts'
import { type RunFilter, RunList } from './run-list.ts'

/** Runs as they are listed; each change is another object. */
export interface RunsState<F extends AnyFlow = AnyFlow> {
  /** The newest first; `null` until they are known. */
  readonly runs: readonly RunRow<F>[] | null
  /** Why they cannot be listed for now. */
  readonly error: PgflowError | null
  /** Whether there are older ones. */
  readonly hasMore: boolean
  /** Lists as many older ones again. */
  more(): void
  /** Lists them again. */
  refresh(): void
}

/**
 * Lists runs, without their steps. The list is read again when this client starts a run or sees one end, when the page
 * is shown again, and while some of its runs are open every 2 to 30 seconds.
 *
 * @example
 * const { runs } = useRuns<typeof AnalyzeDocument>({ flowSlug: 'analyze_document', status: 'failed' })
 * return <ul>{runs?.map((run) => <li key={run.run_id}>{run.input.path}</li>)}</ul>
 */
export function useRuns<F extends AnyFlow = AnyFlow>(filter: RunFilter = {}): RunsState<F> {
  const client = usePgflow()
  const key = JSON.stringify(filter)
  // The filter may be another object in each rendering.
  const list = useMemo(() => new RunList(client, JSON.parse(key)), [client, key])
  const view = useSyncExternalStore(list.subscribe, list.view, list.initial)
  return useMemo(() => {
    // The caller has said of which flow the runs are.
    const runs = view.runs as unknown as readonly RunRow<F>[] | null
    return { ...view, runs, more: list.more, refresh: list.refresh }
  }, [list, view])
}
