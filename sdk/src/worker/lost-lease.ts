import { LeaseLostError } from './errors.ts'
import { codeOf } from './faults.ts'

/** The reason why an attempt ends whose task the database says is another's by now, or over; `undefined` for other errors. */
export function lostLease(error: unknown): LeaseLostError | undefined {
  const code = codeOf(error)
  if (code === 'PT409')
    return new LeaseLostError('Another attempt has the task, or its run has ended', { cause: error })
  // A run that was deleted.
  if (code === 'PT404') return new LeaseLostError('The task is gone', { cause: error })
  return undefined
}
