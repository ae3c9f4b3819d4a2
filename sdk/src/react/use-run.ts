import * as React from 'react'
import type { CancelOptions, PgflowError, RunSnapshot, StepSlug, StepStates } from '../client/index.ts'
import type { AnyFlow } from '../flow/index.ts'
import { type FollowOptions, type RunStore, useRunSource } from './use-run-source.ts'
import { type Select, type Selection, useSelection } from './use-selection.ts'

/** TypeScript infers all types of a call or none: `useRun<typeof MyFlow>` leaves none for what `select` returns. */
export interface AnnotateTheParameterOfSelect {
  readonly 'useRun(runId, { select: (run: RunSnapshot<typeof MyFlow>) => run.status })': never
}

export interface UseRunOptions<F extends AnyFlow = AnyFlow> extends FollowOptions<RunSnapshot<F>> {
  readonly select?: AnnotateTheParameterOfSelect | undefined
}

export interface UseSelectedRunOptions<Snapshot extends RunSnapshot, Selected>
  extends FollowOptions<Snapshot> {
  /**
   * What the component needs of the run: it renders again only when this changes. Objects and arrays are compared by
   * their contents.
   */
  readonly select: (run: Snapshot) => Selected
}

/** What can be done to a run. */
export interface RunActions {
  /** Ends the run; the reason becomes its error. With `undo` it is undone. It never rejects: `error` says what failed. */
  cancel(reason?: string, options?: Pick<CancelOptions, 'undo'>): Promise<void>
  /** Resumes a failed or cancelled run from where it ended. It never rejects: `error` says what failed. */
  retry(): Promise<void>
}

/** The current state of a run; each change is another object. */
export interface RunState<F extends AnyFlow = AnyFlow> extends RunActions {
  /** `null` until it has been read. */
  readonly run: RunSnapshot<F> | null
  /** Why the run cannot be shown or followed at the moment, or why it could not be cancelled or retried. */
  readonly error: PgflowError | null
  /** One step of the run; `undefined` until the run is known. */
  step<Slug extends StepSlug<F>>(slug: Slug): StepStates<F>[Slug] | undefined
}

/** What was selected of a run; each change is another object. */
export interface SelectedRun<Selected> extends RunActions {
  /** What `select` returned; `null` until the run is known. */
  readonly selected: Selected | null
  /** Why the run cannot be shown or followed at the moment, or why it could not be cancelled or retried. */
  readonly error: PgflowError | null
}

/**
 * Follows a run while the component is mounted, until the run has ended. All components that show a run share its
 * channel and its requests. When the id changes, the former run disappears in the same rendering.
 *
 * @param runId `null` or `undefined` while there is none: nothing is fetched
 *
 * @example
 * const { run, error, step } = useRun<typeof AnalyzeDocument>(runId)
 * return <p>{run?.status}, {step('report')?.output?.title}</p>
 *
 * @example
 * const { selected: status } = useRun(runId, { select: (run) => run.status })
 * const { selected: words } = useRun(runId, {
 *   select: (run: RunSnapshot<typeof AnalyzeDocument>) => run.output?.report.words,
 * })
 */
export function useRun<F extends AnyFlow = AnyFlow>(
  runId: string | null | undefined,
  options?: UseRunOptions<F>,
): RunState<F>
export function useRun<Snapshot extends RunSnapshot, Selected>(
  runId: string | null | undefined,
  options: UseSelectedRunOptions<Snapshot, Selected>,
): SelectedRun<Selected>
export function useRun<F extends AnyFlow>(
  runId: string | null | undefined,
  options: UseRunOptions<F> | UseSelectedRunOptions<RunSnapshot<F>, unknown> = {},
): RunState<F> | SelectedRun<unknown> {
  const store = useRunSource(runId, options)
  return useRunOf(store, options)
}

/** What `useRun` returns of the run of a store. */
export function useRunOf<F extends AnyFlow>(
  store: RunStore,
  options: UseRunOptions<F> | UseSelectedRunOptions<RunSnapshot<F>, unknown>,
): RunState<F> | SelectedRun<unknown> {
  const subscribe = (options.enabled ?? true) ? store.subscribe : store.subscribeIdle
  const { select } = options
  // The caller says of which flow the run is.
  const selection = useSelection(store, subscribe, (select ?? whole) as Select)
  const isWhole = select === undefined
  return React.useMemo(
    () => (isWhole ? stateOf<F>(store, selection) : { ...selection, ...actionsOf(store) }),
    [store, selection, isWhole],
  )
}

const whole: Select = (run) => run

function actionsOf({ cancel, retry }: RunStore): RunActions {
  return { cancel, retry }
}

function stateOf<F extends AnyFlow>(store: RunStore, { selected, error }: Selection): RunState<F> {
  // Without `select`, it is the whole run.
  const run = selected as RunSnapshot<F> | null
  return {
    run,
    error,
    step: (slug) =>
      run?.steps.find(({ step_slug }) => step_slug === slug) as StepStates<F>[typeof slug] | undefined,
    ...actionsOf(store),
  }
}
