/** Tasks: what they are, and how they are settled. */
import type { Json } from './json.ts'
import type { Clock } from './queue.ts'
import type { Run } from './run.ts'
import type { Key } from './slots.ts'
import type { Step } from './step.ts'

type TaskStatus = 'waiting' | 'queued' | 'started' | 'completed' | 'failed' | 'skipped' | 'cancelled'

export interface Task {
  readonly run: Run
  readonly step: Step
  readonly index: number
  readonly item: Json
  status: TaskStatus
  /** What it waits for while it is waiting, and until when, in seconds. */
  waitsFor: 'signal' | 'time' | 'slot' | 'run' | null
  dueAt: number | null
  /** Those of the slots that it holds or waits for; null of a task without limits, and of one that is closed. */
  keys: readonly Key[] | null
  /** Its place among those that wait for a slot, in seconds. */
  rank: number | null
  /** The run of a sub-flow that does its work, once it has been started; the database gives its id before that. */
  child: Run | null
  childId: string | null
  /** Counts claims, and never falls. */
  attempts: number
  /** Attempts that do not count: the run was retried after them, or they were handed back. */
  attemptsBefore: number
  output: Json
  error: string | null
  /** When it failed for good, in seconds. */
  failedAt: number | null
  /** Whether a claim may take it now. */
  visible: boolean
  /** Until when a failure has hidden it, in seconds; null where something else decides. */
  hiddenUntil: number | null
  /** Whether it was completed before its step began. */
  isEarly: boolean
  /** The id of its message, which the database gives. */
  message: number
}

/** How an attempt of a task ended. */
export type Ending =
  | { readonly output: Json }
  | {
      readonly error: string
      readonly retryDelay?: number
      readonly permanent?: boolean
      /** Whether the attempt does not count. */
      readonly uncounted?: boolean
    }

export interface Settlement {
  readonly task: Task
  /** The attempt that ended; none settles the task as it stands. */
  readonly attempt: number | null
  readonly ending: Ending
}

export const leaseExpired = 'lease expired: the worker was lost'

export const timedOut = 'the wait has timed out'

export const idle = { waitsFor: null, dueAt: null, keys: null, rank: null } as const satisfies Partial<Task>

export const unsettled = {
  output: null,
  error: null,
  failedAt: null,
  hiddenUntil: null,
  isEarly: false,
  message: 0,
} as const satisfies Partial<Task>

export function isOpen(task: Task): boolean {
  return task.status === 'waiting' || hasMessage(task)
}

export function hasMessage({ status }: Task): boolean {
  return status === 'queued' || status === 'started'
}

/** Whether it is a wait or sleep whose time has come. */
export function isDue({ keys, dueAt }: Task, now: number): boolean {
  return keys === null && dueAt !== null && dueAt <= now
}

/** Whether it is without slots for which it waits, or for the time from when on it does. */
export function awaitsSlots({ keys, waitsFor }: Task): boolean {
  return keys !== null && (waitsFor === 'slot' || waitsFor === 'time')
}

/** Whether it has slots. */
export function holdsSlots(task: Task): boolean {
  return task.keys !== null && isOpen(task) && !awaitsSlots(task)
}

/** Ends it, with all that it waits for or holds. */
export function close(task: Task, status: TaskStatus): void {
  Object.assign(task, idle, { status })
}

export function isCurrent({ status, attempts }: Task, attempt: number): boolean {
  return status === 'started' && attempts === attempt
}

export function hasAttempts({ attempts, attemptsBefore, step }: Task): boolean {
  return attempts - attemptsBefore < step.definition.maxAttempts
}

/** Settles a task; answers with when its next attempt is due, if there is one, and whether it failed for good. */
export function settleTask(task: Task, ending: Ending, clock: Clock): { retryAt?: number; failed?: true } {
  task.output = 'output' in ending ? ending.output : null
  task.error = 'output' in ending ? null : ending.error
  if ('output' in ending) {
    close(task, 'completed')
    return {}
  }
  const isWait = task.status === 'waiting' && !awaitsSlots(task)
  // Whoever fails a task that nobody has claimed uses an attempt, too.
  if (task.status !== 'started' && !isWait) task.attempts += 1
  if (ending.uncounted && !isWait) task.attemptsBefore += 1
  if (ending.permanent || isWait || task.step.definition.child || !hasAttempts(task)) {
    close(task, 'failed')
    task.failedAt = clock.now
    return { failed: true }
  }
  const retryAt = clock.now + (ending.retryDelay ?? retryDelay(task))
  // One that has a slot gives it up, and waits for another from then on.
  if (task.keys) {
    Object.assign(task, {
      status: 'waiting',
      waitsFor: 'time',
      dueAt: retryAt,
      rank: retryAt,
      visible: false,
    })
    Object.assign(task, { hiddenUntil: null })
  } else {
    Object.assign(task, { status: 'queued', hiddenUntil: retryAt, visible: clock.isPast })
  }
  return { retryAt }
}

function retryDelay({ step, attempts, attemptsBefore }: Task): number {
  return step.definition.baseDelay * 2 ** (attempts - attemptsBefore)
}
