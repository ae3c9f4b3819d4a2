import type { StepState } from '@pgflow/sdk'
import { type ShownStatus, Status, shownStatus } from './status.tsx'

export type StepCounts = Readonly<Partial<Record<ShownStatus, number>>>

const order = [
  'completed',
  'skipped',
  'failed',
  'cancelled',
  'started',
  'waiting',
  'sleeping',
  'limited',
  'created',
] as const

/** How many steps have each status. */
export function countSteps(steps: readonly StepState[]): StepCounts {
  const counts: Partial<Record<ShownStatus, number>> = {}
  for (const step of steps) {
    const status = shownStatus(step)
    counts[status] = (counts[status] ?? 0) + 1
  }
  return counts
}

/** A bar with a part for each status. It is decoration: `StepTotals`, or a status beside it, says the same in words. */
export function StepBar({ counts }: { counts: StepCounts }) {
  return (
    <span className="step-bar" aria-hidden="true">
      {order.map((status) => (
        <span key={status} data-status={status} style={{ flexGrow: counts[status] ?? 0 }} />
      ))}
    </span>
  )
}

/** The same in words. */
export function StepTotals({ counts }: { counts: StepCounts }) {
  const total = order.reduce((sum, status) => sum + (counts[status] ?? 0), 0)
  return (
    <ul className="step-totals" aria-label="Steps by status">
      <li>
        {counts.completed ?? 0} of {total} steps completed
      </li>
      {order
        .filter((status) => status !== 'completed' && counts[status])
        .map((status) => (
          <li key={status}>
            <Status status={status} count={counts[status]!} />
          </li>
        ))}
    </ul>
  )
}
