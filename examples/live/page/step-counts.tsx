import type { StepState, StepStatus } from '@pgflow/sdk'
import { Status } from './status.tsx'

export type StepCounts = Readonly<Partial<Record<StepStatus, number>>>

const order = ['completed', 'skipped', 'failed', 'cancelled', 'started', 'created'] as const

/** How many steps have each status. */
export function countSteps(steps: readonly StepState[]): StepCounts {
  const counts: Partial<Record<StepStatus, number>> = {}
  for (const { status } of steps) counts[status] = (counts[status] ?? 0) + 1
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
