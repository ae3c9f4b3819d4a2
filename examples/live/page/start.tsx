import { useStartFlow } from '@pgflow/sdk/react'
import { type FormEvent, useState } from 'react'
import { documents } from '../documents.ts'
import type { ReadDocument } from '../flow.ts'
import type { Trouble } from '../trouble.ts'
import { useOnline } from './online.tsx'
import { Problem } from './problem.tsx'

const outcomes = {
  none: { title: 'It completes', about: 'Every step works.' },
  passing: { title: 'A step is retried', about: 'It fails once and is tried again by itself.' },
  lasting: { title: 'The run fails', about: 'Press Retry to resume it.' },
} as const satisfies Record<Trouble | 'none', { title: string; about: string }>

type Outcome = keyof typeof outcomes

/** Starts a run, and says which. */
export function Start({ onStart }: { onStart: (runId: string) => void }) {
  const { start, pending, error } = useStartFlow<typeof ReadDocument>('read_document')
  const [document, setDocument] = useState('README.md')
  const [approval, setApproval] = useState(false)
  const [outcome, setOutcome] = useState<Outcome>('none')
  const online = useOnline()

  async function submit(event: FormEvent) {
    event.preventDefault()
    const run = await start({
      document,
      ...(approval && { approval }),
      ...(outcome !== 'none' && { trouble: outcome }),
    })
    if (run) onStart(run.runId)
  }

  return (
    <form onSubmit={submit} aria-labelledby="start" className="card start">
      <h2 id="start">Start a run</h2>
      <div className="field">
        <label htmlFor="document">Document</label>
        <select id="document" value={document} onChange={(event) => setDocument(event.target.value)}>
          {Object.entries(documents).map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </div>
      <fieldset className="field">
        <legend>What happens</legend>
        {Object.entries(outcomes).map(([name, { title, about }]) => (
          <label key={name} className="choice">
            <input
              type="radio"
              name="outcome"
              checked={outcome === name}
              onChange={() => setOutcome(name as Outcome)}
            />
            <span>
              {title}
              <small>{about}</small>
            </span>
          </label>
        ))}
      </fieldset>
      <label className="choice">
        <input type="checkbox" checked={approval} onChange={(event) => setApproval(event.target.checked)} />
        <span>
          Ask for approval
          <small>Another visitor approves the report.</small>
        </span>
      </label>
      <button type="submit" className="button primary" disabled={pending || !online}>
        {pending ? 'Starting …' : 'Start'}
      </button>
      {error && <Problem title="The run could not be started" error={error} hint="Try again." />}
    </form>
  )
}
