'use client'

import type { RunSnapshot } from '@pgflow/sdk'
import { useRun } from '@pgflow/sdk/react'
import type { ReadDocument } from '../../live/flow.ts'

/** A client component: it begins with the run that the server has read, and follows it from there. */
export function RunView({ initialRun }: { initialRun: RunSnapshot<typeof ReadDocument> }) {
  const { run, error, step } = useRun<typeof ReadDocument>(initialRun.run_id, { initialRun })
  if (error) {
    return (
      <p role="alert">
        {error.message} {error.hint}
      </p>
    )
  }
  return (
    <p role="status">
      {run?.status}, words {step('words')?.status}
    </p>
  )
}
