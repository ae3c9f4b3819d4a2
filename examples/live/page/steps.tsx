import type { RunSnapshot, StepState } from '@pgflow/sdk'
import { Children } from './children.tsx'
import { Elapsed, useNow } from './elapsed.tsx'
import { JsonView } from './json.tsx'
import { progressOf } from './progress.ts'
import { readDocument } from './shape.ts'
import { type ShownStatus, Status, shownStatus } from './status.tsx'
import { Clock } from './waiting.tsx'
import './steps.css'

interface StepsProps {
  run: Pick<RunSnapshot, 'run_id' | 'flow_slug' | 'steps'>
  selected: string | null
  onSelect: (slug: string) => void
}

/** The steps of a run as a list; the selected one shows its output. */
export function Steps({ run, selected, onSelect }: StepsProps) {
  return (
    <section className="card" aria-labelledby="steps">
      <h3 id="steps">Steps</h3>
      <ul className="steps">
        {run.steps.map((step) => (
          <li key={step.step_slug}>
            <Step
              step={step}
              runId={run.run_id}
              isSelected={step.step_slug === selected}
              onSelect={() => onSelect(step.step_slug)}
            />
          </li>
        ))}
      </ul>
    </section>
  )
}

interface StepProps {
  step: StepState
  runId: string
  isSelected: boolean
  onSelect: () => void
}

function Step({ step, runId, isSelected, onSelect }: StepProps) {
  const { step_slug } = step
  const progress = progressOf(step)
  return (
    <>
      <button type="button" className="step" aria-expanded={isSelected} onClick={onSelect}>
        <span className="slug">{step_slug}</span>
        <Status status={shownStatus(step)} />
        <span className="step-time">
          {progress ? (
            <span className="number">
              {progress.done} of {progress.total}
            </span>
          ) : (
            <Time step={step} />
          )}
        </span>
      </button>
      <Retry step={step} />
      <Waiting step={step} />
      {isSelected && hasRuns(step_slug) && <Children runId={runId} stepSlug={step_slug} />}
      {isSelected && <Details step={step} />}
    </>
  )
}

function hasRuns(slug: string): boolean {
  return readDocument.steps.some((step) => step.step_slug === slug && step.child_flow !== undefined)
}

function Time({ step: { status, started_at, completed_at, failed_at } }: { step: StepState }) {
  const ended = completed_at ?? failed_at
  if (started_at === null || (ended === null && status !== 'started')) return null
  return <Elapsed from={started_at} to={ended} />
}

/** Why an attempt failed, and when the next one follows. */
function Retry({ step: { status, error, retries, retry_at } }: { step: StepState }) {
  if (status !== 'started' || retries === 0) return null
  return (
    <p className="step-note">
      Attempt {retries}: {error}. <NextAttempt number={retries + 1} at={retry_at} />
    </p>
  )
}

const waits = {
  waiting: 'Waits for another visitor',
  sleeping: 'Sleeps',
  limited: 'Waits for a free slot of its limits',
} as const satisfies Partial<Record<ShownStatus, string>>

/** What a step waits for, and until when. */
function Waiting({ step }: { step: StepState }) {
  const status = shownStatus(step)
  if (!Object.hasOwn(waits, status)) return null
  return (
    <p className="step-note">
      {waits[status as keyof typeof waits]}
      {step.due_at && (
        <>
          , until <Clock at={step.due_at} />
        </>
      )}
      .
    </p>
  )
}

function NextAttempt({ number, at }: { number: number; at: string | null }) {
  const left = Date.parse(at ?? '') - useNow(true)
  return left > 0
    ? `Attempt ${number} follows in ${Math.ceil(left / 1000)} s.`
    : `Attempt ${number} is queued or running.`
}

function Details({ step: { step_slug, status, output, error, skip_reason } }: { step: StepState }) {
  if (status === 'completed') return <JsonView label={`Output of ${step_slug}`} value={output} />
  if (status === 'failed') return <p className="step-note">{error}</p>
  if (status === 'skipped') return <p className="step-note">Skipped: {skip_reason}</p>
  if (status === 'cancelled') return <p className="step-note">There is no output.</p>
  return <p className="step-note">There is no output yet.</p>
}
