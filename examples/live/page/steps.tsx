import type { StepState } from '@pgflow/sdk'
import { Elapsed } from './elapsed.tsx'
import { StepProgress } from './progress.tsx'
import { Status } from './status.tsx'

/** The steps of a run as a table. */
export function Steps({ steps }: { steps: readonly StepState[] }) {
  return (
    <table>
      <caption>Steps</caption>
      <thead>
        <tr>
          <th scope="col">Step</th>
          <th scope="col">Status</th>
          <th scope="col">Time</th>
          <th scope="col">Details</th>
        </tr>
      </thead>
      <tbody>
        {steps.map((step) => (
          <tr key={step.step_slug}>
            <th scope="row">{step.step_slug}</th>
            <td>
              <Status status={step.status} />
            </td>
            <td>
              <Time step={step} />
            </td>
            <td>
              <StepProgress step={step} />
              <Details step={step} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

function Time({ step: { status, started_at, completed_at, failed_at } }: { step: StepState }) {
  const ended = completed_at ?? failed_at
  if (started_at === null || (ended === null && status !== 'started')) return null
  return <Elapsed from={started_at} to={ended} />
}

function Details({ step: { status, error, skip_reason, retries } }: { step: StepState }) {
  if (status === 'skipped') return skip_reason
  if (status === 'started' && retries > 0) return `attempt ${retries + 1}, after: ${error}`
  return error
}
