import type { RunStatus, StepState, StepStatus } from '@pgflow/sdk'

/** What is shown of a step or run: its status; of a step that has begun, that it waits, sleeps, or has no slot of its limits yet. */
export type ShownStatus = StepStatus | RunStatus | 'waiting' | 'sleeping' | 'limited'

const marks = {
  created: '○',
  started: '◐',
  waiting: '◇',
  sleeping: '◷',
  limited: '◌',
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
  limited: 'awaiting slot',
  completed: 'completed',
  failed: 'failed',
  skipped: 'skipped',
  cancelled: 'cancelled',
} as const satisfies Record<ShownStatus, string>

export function shownStatus({ status, waits_for }: Pick<StepState, 'status' | 'waits_for'>): ShownStatus {
  if (status !== 'started' || waits_for === null) return status
  return ({ signal: 'waiting', time: 'sleeping', slot: 'limited', run: 'started', sql: 'started' } as const)[
    waits_for
  ]
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
