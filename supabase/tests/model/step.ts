/** Steps of a run: what they are, and how they change. */
import type { StepDefinition } from './definition.ts'
import type { Json } from './json.ts'
import type { Task } from './task.ts'

type StepStatus = 'created' | 'started' | 'completed' | 'failed' | 'skipped' | 'cancelled'

export interface Step {
  readonly definition: StepDefinition
  readonly order: number
  status: StepStatus
  skipReason: 'condition_unmet' | 'dep_skipped' | 'attempts_exhausted' | 'timed_out' | null
  output: Json
  error: string | null
  retries: number
  /** When the last failure's next attempt was due, in seconds. */
  retryAt: number | null
  progress: { done: number; total: number } | null
  initialTasks: number | null
  /** What it began to wait for, and until when, in seconds. */
  waits: Waits | null
  /** When it ends if it is still open then, in seconds. */
  deadlineAt: number | null
  /** Completed tasks, and failed ones of a map that collects failures, as of the last progress of the step. */
  done: number
  tasks: Task[]
}

export interface Waits {
  readonly for: 'signal' | 'time' | 'slot' | 'run'
  readonly dueAt: number | null
}

/** What happens to a step. */
export type Change =
  | { to: 'completed'; output: Json }
  | { to: 'failed'; error: string }
  | { to: 'skipped'; reason: NonNullable<Step['skipReason']>; error: string | null }
  | { to: 'started'; items: Json[]; waits?: Waits }
  | {
      to: 'working'
      done: number
      retries: number
      error: string | null
      retryAt: number | null
      waits?: Waits
    }
  /** A loop goes on after so many turns. */
  | { to: 'turned'; done: number; total: number; waits: Waits | null }
  | { to: 'cancelled' }

/** What happens to steps at once. */
export type Wave = Map<Step, Change>

export const plainStart: Change = { to: 'started', items: [null] }

export interface StepEvent {
  kind: string
  step: Step
}

const ranks = [
  'started first',
  'completed',
  'failed',
  'skipped',
  'cancelled',
  'retrying',
  'progress',
  'started',
]

/** The events of one wave: steps end before others start, each kind in the order of the steps. */
export function inOrder(events: StepEvent[]): string[] {
  return events
    .sort((a, b) => ranks.indexOf(a.kind) - ranks.indexOf(b.kind) || a.step.order - b.step.order)
    .map(({ kind, step }) => `step:${kind.replace(' first', '')} ${step.definition.slug}`)
}

export const unstarted = {
  status: 'created',
  error: null,
  retries: 0,
  retryAt: null,
  progress: null,
  initialTasks: null,
  waits: null,
  deadlineAt: null,
  done: 0,
} as const satisfies Partial<Step>

/** Changes a step; answers with the events of that. */
export function transition(step: Step, change: Change): StepEvent[] {
  if (change.to === 'working') return work(step, change)
  if (change.to === 'turned') {
    step.initialTasks! += 1
    step.done = change.done
    step.progress = { done: change.done, total: change.total }
    step.waits = change.waits
    return [{ kind: 'progress', step }]
  }
  const begins = step.status === 'created' && change.to === 'completed'
  step.status = change.to
  if (change.to === 'started') {
    step.initialTasks = change.items.length
    step.waits = change.waits ?? null
    step.done = step.tasks.filter(({ status }) => status === 'completed').length
    step.error = null
  }
  if (change.to === 'completed') {
    step.initialTasks ??= 0
    step.output = change.output
    step.error = null
  }
  if (change.to === 'failed' || change.to === 'skipped') step.error = change.error
  if (change.to === 'skipped') step.skipReason = change.reason
  return [...(begins ? [{ kind: 'started first', step }] : []), { kind: change.to, step }]
}

/** Retries and progress of a step that goes on; progress is told each time another twentieth of the items is done. */
function work(step: Step, change: Change & { to: 'working' }): StepEvent[] {
  const { done, retries, error, retryAt } = change
  const total = step.initialTasks!
  const before = step.done
  step.done = done
  step.retries += retries
  if (retries > 0) step.error = error
  step.retryAt = retryAt ?? step.retryAt
  step.waits = change.waits ?? step.waits
  const hasGrown = Math.floor((20 * done) / total) > Math.floor((20 * before) / total)
  if (hasGrown) step.progress = { done, total }
  return [
    ...(retries > 0 ? [{ kind: 'retrying', step }] : []),
    ...(hasGrown ? [{ kind: 'progress', step }] : []),
  ]
}

/** What becomes of a step that has no attempts or no time left. */
export function exhausted({ definition }: Step, error: string): Change {
  return definition.whenExhausted === 'fail'
    ? { to: 'failed', error }
    : { to: 'skipped', reason: 'attempts_exhausted', error }
}

export function isClosed({ status }: Step): boolean {
  return status === 'completed' || status === 'skipped'
}

/** Whether a step was skipped together with all that depends on it. */
export function cascades({ skipReason, definition }: Step): boolean {
  if (skipReason === 'condition_unmet') return definition.whenUnmet === 'skip-cascade'
  if (skipReason === 'attempts_exhausted') return definition.whenExhausted === 'skip-cascade'
  if (skipReason === 'timed_out') return definition.wait!.whenTimedOut === 'skip-cascade'
  return skipReason === 'dep_skipped'
}
