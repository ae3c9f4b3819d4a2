import * as React from 'react'
import type { PgflowError, Run, RunSnapshot, RunStatus, SlugOf, StartOptions } from '../client/index.ts'
import type { AnyFlow, InputOf } from '../flow/index.ts'
import { type RunState, useRunOf } from './use-run.ts'
import { useRunSource } from './use-run-source.ts'
import { useStartFlow } from './use-start-flow.ts'

export interface UseFlowOptions<F extends AnyFlow = AnyFlow> {
  /** Called when a run that this component started completes: once, with its output, and once more after a retry. */
  readonly onCompleted?: ((run: RunSnapshot<F>) => void) | undefined
  /** As `onCompleted`, when the run fails. If the run is cancelled, neither is called. */
  readonly onFailed?: ((run: RunSnapshot<F>) => void) | undefined
}

/** The run that a component started; each change is another object. */
export interface FlowState<F extends AnyFlow = AnyFlow> extends RunState<F> {
  /**
   * Starts a run; resolves with it, or with `null` if that failed, and `error` says why. It never rejects. While a start
   * is pending, nothing else is started, whatever the input: a second call returns the same promise.
   */
  start(input: InputOf<F>, options?: StartOptions): Promise<Run<F> | null>
  /** Clears the run and the error. The run itself continues. */
  reset(): void
  /** `idle` without a run, `starting` while a start is pending, then the status of the run. */
  readonly status: 'idle' | 'starting' | RunStatus
  /** Whether a start is pending. */
  readonly pending: boolean
  /** The run of the latest start; `null` until it has started. */
  readonly run: RunSnapshot<F> | null
  /** Why the start failed, why the run cannot be followed at the moment, or why it could not be cancelled or retried. */
  readonly error: PgflowError | null
}

/**
 * Starts runs of a flow and follows the latest one: `useStartFlow` and `useRun` in one.
 *
 * @example
 * const { start, run, status, step } = useFlow<typeof AnalyzeDocument>('analyze_document')
 * return (
 *   <button disabled={status === 'starting'} onClick={() => start({ path: 'README.md' })}>
 *     {run?.output?.report.title ?? step('report')?.status ?? 'Analyze'}
 *   </button>
 * )
 */
export function useFlow<F extends AnyFlow = AnyFlow>(
  flowSlug: SlugOf<F>,
  options: UseFlowOptions<F> = {},
): FlowState<F> {
  const { start, reset, pending, run: started, error } = useStartFlow<F>(flowSlug)
  // A start with an idempotency key may find a run that is over already.
  const store = useRunSource<RunSnapshot<F>>(started?.runId, options, { reportsPastEnd: true })
  // Without `select`, it is the whole run.
  const followed = useRunOf<F>(store, {}) as RunState<F>
  return React.useMemo(
    () => ({
      ...followed,
      start,
      reset,
      pending,
      status: followed.run?.status ?? (pending ? 'starting' : 'idle'),
      error: error ?? followed.error,
    }),
    [followed, start, reset, pending, error],
  )
}
