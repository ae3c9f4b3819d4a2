import type { RunSnapshot } from '@pgflow/sdk'
import { useRun } from '@pgflow/sdk/react'
import type { ReadDocument } from '../flow.ts'
import { Elapsed } from './elapsed.tsx'
import { Graph } from './graph.tsx'
import { useOnline } from './online.ts'
import { Problem } from './problem.tsx'
import { RunProgress } from './progress.tsx'
import { Report } from './report.tsx'
import { StartOver } from './start-over.tsx'
import { Status } from './status.tsx'
import { Steps } from './steps.tsx'

type ReadRun = RunSnapshot<typeof ReadDocument>

const shapes = new Map(import.meta.env.FLOW_SHAPES.map((shape) => [shape.flow_slug, shape]))

/** One run, live. */
export function RunPage({ runId, onStart }: { runId: string; onStart: (runId: string) => void }) {
  const { run, error, cancel, retry } = useRun<typeof ReadDocument>(runId)
  const online = useOnline()
  const shape = run && shapes.get(run.flow_slug)
  return (
    <article aria-labelledby="run">
      {!online && (
        <p role="status" className="notice">
          You are offline. This is how the run stood; it catches up when you are back.
        </p>
      )}
      {error && <Problem title="Something went wrong" error={error} />}
      {run ? (
        <>
          <Heading run={run} />
          <div className="actions">
            <button type="button" onClick={() => cancel()} disabled={run.status !== 'started'}>
              Cancel
            </button>
            <button
              type="button"
              onClick={() => retry()}
              disabled={run.status !== 'failed' && run.status !== 'cancelled'}
            >
              Retry
            </button>
            <StartOver input={run.input} onStart={onStart} />
          </div>
          {run.error && <p className="problem">{run.error}</p>}
          {shape && <Graph shape={shape} steps={run.steps} />}
          <Steps steps={run.steps} />
          {run.output && <Report report={run.output.report} />}
        </>
      ) : (
        !error && <p role="status">Looking for the run …</p>
      )}
    </article>
  )
}

function Heading({ run }: { run: ReadRun }) {
  const ended = run.completed_at ?? run.failed_at ?? run.cancelled_at
  return (
    <>
      <h2 id="run">{run.input.document}</h2>
      <p className="summary">
        <span role="status">
          <Status status={run.status} />
        </span>
        <Elapsed from={run.started_at} to={ended} />
        <RunProgress run={run} />
      </p>
    </>
  )
}
