import { useStartFlow } from '@pgflow/sdk/react'
import { type FormEvent, useState } from 'react'
import { documents } from '../documents.ts'
import type { ReadDocument } from '../flow.ts'
import { Problem } from './problem.tsx'

/** Starts a run, and tells which. */
export function Start({ onStart }: { onStart: (runId: string) => void }) {
  const { start, pending, error } = useStartFlow<typeof ReadDocument>('read_document')
  const [document, setDocument] = useState('README.md')

  async function submit(event: FormEvent) {
    event.preventDefault()
    const run = await start({ document })
    if (run) onStart(run.runId)
  }

  return (
    <form onSubmit={submit}>
      <label htmlFor="document">Document</label>
      <select id="document" value={document} onChange={(event) => setDocument(event.target.value)}>
        {Object.entries(documents).map(([name, title]) => (
          <option key={name} value={name}>
            {title}
          </option>
        ))}
      </select>
      <button type="submit" disabled={pending}>
        {pending ? 'Starting …' : 'Read it'}
      </button>
      {error && <Problem title="The run could not be started" error={error} hint="Try it again." />}
    </form>
  )
}
