import type { RunEvent, RunSnapshot } from '@pgflow/sdk'
import type { ReadDocument } from '../flow.ts'
import { Elapsed, seconds } from './elapsed.tsx'
import { shownStatus } from './status.tsx'

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' })

/** The time of day. */
export function Clock({ at }: { at: string }) {
  return <time dateTime={at}>{clock.format(new Date(at))}</time>
}

/** A user, as the page names them. */
export function Visitor({ id }: { id: string }) {
  return (
    <>
      visitor <code>{id.slice(0, 8)}</code>
    </>
  )
}

interface ApprovalProps {
  run: RunSnapshot<typeof ReadDocument>
  events: readonly RunEvent[]
}

/** Who is asked to approve the report, since when and until when; then who has decided. */
export function Approval({ run, events }: ApprovalProps) {
  const approval = run.steps.find(({ step_slug }) => step_slug === 'approval')
  if (!approval?.started_at) return null
  if (shownStatus(approval) === 'waiting') {
    return (
      <div className="problem" data-status="waiting">
        <strong>Another visitor has to approve the report.</strong>
        <p>
          Waiting for <Elapsed from={approval.started_at} to={null} />
          {approval.due_at && (
            <>
              , until <Clock at={approval.due_at} />
            </>
          )}
          . To decide it yourself, open this page in a private window: there you are another visitor.
        </p>
      </div>
    )
  }
  const decision = events.findLast(
    ({ type, step_slug }) =>
      step_slug === 'approval' && (type === 'step:completed' || type === 'step:failed'),
  )
  if (!decision?.actor?.id) return null
  return (
    <p className="decision" data-status={approval.status}>
      {approval.status === 'completed' ? 'Approved' : 'Rejected'} by <Visitor id={decision.actor.id} />, after{' '}
      <span className="number">{seconds(Date.parse(decision.at) - Date.parse(approval.started_at))}</span>
    </p>
  )
}
