import { PgflowError, type WaitRow } from '@pgflow/sdk'
import type { StepInputOf } from '@pgflow/sdk/flow'
import { useWaits } from '@pgflow/sdk/react'
import { type FormEvent, useState } from 'react'
import type { ReadDocument } from '../flow.ts'
import { Elapsed } from './elapsed.tsx'
import { useOnline } from './online.tsx'
import { Problem } from './problem.tsx'
import { Clock } from './waiting.tsx'
import './inbox.css'

/** What the step `approval` gets, and so those who are asked. */
type Asked = StepInputOf<typeof ReadDocument, 'approval'>

/** What the visitor is asked to decide, of the runs of others. */
export function Inbox() {
  const { waits, error, hasMore, more, complete, reject } = useWaits<Asked>({
    flowSlug: 'read_document',
    limit: 5,
  })
  return (
    <section className="card inbox" aria-labelledby="inbox">
      <h2 id="inbox">Waiting for you</h2>
      {error && <Problem title="It could not be listed" error={error} hint="Reload the page to try again." />}
      <p role="status" className="quiet">
        {waits?.length === 0 && 'Nothing.'}
        {waits && waits.length > 0 && `${waits.length}${hasMore ? ' or more' : ''} to decide`}
      </p>
      {waits && waits.length > 0 && (
        <ul>
          {waits.map((wait) => (
            <Request
              key={`${wait.run_id} ${wait.started_at}`}
              wait={wait}
              onApprove={() => complete(wait, { approved: true })}
              onReject={(reason) => reject(wait, reason)}
            />
          ))}
        </ul>
      )}
      {hasMore && (
        <button type="button" className="button" onClick={more}>
          More
        </button>
      )}
    </section>
  )
}

interface RequestProps {
  wait: WaitRow<Asked>
  onApprove: () => Promise<void>
  onReject: (reason: string) => Promise<void>
}

/** One wait: what it is about, and the two answers to it. */
function Request({ wait, onApprove, onReject }: RequestProps) {
  const { run, report } = wait.input
  const [rejecting, setRejecting] = useState(false)
  const [pending, setPending] = useState(false)
  const [error, setError] = useState<Error | null>(null)
  const online = useOnline()
  const disabled = pending || !online

  async function decide(answer: Promise<void>) {
    setPending(true)
    setError(null)
    try {
      await answer
    } catch (error) {
      if (!(error instanceof PgflowError)) throw error
      setError(error)
      setPending(false)
    }
  }

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault()
    void decide(onReject(String(new FormData(event.currentTarget).get('reason'))))
  }

  return (
    <li aria-label={`Report of ${run.document}`}>
      <p>
        <strong>{report.title ?? run.document}</strong>
        <small>
          {report.words.toLocaleString('en')} words of {run.document}
          <br />
          for <Elapsed from={wait.started_at} to={null} />
          {wait.due_at && (
            <>
              , until <Clock at={wait.due_at} />
            </>
          )}
        </small>
      </p>
      {rejecting ? (
        <form onSubmit={submit} className="field">
          <label htmlFor={`reason-${wait.run_id}`}>Why not?</label>
          {/* biome-ignore lint/a11y/noAutofocus: the form appears where the visitor has pressed a button */}
          <input id={`reason-${wait.run_id}`} name="reason" required maxLength={500} autoFocus />
          <div className="actions">
            <button type="submit" className="button primary" disabled={disabled}>
              Reject
            </button>
            <button type="button" className="button" onClick={() => setRejecting(false)}>
              Back
            </button>
          </div>
        </form>
      ) : (
        <div className="actions">
          <button
            type="button"
            className="button primary"
            onClick={() => decide(onApprove())}
            disabled={disabled}
          >
            Approve
          </button>
          <button type="button" className="button" onClick={() => setRejecting(true)} disabled={disabled}>
            Reject …
          </button>
        </div>
      )}
      {error && <Problem title="It was not decided" error={error} />}
    </li>
  )
}
