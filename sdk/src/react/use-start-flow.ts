import { useCallback, useMemo, useRef, useState } from 'react'
import type { PgflowError, Run, SlugOf, StartOptions } from '../client/index.ts'
import type { AnyFlow, InputOf } from '../flow/index.ts'
import { usePgflow } from './provider.ts'

export interface StartFlow<F extends AnyFlow = AnyFlow> {
  /** Starts a run; resolves with it, or with `null` when that failed, and `error` says why. It never rejects. */
  start(input: InputOf<F>, options?: StartOptions): Promise<Run<F> | null>
  /** Whether the latest start has not been answered yet. */
  readonly pending: boolean
  /** What the latest start gave. */
  readonly run: Run<F> | null
  /** Why the latest start failed. */
  readonly error: PgflowError | null
}

type Answer<F extends AnyFlow> = Pick<StartFlow<F>, 'pending' | 'run' | 'error'>

const idle = { pending: false, run: null, error: null } as const

/**
 * Starts runs of a flow, and knows how the latest start went.
 *
 * @example
 * const { start, run, pending, error } = useStartFlow<typeof AnalyzeDocument>('analyze_document')
 * const { step } = useRun<typeof AnalyzeDocument>(run?.runId ?? null)
 * return <button disabled={pending} onClick={() => start({ path: 'README.md' })}>Analyze</button>
 */
export function useStartFlow<F extends AnyFlow = AnyFlow>(flowSlug: SlugOf<F>): StartFlow<F> {
  const client = usePgflow()
  const [answer, setAnswer] = useState<Answer<F>>(idle)
  const latest = useRef<object>(idle)

  const start = useCallback(
    async (input: InputOf<F>, options?: StartOptions) => {
      const mine = {}
      latest.current = mine
      const tell = (told: Answer<F>) => {
        if (latest.current === mine) setAnswer(told)
      }
      tell({ ...idle, pending: true })
      try {
        // The caller has said of which flow the run is.
        const run = (await client.startFlow<AnyFlow>(flowSlug, input, options)) as unknown as Run<F>
        tell({ ...idle, run })
        return run
      } catch (error) {
        // All that a request is rejected with is of this class.
        tell({ ...idle, error: error as PgflowError })
        return null
      }
    },
    [client, flowSlug],
  )

  return useMemo(() => ({ start, ...answer }), [start, answer])
}
