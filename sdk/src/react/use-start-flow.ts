import * as React from 'react'
import type { PgflowError, Run, SlugOf, StartOptions } from '../client/index.ts'
import type { AnyFlow, InputOf } from '../flow/index.ts'
import { FlowStarter } from './flow-starter.ts'
import { usePgflow } from './provider.ts'

export interface StartFlow<F extends AnyFlow = AnyFlow> {
  /**
   * Starts a run; resolves with it, or with `null` if that failed, and `error` says why. It never rejects. While a start
   * is pending, nothing else is started, whatever the input: a second call returns the same promise.
   */
  start(input: InputOf<F>, options?: StartOptions): Promise<Run<F> | null>
  /** Forgets the run and the error. If a start is pending, its run starts, but is not shown. */
  reset(): void
  /** Whether the latest start has not been answered yet. */
  readonly pending: boolean
  /** The run of the latest start. */
  readonly run: Run<F> | null
  /** Why the latest start failed. */
  readonly error: PgflowError | null
}

/**
 * Starts runs of a flow, with the state of the latest start. `useFlow` also follows the run.
 *
 * @example
 * const { start, run, pending, error } = useStartFlow<typeof AnalyzeDocument>('analyze_document')
 * const { step } = useRun<typeof AnalyzeDocument>(run?.runId)
 * return <button disabled={pending} onClick={() => start({ path: 'README.md' })}>Analyze</button>
 */
export function useStartFlow<F extends AnyFlow = AnyFlow>(flowSlug: SlugOf<F>): StartFlow<F> {
  const starter = useStarter(flowSlug)
  const view = React.useSyncExternalStore(starter.subscribe, starter.view, starter.initial)
  return React.useMemo(() => {
    const { start, reset } = starter
    // The caller says of which flow the run is.
    return { start, reset, ...view } as unknown as StartFlow<F>
  }, [starter, view])
}

/** Kept in a state, since `useMemo` may forget: the run would be gone when a file is edited during development. */
function useStarter(flowSlug: string): FlowStarter {
  const client = usePgflow()
  const [kept, keep] = React.useState(() => new FlowStarter(client, flowSlug))
  if (kept.client === client && kept.flowSlug === flowSlug) return kept
  const next = new FlowStarter(client, flowSlug)
  keep(next)
  return next
}
