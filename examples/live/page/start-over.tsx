import type { RunSnapshot } from '@pgflow/sdk'
import { useStartFlow } from '@pgflow/sdk/react'
import type { ReadDocument } from '../flow.ts'
import { useOnline } from './online.tsx'
import { Problem } from './problem.tsx'

interface StartOverProps {
  input: RunSnapshot<typeof ReadDocument>['input']
  onStart: (runId: string) => void
}

/** Starts another run with the same input. */
export function StartOver({ input, onStart }: StartOverProps) {
  const { start, pending, error } = useStartFlow<typeof ReadDocument>('read_document')
  const online = useOnline()

  async function startOver() {
    const run = await start(input)
    if (run) onStart(run.runId)
  }

  return (
    <>
      <button type="button" className="button" onClick={startOver} disabled={pending || !online}>
        Start over
      </button>
      {error && <Problem title="The run could not be started" error={error} hint="Try again." />}
    </>
  )
}
