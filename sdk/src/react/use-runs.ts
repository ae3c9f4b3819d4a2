import * as React from 'react'
import type { PgflowError, RunRow } from '../client/index.ts'
import type { AnyFlow } from '../flow/index.ts'
import { type RunFilter, runList } from './run-list.ts'
import { useLiveList } from './use-live-list.ts'

export interface UseRunsOptions extends RunFilter {
  /** With `false`, nothing is fetched; what was listed before is shown. @default true */
  readonly enabled?: boolean | undefined
}

/** Runs as they are listed; each change is another object. */
export interface RunsState<F extends AnyFlow = AnyFlow> {
  /** The newest first; `null` until they are known. */
  readonly runs: readonly RunRow<F>[] | null
  /** Why they cannot be listed at the moment. */
  readonly error: PgflowError | null
  /** Whether there are older ones. */
  readonly hasMore: boolean
  /** Lists one more page of older runs. */
  more(): void
  /** Reads the list again. */
  refresh(): void
}

/**
 * Lists runs, without their steps. The list is live: it is read again when one of its runs ends, wherever that happens, when
 * this client starts a run, when the page is shown again, and every 2 to 30 seconds while some of its runs are open.
 *
 * @example
 * const { runs } = useRuns<typeof AnalyzeDocument>({ flowSlug: 'analyze_document', status: 'failed' })
 * return <ul>{runs?.map((run) => <li key={run.run_id}>{run.input.path}</li>)}</ul>
 */
export function useRuns<F extends AnyFlow = AnyFlow>({
  enabled = true,
  ...filter
}: UseRunsOptions = {}): RunsState<F> {
  const [list, view] = useLiveList(filter, enabled, runList)
  return React.useMemo(() => {
    const { rows, ...others } = view
    // The caller says of which flow the runs are.
    const runs = rows as unknown as readonly RunRow<F>[] | null
    return { ...others, runs, more: list.more, refresh: list.refresh }
  }, [list, view])
}
