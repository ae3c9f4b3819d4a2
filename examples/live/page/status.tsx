import type { RunStatus, StepStatus } from '@pgflow/sdk'

const marks = {
  created: '○',
  started: '◐',
  completed: '✓',
  failed: '✗',
  skipped: '–',
  cancelled: '⊘',
} as const satisfies Record<StepStatus | RunStatus, string>

const words = {
  created: 'waiting',
  started: 'running',
  completed: 'completed',
  failed: 'failed',
  skipped: 'skipped',
  cancelled: 'cancelled',
} as const satisfies Record<StepStatus | RunStatus, string>

/** A status as a mark, a word and a colour: none of them alone. */
export function Status({ status }: { status: StepStatus | RunStatus }) {
  return (
    <span className="status" data-status={status}>
      <span aria-hidden="true">{marks[status]}</span> {words[status]}
    </span>
  )
}
