import type { RunSnapshot, StepState } from '@pgflow/sdk'

const open = new Set(['created', 'started'])

/** How many of the run's steps are over. */
export function RunProgress({ run }: { run: Pick<RunSnapshot, 'steps'> }) {
  const done = run.steps.filter(({ status }) => !open.has(status)).length
  return (
    <label className="progress">
      <progress max={run.steps.length} value={done} />
      <span>
        {done} of {run.steps.length} steps
      </span>
    </label>
  )
}

/** What a running step says of its own progress, if that is a part of a whole. */
export function StepProgress({ step: { step_slug, status, progress } }: { step: StepState }) {
  const { done, total } = (progress ?? {}) as { done?: unknown; total?: unknown }
  if (status !== 'started' || typeof done !== 'number' || typeof total !== 'number') return null
  return (
    <label className="progress">
      <progress max={total} value={done} aria-label={`Progress of ${step_slug}`} />
      <span>
        {done}/{total}
      </span>
    </label>
  )
}
