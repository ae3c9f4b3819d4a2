import type { FlowDefinition } from './definition.ts'
import type { Json } from './json.ts'
import { Run } from './run.ts'
import { hasAttempts, hasMessage, isDue, leaseExpired, type Settlement, type Task } from './task.ts'

/** The engine's own time, in seconds, which tests set; messages appear by the real one. */
export interface Clock {
  now: number
  /** Whether what waits until then appears at once, or not at all. */
  readonly isPast: boolean
}

/** The runs of some flows, and the queues of their tasks. */
export class Queue {
  readonly clock: Clock
  readonly runs: Run[] = []

  constructor(clock: Clock = { now: 0, isPast: true }) {
    this.clock = clock
  }

  get tasks(): Task[] {
    return this.runs.flatMap((run) => run.tasks)
  }

  start(flow: FlowDefinition, input: Json, delay: number): Run {
    const run = new Run(flow, input, this.clock, delay)
    this.runs.push(run)
    return run
  }

  /** Settles a batch; tells for each whether it was applied. */
  settle(settlements: readonly Settlement[]): boolean[] {
    const applied = new Map<Settlement, boolean>()
    for (const run of this.runs) {
      const own = settlements.filter(({ task }) => task.run === run)
      for (const [n, wasApplied] of run.settle(own).entries()) applied.set(own[n]!, wasApplied)
    }
    return settlements.map((settlement) => applied.get(settlement)!)
  }

  /** Settles what is due; answers how much, and when something is due next. */
  tick(): { settled: number; nextDueAt: number | null } {
    const settled = this.tasks.filter((task) => isDue(task, this.clock.now)).length
    for (const run of this.runs) run.tick()
    const times = this.tasks.flatMap(({ status, step }) =>
      status === 'waiting' && step.waits!.dueAt !== null ? [step.waits!.dueAt] : [],
    )
    return { settled, nextDueAt: times.length === 0 ? null : Math.min(...times) }
  }

  /**
   * Takes up to `quantity` visible tasks of a flow; those that have no attempt left fail instead of being given out. The
   * times at which they became visible decide which, and only the database knows them: `isRead` says so.
   */
  claim(flow: FlowDefinition, quantity: number, isRead: (task: Task) => boolean = () => true): Task[] {
    const visible = this.tasks.filter((task) => task.run.flow === flow && hasMessage(task) && task.visible)
    const read = visible.filter(isRead).sort((a, b) => a.message - b.message)
    const count = Math.min(quantity, visible.length)
    if (read.length !== count) throw new Error(`${read.length} messages were read instead of ${count}`)
    const dead = read.filter((task) => !hasAttempts(task))
    const failure = { error: leaseExpired, permanent: true }
    this.settle(dead.map((task) => ({ task, attempt: task.attempts, ending: failure })))
    const claimed = read.filter(hasMessage)
    for (const task of claimed) {
      task.status = 'started'
      task.attempts += 1
      hide(task)
    }
    return claimed
  }
}

/** Hides a task's message for a lease. */
export function hide(task: Task): void {
  task.visible = false
  task.hiddenUntil = null
}

/** Ends the wait of a task's message. */
export function show(task: Task): void {
  task.visible = true
  task.hiddenUntil = null
}

/** Queues a claimed task again, as if the claim had not been. */
export function handBack(task: Task): void {
  task.status = 'queued'
  task.attemptsBefore += 1
  show(task)
}
