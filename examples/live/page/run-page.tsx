import type { RunSnapshot } from '@pgflow/sdk'
import { useRun } from '@pgflow/sdk/react'
import { useState } from 'react'
import type { ReadDocument } from '../flow.ts'
import { EventLog } from './event-log.tsx'
import { FlowSource } from './flow-source.tsx'
import { Graph } from './graph.tsx'
import { Problem } from './problem.tsx'
import { RunHeader } from './run-header.tsx'
import { readDocument } from './shape.ts'
import { Steps } from './steps.tsx'

interface RunPageProps {
  runId: string
  onStart: (runId: string) => void
}

/** One run, live. */
export function RunPage({ runId, onStart }: RunPageProps) {
  const { run, error, cancel, retry } = useRun<typeof ReadDocument>(runId)
  return (
    <article aria-labelledby={run ? 'run' : undefined} aria-label={run ? undefined : 'Run'}>
      {error && (
        <Problem title={run ? 'The run is not up to date' : 'The run cannot be shown'} error={error} />
      )}
      {run ? (
        <>
          <RunHeader run={run} cancel={cancel} retry={retry} onStart={onStart} />
          <RunPanels run={run} />
        </>
      ) : (
        !error && <p role="status">Loading the run …</p>
      )}
    </article>
  )
}

/** The picture, the steps, the code and the log. What is selected in one of them is selected in all. */
function RunPanels({ run }: { run: RunSnapshot<typeof ReadDocument> }) {
  const [selected, select] = useState<string | null>(null)
  const toggle = (slug: string) => select(slug === selected ? null : slug)
  const { run_id, started_at, status, steps } = run
  return (
    <div className="panels">
      <div className="panel">
        <section className="card" aria-labelledby="graph">
          <h3 id="graph">Graph</h3>
          <Graph shape={readDocument} steps={steps} selected={selected} onSelect={toggle} />
        </section>
        <Steps steps={steps} selected={selected} onSelect={toggle} />
      </div>
      <div className="panel">
        <section className="card" aria-labelledby="code">
          <h3 id="code">Code</h3>
          <FlowSource steps={steps} selected={selected} />
        </section>
        <EventLog runId={run_id} startedAt={started_at} isOpen={status === 'started'} />
      </div>
    </div>
  )
}
