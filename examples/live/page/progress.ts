import type { StepState } from '@pgflow/sdk'

export interface Progress {
  done: number
  total: number
}

/** How many tasks of a running map step are done. */
export function progressOf({ status, progress }: Pick<StepState, 'status' | 'progress'>): Progress | null {
  const { done, total } = (progress ?? {}) as { done?: unknown; total?: unknown }
  if (status !== 'started' || typeof done !== 'number' || typeof total !== 'number') return null
  return { done, total }
}
