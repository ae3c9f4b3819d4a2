import { useFlow, useRuns } from '@pgflow/sdk/react'
import { useState } from 'react'
import type { AnalyzeText } from '../supabase/functions/flow-worker/flows'

export default function App() {
  const [text, setText] = useState('The database decides')
  const { start, run, status, error, cancel, retry } = useFlow<typeof AnalyzeText>('analyze_text')

  return (
    <main>
      <h1>Analyze a text</h1>
      <form action={() => void start({ text })}>
        <input aria-label="Text" value={text} onChange={(event) => setText(event.target.value)} />
        <button type="submit" disabled={status === 'starting'}>
          Analyze
        </button>
      </form>

      {error && (
        <p role="alert">
          {error.message} {error.hint}
        </p>
      )}

      {run && (
        <section aria-label="Run">
          <p role="status">{status}</p>
          <ul>
            {Object.values(run.steps).map((step) => (
              <li key={step.step_slug}>
                {step.step_slug}: {step.status}
              </li>
            ))}
          </ul>
          {run.output && (
            <p>
              {run.output.report.words} words, the longest is “{run.output.report.longest}”
            </p>
          )}
          {status === 'started' && (
            <button type="button" onClick={() => cancel()}>
              Cancel
            </button>
          )}
          {status === 'failed' && (
            <>
              <p role="alert">{run.error}</p>
              <button type="button" onClick={() => retry()}>
                Retry
              </button>
            </>
          )}
        </section>
      )}

      <Runs />
    </main>
  )
}

function Runs() {
  const { runs, error } = useRuns<typeof AnalyzeText>({ flowSlug: 'analyze_text', limit: 10 })
  if (error) {
    return (
      <p role="alert">
        {error.message} {error.hint}
      </p>
    )
  }
  return (
    <ol aria-label="Your runs">
      {runs?.map((run) => (
        <li key={run.run_id}>
          {run.input.text}: {run.status}
        </li>
      ))}
    </ol>
  )
}
