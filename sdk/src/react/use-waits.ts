import * as React from 'react'
import type { PgflowError, WaitKey, WaitRow } from '../client/index.ts'
import type { Json } from '../flow/index.ts'
import { usePgflow } from './provider.ts'
import { useLiveList } from './use-live-list.ts'
import { type WaitFilter, waitList } from './wait-list.ts'

export interface UseWaitsOptions extends WaitFilter {
  /** With `false`, nothing is fetched; what was listed before is shown. @default true */
  readonly enabled?: boolean | undefined
}

/** Waits as they are listed; each change is another object. */
export interface WaitsState<Input = Json> {
  /** The oldest first; `null` until they are known. */
  readonly waits: readonly WaitRow<Input>[] | null
  /** Why they cannot be listed at the moment. */
  readonly error: PgflowError | null
  /** Whether there are more. */
  readonly hasMore: boolean
  /** Lists one more page. */
  more(): void
  /** Reads the list again. */
  refresh(): void
  /** Completes a wait, and reads the list again. Rejects as `client.completeWait`. */
  complete(wait: WaitKey, output: unknown): Promise<void>
  /** Rejects a wait, and reads the list again. Rejects as `client.rejectWait`. */
  reject(wait: WaitKey, reason: string): Promise<void>
}

/**
 * Lists what the signed-in user may complete: waits of any run that name them. The list is live: it is read again when such a
 * wait begins or is over, through the one channel of the user, when the page is shown again, and every 10 seconds.
 *
 * @typeParam Input - what the listed steps get, where they are steps of one kind: `StepInputOf<typeof Publish, 'approval'>`
 *
 * @example
 * const { waits, complete } = useWaits<StepInputOf<typeof Publish, 'approval'>>({ flowSlug: 'publish' })
 * return waits?.map((wait) => (
 *   <button key={wait.run_id} onClick={() => complete(wait, { approved: true })}>{wait.input.draft.title}</button>
 * ))
 */
export function useWaits<Input = Json>({
  enabled = true,
  ...filter
}: UseWaitsOptions = {}): WaitsState<Input> {
  const client = usePgflow()
  const [list, view] = useLiveList(filter, enabled, waitList)
  return React.useMemo(() => {
    const { rows, ...others } = view
    // The caller has said what the steps get.
    const waits = rows as unknown as readonly WaitRow<Input>[] | null
    const { more, refresh } = list
    const complete = async (wait: WaitKey, output: unknown) => {
      await client.completeWait(wait, output)
      refresh()
    }
    const reject = async (wait: WaitKey, reason: string) => {
      await client.rejectWait(wait, reason)
      refresh()
    }
    return { ...others, waits, more, refresh, complete, reject }
  }, [client, list, view])
}
