import * as React from 'react'
import type { RunSnapshot } from '../client/index.ts'
import type { AnyFlow } from '../flow/index.ts'
import { usePgflow } from './provider.ts'
import { noRun, RunSource, type RunSourceOptions } from './run-source.ts'
import { useCurrent } from './use-current.ts'

/** What a hook needs of a `RunSource`. */
export type RunStore = Pick<
  RunSource,
  'subscribe' | 'subscribeIdle' | 'view' | 'initial' | 'cancel' | 'retry'
>

export interface FollowOptions<F extends AnyFlow> {
  /**
   * The run as a server has read it: it is shown at once and followed from there. If it is over, nothing is fetched. The
   * first one that is given for a run id counts.
   */
  readonly initialRun?: RunSnapshot<F> | undefined
  /** With `false`, nothing is fetched or followed; what is known of the run is shown. @default true */
  readonly enabled?: boolean | undefined
  /**
   * Called when the run completes while the component shows it: once, with its output, and once more after a retry. It
   * is not called for a run that was over when the component first saw it.
   */
  readonly onCompleted?: ((run: RunSnapshot<F>) => void) | undefined
  /** As `onCompleted`, when the run fails. A run that is cancelled calls neither. */
  readonly onFailed?: ((run: RunSnapshot<F>) => void) | undefined
}

/** The source of the run with this id; it is the same one until the id changes. */
export function useRunSource<F extends AnyFlow>(
  runId: string | null | undefined,
  { initialRun, onCompleted, onFailed }: FollowOptions<F>,
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
      callback?.(run as unknown as RunSnapshot<F>)
    }
    return new RunSource(lives, runId, {
      initialRun: initialRun as unknown as RunSnapshot | undefined,
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
