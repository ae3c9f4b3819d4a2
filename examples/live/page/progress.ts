import type { StepState } from '@pgflow/sdk'

export interface Progress {
  done: number
  total: number
}

/** How many tasks of a running map step are done. */
export function progressOf({ status, progress }: Pick<StepState, 'status' | 'progress'>): Progress | null {
  return status === 'started' ? countIn(progress) : null
}

/** What a map step says of its progress; a handler may say something else. */
export function countIn(progress: unknown): Progress | null {
  const { done, total } = (progress ?? {}) as { done?: unknown; total?: unknown }
  return typeof done === 'number' && typeof total === 'number' ? { done, total } : null
}
