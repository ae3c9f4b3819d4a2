import type { RunEvent, RunSnapshot } from '@pgflow/sdk'
import type { ReadDocument } from '../flow.ts'
import { Elapsed } from './elapsed.tsx'
import { useOnline } from './online.tsx'
import { Report } from './report.tsx'
import { StartOver } from './start-over.tsx'
import { Status } from './status.tsx'
import { countSteps, StepBar, StepTotals } from './step-counts.tsx'
import { Approval } from './waiting.tsx'

interface RunHeaderProps {
  run: RunSnapshot<typeof ReadDocument>
  events: readonly RunEvent[]
  cancel: () => void
  retry: () => void
  onStart: (runId: string) => void
}

/** How a run is doing, and what can be done to it. */
export function RunHeader({ run, events, cancel, retry, onStart }: RunHeaderProps) {
  const online = useOnline()
  const isOpen = run.status === 'started'
  const canRetry = run.status === 'failed' || run.status === 'cancelled'
  const counts = countSteps(run.steps)
  return (
    <div className="card run-header">
      <div className="run-title">
        <div>
          <h2 id="run">{run.input.document}</h2>
          <p className="run-status">
            <span role="status">
              <Status status={run.status} />
            </span>
            <Elapsed from={run.started_at} to={run.completed_at ?? run.failed_at ?? run.cancelled_at} />
          </p>
        </div>
        <div className="actions">
          <button type="button" className="button" onClick={() => cancel()} disabled={!isOpen || !online}>
            Cancel
          </button>
          <button type="button" className="button" onClick={() => retry()} disabled={!canRetry || !online}>
            Retry
          </button>
          <StartOver input={run.input} onStart={onStart} />
        </div>
      </div>
      <div>
        <StepBar counts={counts} />
        <StepTotals counts={counts} />
      </div>
      <Approval run={run} events={events} />
      {canRetry && (
        <div className="problem" data-status={run.status}>
          <strong>{run.error ?? 'The run was cancelled.'}</strong>
          <p>Retry resumes the run. Completed steps keep their outputs.</p>
        </div>
      )}
      {run.output && <Report report={run.output.publish} />}
    </div>
  )
}
