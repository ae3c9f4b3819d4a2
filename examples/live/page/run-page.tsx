import type { RunEvent, RunSnapshot } from '@pgflow/sdk'
import { useRun } from '@pgflow/sdk/react'
import { useState } from 'react'
import type { ReadDocument } from '../flow.ts'
import { ChildPage } from './children.tsx'
import { EventLog } from './event-log.tsx'
import { FlowSource } from './flow-source.tsx'
import { Graph } from './graph.tsx'
import { useOnline } from './online.tsx'
import { Problem } from './problem.tsx'
import { RunHeader } from './run-header.tsx'
import { readDocument } from './shape.ts'
import { Steps } from './steps.tsx'
import { useRunEvents } from './use-run-events.ts'

interface RunPageProps {
  runId: string
  onStart: (runId: string) => void
}

/** One run, live. */
export function RunPage({ runId, onStart }: RunPageProps) {
  const { run, error, cancel, retry } = useRun<typeof ReadDocument>(runId)
  const events = useRunEvents(runId, run?.status === 'started', useOnline())
  return (
    <article aria-labelledby={run ? 'run' : undefined} aria-label={run ? undefined : 'Run'}>
      {error && (
        <Problem title={run ? 'The run is not up to date' : 'The run cannot be shown'} error={error} />
      )}
      {run?.parent_run_id && <ChildPage run={run} />}
      {run && !run.parent_run_id && (
        <>
          <RunHeader run={run} events={events} cancel={cancel} retry={retry} onStart={onStart} />
          <RunPanels run={run} events={events} />
        </>
      )}
      {!run && !error && <p role="status">Loading the run …</p>}
    </article>
  )
}

interface RunPanelsProps {
  run: RunSnapshot<typeof ReadDocument>
  events: readonly RunEvent[]
}

/** The picture, the steps, the code and the log. What is selected in one of them is selected in all. */
function RunPanels({ run, events }: RunPanelsProps) {
  const [selected, select] = useState<string | null>(null)
  const toggle = (slug: string) => select(slug === selected ? null : slug)
  const { started_at, status, steps } = run
  return (
    <div className="panels">
      <div className="panel">
        <section className="card" aria-labelledby="graph">
          <h3 id="graph">Graph</h3>
          <Graph shape={readDocument} steps={steps} selected={selected} onSelect={toggle} />
        </section>
        <Steps run={run} selected={selected} onSelect={toggle} />
      </div>
      <div className="panel">
        <section className="card" aria-labelledby="code">
          <h3 id="code">Code</h3>
          <FlowSource steps={steps} selected={selected} />
        </section>
        <EventLog events={events} owner={run.owner_id} startedAt={started_at} isOpen={status === 'started'} />
      </div>
    </div>
  )
}
