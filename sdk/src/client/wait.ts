import { onAbort } from '../shared/abort.ts'
import { type Duration, secondsOf } from '../shared/duration.ts'
import { PgflowError, TimeoutError } from '../shared/errors.ts'
import { RunCancelledError, RunFailedError } from './errors.ts'
import type { Live } from './live.ts'
import { checkOptions } from './options.ts'
import { callAfter } from './timing.ts'
import type { RunSnapshot } from './types.ts'

export interface WaitOptions {
  /** Rejects with `TimeoutError` after this time: `90`, `'90s'`, `'5m'`. @default no limit */
  readonly timeout?: Duration
  /** Rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

/** How what is waited for has ended. */
export type Outcome = { readonly output: unknown } | { readonly error: PgflowError }

/** Waits until `outcomeOf` knows how it ended. It may be so already; then nothing is asked of the server. */
export async function waitFor(
  live: Live,
  outcomeOf: (snapshot: RunSnapshot) => Outcome | undefined,
  options: WaitOptions,
  closed: AbortSignal,
): Promise<unknown> {
  const refused = checkOptions(options, 'timeout signal')
  // Without a pause: the run is held from the call on.
  if (refused !== undefined) return refused
  const { timeout = Number.POSITIVE_INFINITY, signal } = options
  signal?.throwIfAborted()
  closed.throwIfAborted()
  const undo: (() => void)[] = []
  try {
    const outcome = await new Promise<Outcome>((resolve, reject) => {
      const look = () => {
        const found = outcomeOf(live.snapshot)
        if (found !== undefined) resolve(found)
        return found
      }
      if (look() !== undefined) return
      for (const each of [closed, signal]) if (each) undo.push(onAbort(each, () => reject(each.reason)))
      undo.push(
        live.events.on('loaded', look),
        live.events.on('applied', look),
        live.events.on('refused', reject),
        callAfter(secondsOf(timeout)! * 1000, () => reject(lateAfter(timeout))),
        live.hold(),
      )
    })
    if ('error' in outcome) throw outcome.error
    return outcome.output
  } finally {
    for (const stop of undo) stop()
  }
}

function lateAfter(timeout: Duration): TimeoutError {
  const time = typeof timeout === 'number' ? `${timeout} s` : timeout
  return new TimeoutError(`Not completed within ${time}: the run continues`)
}

/** How a run ended, if it has. */
export function runOutcome(run: RunSnapshot): Outcome | undefined {
  const { run_id, status, output, error, steps } = run
  if (status === 'completed') return { output }
  if (status === 'cancelled') return { error: new RunCancelledError(run_id, error) }
  if (status === 'started') return undefined
  const failed = steps.find((step) => step.status === 'failed')
  return { error: new RunFailedError(run_id, failed?.step_slug ?? null, error) }
}

/** How a step ended, if it has, or if its run has without it. */
export function stepOutcome(run: RunSnapshot, stepSlug: string): Outcome | undefined {
  const step = run.steps.find(({ step_slug }) => step_slug === stepSlug)
  switch (step?.status) {
    case 'completed':
      return { output: step.output }
    case 'failed':
      return { error: new RunFailedError(run.run_id, stepSlug, step.error) }
    case 'skipped':
      return { error: new PgflowError('step_skipped', `Step '${stepSlug}' was skipped: ${step.skip_reason}`) }
    default:
      // A completed run tells of its steps first; another one may still cancel them.
      return run.status === 'completed' ? undefined : runOutcome(run)
  }
}
