import { NonRetryableError } from '@pgflow/sdk/flow'

/** A failure that a visitor asks for: one that the next attempt gets over, or one that lasts until the run is retried. */
export type Trouble = 'passing' | 'lasting'

/** Fails in the first attempt, if the visitor asked for it. */
export function failOnRequest(trouble: Trouble | undefined, attempt: number): void {
  if (attempt > 1) return
  if (trouble === 'passing') throw new Error('the link checker is busy')
  if (trouble === 'lasting') throw new NonRetryableError('the link checker is down')
}
