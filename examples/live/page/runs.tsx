import type { RunRow, RunSnapshot } from '@pgflow/sdk'
import { useRun, useRuns } from '@pgflow/sdk/react'
import type { ReadDocument } from '../flow.ts'
import { Problem } from './problem.tsx'
import { Status } from './status.tsx'
import { countSteps, StepBar } from './step-counts.tsx'

const time = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' })

/** The visitor's runs, the newest first. */
export function Runs({ shown }: { shown: string | null }) {
  const { runs, error, hasMore, more } = useRuns<typeof ReadDocument>({
    flowSlug: 'read_document',
    limit: 8,
  })
  return (
    <nav aria-labelledby="runs" className="card">
      <h2 id="runs">Your runs</h2>
      {error && (
        <Problem title="Your runs could not be listed" error={error} hint="Reload the page to try again." />
      )}
      {runs?.length === 0 && <p className="quiet">None yet.</p>}
      {runs && runs.length > 0 && (
        <ul className="runs">
          {runs.map((run) => (
            <RunLink key={run.run_id} run={run} isShown={run.run_id === shown} />
          ))}
        </ul>
      )}
      {hasMore && (
        <button type="button" className="button" onClick={more}>
          Older runs
        </button>
      )}
    </nav>
  )
}

interface RunLinkProps {
  run: RunRow<typeof ReadDocument>
  isShown: boolean
}

/** One run of the list. Open runs are followed, all of them over one channel. */
function RunLink({ run, isShown }: RunLinkProps) {
  const { selected } = useRun(run.run_id, {
    enabled: isShown || run.status === 'started',
    select: ({ status, steps }: RunSnapshot) => ({ status, counts: countSteps(steps) }),
  })
  const status = selected?.status ?? run.status
  return (
    <li>
      <a href={`#${run.run_id}`} aria-current={isShown ? 'page' : undefined}>
        <span>{run.input.document}</span>
        <Status status={status} />
        <time dateTime={run.started_at}>{time.format(new Date(run.started_at))}</time>
        {selected && status === 'started' && <StepBar counts={selected.counts} />}
      </a>
    </li>
  )
}
