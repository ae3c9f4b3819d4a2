'use client'

import type { RunSnapshot } from '@pgflow/sdk'
import { useRun } from '@pgflow/sdk/react'
import type { AnalyzeText } from '@/supabase/functions/flow-worker/flows'

/** Shows the run as the server has read it, then follows it. */
export function RunView({ initialRun }: { initialRun: RunSnapshot<typeof AnalyzeText> }) {
  const { run, error, cancel, retry } = useRun<typeof AnalyzeText>(initialRun.run_id, { initialRun })

  if (error) {
    return (
      <p role="alert">
        {error.message} {error.hint}
      </p>
    )
  }
  if (!run) return null
  return (
    <main>
      <h1>{run.input.text}</h1>
      <p role="status">{run.status}</p>
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
      {run.status === 'started' && (
        <button type="button" onClick={() => cancel()}>
          Cancel
        </button>
      )}
      {run.status === 'failed' && (
        <>
          <p role="alert">{run.error}</p>
          <button type="button" onClick={() => retry()}>
            Retry
          </button>
        </>
      )}
    </main>
  )
}
