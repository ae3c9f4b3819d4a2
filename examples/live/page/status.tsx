import type { RunStatus, StepStatus } from '@pgflow/sdk'

const marks = {
  created: '○',
  started: '◐',
  completed: '✓',
  failed: '✕',
  skipped: '↷',
  cancelled: '⊘',
} as const satisfies Record<StepStatus | RunStatus, string>

export const statusWords = {
  created: 'waiting',
  started: 'running',
  completed: 'completed',
  failed: 'failed',
  skipped: 'skipped',
  cancelled: 'cancelled',
} as const satisfies Record<StepStatus | RunStatus, string>

interface StatusProps {
  status: StepStatus | RunStatus
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
