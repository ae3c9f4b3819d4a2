import { useRuns } from '@pgflow/sdk/react'
import type { ReadDocument } from '../flow.ts'
import { Problem } from './problem.tsx'
import { Status } from './status.tsx'

const time = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })

/** The visitor's runs, the newest first. */
export function Runs({ shown }: { shown: string | null }) {
  const { runs, error, hasMore, more } = useRuns<typeof ReadDocument>({
    flowSlug: 'read_document',
    limit: 10,
  })
  return (
    <section aria-labelledby="runs">
      <h2 id="runs">Your runs</h2>
      {error && (
        <Problem title="Your runs could not be listed" error={error} hint="Reload the page to try again." />
      )}
      {runs?.length === 0 && <p>None yet.</p>}
      <ul className="runs">
        {runs?.map((run) => (
          <li key={run.run_id}>
            <a href={`#${run.run_id}`} aria-current={run.run_id === shown ? 'page' : undefined}>
              <span>{run.input.document}</span>
              <Status status={run.status} />
              <time dateTime={run.started_at}>{time.format(new Date(run.started_at))}</time>
            </a>
          </li>
        ))}
      </ul>
      {hasMore && (
        <button type="button" onClick={more}>
          Older runs
        </button>
      )}
    </section>
  )
}
