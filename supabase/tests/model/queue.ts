import type { Json } from './json.ts'
import {
  type FlowDefinition,
  hasAttempts,
  isOpen,
  leaseExpired,
  Run,
  type Settlement,
  type Task,
} from './model.ts'

/** The runs of one flow, and the queue of their tasks. */
export class Queue {
  readonly flow: FlowDefinition
  readonly runs: Run[] = []

  constructor(flow: FlowDefinition) {
    this.flow = flow
  }

  get tasks(): Task[] {
    return this.runs.flatMap((run) => run.tasks)
  }

  start(input: Json, delay: number): Run {
    const run = new Run(this.flow, input, delay)
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

  /** Takes up to `quantity` visible tasks; those that have no attempt left fail instead of being given out. */
  claim(quantity: number): Task[] {
    const read = this.tasks
      .filter((task) => isOpen(task) && task.visible)
      .sort((a, b) => a.message - b.message)
      .slice(0, quantity)
    const dead = read.filter((task) => !hasAttempts(task))
    const failure = { error: leaseExpired, permanent: true }
    this.settle(dead.map((task) => ({ task, attempt: task.attempts, ending: failure })))
    const claimed = read.filter(isOpen)
    for (const task of claimed) {
      task.status = 'started'
      task.attempts += 1
      task.visible = false
    }
    return claimed
  }
}
