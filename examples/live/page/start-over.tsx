import type { InputOf } from '@pgflow/sdk/flow'
import { useStartFlow } from '@pgflow/sdk/react'
import type { ReadDocument } from '../flow.ts'
import { Problem } from './problem.tsx'

interface StartOverProps {
  input: InputOf<typeof ReadDocument>
  onStart: (runId: string) => void
}

/** Starts another run with the same input. */
export function StartOver({ input, onStart }: StartOverProps) {
  const { start, pending, error } = useStartFlow<typeof ReadDocument>('read_document')

  async function startOver() {
    const run = await start(input)
    if (run) onStart(run.runId)
  }

  return (
    <>
      <button type="button" onClick={startOver} disabled={pending}>
        Start over
      </button>
      {error && <Problem title="The run could not be started" error={error} hint="Try it again." />}
    </>
  )
}
