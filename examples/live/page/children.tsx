import type { RunSnapshot } from '@pgflow/sdk'
import { useChildren } from '@pgflow/sdk/react'
import { useState } from 'react'
import { Elapsed } from './elapsed.tsx'
import { Status } from './status.tsx'
import { Steps } from './steps.tsx'

/** The runs that a step has started, as links to their pages. */
export function Children({ runId, stepSlug }: { runId: string; stepSlug: string }) {
  const { runs } = useChildren(runId, stepSlug)
  return runs?.map((run) => (
    <p className="step-note" key={run.run_id}>
      <a href={`#${run.run_id}`}>Run of {run.flow_slug}</a> <Status status={run.status} />
    </p>
  ))
}

/** A run that a step of another run has started. */
export function ChildPage({ run }: { run: RunSnapshot }) {
  const [selected, select] = useState<string | null>(null)
  return (
    <>
      <div className="card run-header">
        <div>
          <h2 id="run">{run.flow_slug}</h2>
          <p className="run-status">
            <span role="status">
              <Status status={run.status} />
            </span>
            <Elapsed from={run.started_at} to={run.completed_at ?? run.failed_at ?? run.cancelled_at} />
          </p>
          <p>
            <a href={`#${run.parent_run_id}`}>Started by the step {run.parent_step_slug}</a>
          </p>
        </div>
      </div>
      <Steps run={run} selected={selected} onSelect={(slug) => select(slug === selected ? null : slug)} />
    </>
  )
}
