import * as React from 'react'
import type { RunSnapshot } from '../client/index.ts'
import { usePgflow } from './provider.ts'
import { noRun, RunSource, type RunSourceOptions } from './run-source.ts'
import { useCurrent } from './use-current.ts'

/** What a hook needs of a `RunSource`. */
export type RunStore = Pick<
  RunSource,
  'subscribe' | 'subscribeIdle' | 'view' | 'initial' | 'cancel' | 'retry'
>

/** Of a run with snapshots of this type. */
export interface FollowOptions<Snapshot extends RunSnapshot> {
  /**
   * The run as a server has read it: it is shown at once and followed from there. If it is over, nothing is fetched. The
   * first one that is given for a run id counts.
   */
  readonly initialRun?: Snapshot | undefined
  /** With `false`, nothing is fetched or followed; what is known of the run is shown. @default true */
  readonly enabled?: boolean | undefined
  /**
   * Called when the run completes while the component shows it: once, with its output, and once more after a retry. It
   * is not called for a run that was over when the component first saw it.
   */
  readonly onCompleted?: ((run: Snapshot) => void) | undefined
  /** As `onCompleted`, when the run fails. A run that is cancelled calls neither. */
  readonly onFailed?: ((run: Snapshot) => void) | undefined
}

/** The source of the run with this id; it is the same one until the id changes. */
export function useRunSource<Snapshot extends RunSnapshot>(
  runId: string | null | undefined,
  { initialRun, onCompleted, onFailed }: FollowOptions<Snapshot>,
  { reportsPastEnd = false }: Pick<RunSourceOptions, 'reportsPastEnd'> = {},
): RunStore {
  const { lives } = usePgflow()
  const callbacks = useCurrent({ onCompleted, onFailed })
  // `initialRun` may be another object in each rendering.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the first one that is given for an id counts
  return React.useMemo(() => {
    if (runId === null || runId === undefined) return none
    const onEnd = (run: RunSnapshot) => {
      const { onCompleted, onFailed } = callbacks.current
      const callback =
        run.status === 'completed' ? onCompleted : run.status === 'failed' ? onFailed : undefined
      // The caller says of which flow the run is.
      callback?.(run as Snapshot)
    }
    return new RunSource(lives, runId, {
      initialRun,
      onEnd,
      reportsPastEnd,
    })
  }, [lives, runId])
}

const none: RunStore = {
  subscribe: () => () => {},
  subscribeIdle: () => () => {},
  view: () => noRun,
  initial: () => noRun,
  cancel: async () => {},
  retry: async () => {},
}
