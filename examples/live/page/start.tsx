import { useFlow } from '@pgflow/sdk/react'
import { type FormEvent, useState } from 'react'
import { documents } from '../documents.ts'
import type { ReadDocument } from '../flow.ts'
import { Problem } from './problem.tsx'
import { Status } from './status.tsx'

/** Starts a run, tells which, and shows how it goes. */
export function Start({ onStart }: { onStart: (runId: string) => void }) {
  const { start, run, pending, error } = useFlow<typeof ReadDocument>('read_document')
  const [document, setDocument] = useState('README.md')

  async function submit(event: FormEvent) {
    event.preventDefault()
    const started = await start({ document })
    if (started) onStart(started.runId)
  }

  return (
    <form onSubmit={submit} aria-label="Start">
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
      {run && (
        <p role="status">
          {run.input.document} <Status status={run.status} />
        </p>
      )}
      {error && <Problem title="The run could not be started" error={error} hint="Try it again." />}
    </form>
  )
}
