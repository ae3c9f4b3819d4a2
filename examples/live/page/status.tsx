import type { RunStatus, StepState, StepStatus } from '@pgflow/sdk'

/** What is shown of a step or run: its status; of a wait or sleep that has begun, that it waits or sleeps. */
export type ShownStatus = StepStatus | RunStatus | 'waiting' | 'sleeping'

const marks = {
  created: '○',
  started: '◐',
  waiting: '◇',
  sleeping: '◷',
  completed: '✓',
  failed: '✕',
  skipped: '↷',
  cancelled: '⊘',
} as const satisfies Record<ShownStatus, string>

export const statusWords = {
  created: 'pending',
  started: 'running',
  waiting: 'waiting',
  sleeping: 'sleeping',
  completed: 'completed',
  failed: 'failed',
  skipped: 'skipped',
  cancelled: 'cancelled',
} as const satisfies Record<ShownStatus, string>

export function shownStatus({ status, waits_for }: Pick<StepState, 'status' | 'waits_for'>): ShownStatus {
  if (status !== 'started' || waits_for === null) return status
  return waits_for === 'time' ? 'sleeping' : 'waiting'
}

interface StatusProps {
  status: ShownStatus
  /** How many have this status. */
  count?: number
}

/** A status as a mark, a word and a colour. */
export function Status({ status, count }: StatusProps) {
  return (
    <span className="status" data-status={status}>
      <span className="mark" aria-hidden="true">
        {marks[status]}
      </span>
      {count === undefined ? statusWords[status] : `${count} ${statusWords[status]}`}
    </span>
  )
}
