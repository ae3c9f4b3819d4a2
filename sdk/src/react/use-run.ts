import { useMemo, useSyncExternalStore } from 'react'
import type { PgflowError, RunSnapshot, StepSlug, StepStates } from '../client/index.ts'
import type { AnyFlow } from '../flow/index.ts'
import { usePgflow } from './provider.ts'
import { RunSource, type RunView } from './run-source.ts'

export interface UseRunOptions<F extends AnyFlow = AnyFlow> {
  /** The run as a server has read it: it is shown at once, and followed from there; if it is over, nothing is fetched. */
  readonly initialRun?: RunSnapshot<F> | undefined
}

/** A run as it stands; each change is another object. */
export interface RunState<F extends AnyFlow = AnyFlow> {
  /** `null` until it is known. */
  readonly run: RunSnapshot<F> | null
  /** Why the run cannot be shown or followed for now, or why it could not be cancelled or retried. */
  readonly error: PgflowError | null
  /** One step of the run; `undefined` until the run is known. */
  step<Slug extends StepSlug<F>>(slug: Slug): StepStates<F>[Slug] | undefined
  /** Ends the run; the reason becomes its error. It never rejects: `error` says what failed. */
  cancel(reason?: string): Promise<void>
  /** Lets a failed or cancelled run go on from where it ended. It never rejects: `error` says what failed. */
  retry(): Promise<void>
}

/**
 * Follows a run while the component is there, and until the run is over. All components that show a run share one
 * channel. With another id, what is shown is never of the run before.
 *
 * @param runId `null` while there is none: nothing is fetched
 *
 * @example
 * const { run, error, step } = useRun<typeof AnalyzeDocument>(runId)
 * return <p>{run?.status}, {step('report')?.output?.title}</p>
 */
export function useRun<F extends AnyFlow = AnyFlow>(
  runId: string | null,
  { initialRun }: UseRunOptions<F> = {},
): RunState<F> {
  const { lives } = usePgflow()
  // The first run that is given for an id counts: it may be another object in each rendering.
  // biome-ignore lint/correctness/useExhaustiveDependencies: see above
  const source = useMemo(
    () =>
      runId === null ? none : new RunSource(lives, runId, initialRun as unknown as RunSnapshot | undefined),
    [lives, runId],
  )
  const view = useSyncExternalStore(source.subscribe, source.view, source.initial)
  return useMemo(() => stateOf<F>(source, view), [source, view])
}

type Source = Pick<RunSource, 'subscribe' | 'view' | 'initial' | 'cancel' | 'retry'>

const nothing: RunView = { run: null, error: null }

const none: Source = {
  subscribe: () => () => {},
  view: () => nothing,
  initial: () => nothing,
  cancel: async () => {},
  retry: async () => {},
}

function stateOf<F extends AnyFlow>({ cancel, retry }: Source, { run, error }: RunView): RunState<F> {
  return {
    // The caller has said of which flow the run is.
    run: run as unknown as RunSnapshot<F> | null,
    error,
    step: (slug) =>
      run?.steps.find(({ step_slug }) => step_slug === slug) as StepStates<F>[typeof slug] | undefined,
    cancel,
    retry,
  }
}
