import { Notices, tendChildren } from './children.ts'
import type { FlowDefinition } from './definition.ts'
import type { Json } from './json.ts'
import { type Origin, Run } from './run.ts'
import { type Limit, Slots } from './slots.ts'
import {
  awaitsSlots,
  hasAttempts,
  hasMessage,
  isDue,
  leaseExpired,
  type Settlement,
  type Task,
} from './task.ts'
import { beginUndos, inputOfUndo, undoFlowOf } from './undo.ts'

/** The engine's own time, in seconds, which tests set; messages appear by the real one. */
export interface Clock {
  now: number
  /** The latest time that it has been. */
  latest: number
  /** Whether what waits until then appears at once, or not at all. */
  readonly isPast: boolean
}

/** The runs of some flows, and the queues of their tasks. */
export class Queue {
  readonly clock: Clock
  readonly runs: Run[] = []
  readonly limits: readonly Limit[]
  readonly notices = new Notices()
  /** The id of a run that the engine has started for another, and the slug of a flow. */
  idOf: (origin: Origin) => string = () => ''
  nameOf: (flow: FlowDefinition) => string = () => ''
  /** Those that sub-flows name by their places. */
  readonly flows: readonly FlowDefinition[]
  readonly #slots = new Slots()

  constructor(
    flows: readonly FlowDefinition[],
    clock: Clock = { now: 0, latest: 0, isPast: true },
    limits: readonly Limit[] = [],
  ) {
    this.flows = flows
    this.clock = clock
    this.limits = limits
  }

  get tasks(): Task[] {
    return this.runs.flatMap((run) => run.tasks)
  }

  start(flow: FlowDefinition, input: Json, delay: number): Run {
    return this.#start(flow, input, { delay, parent: null, undoes: null })
  }

  /** Starts the run that does the work of a task. */
  startChild(task: Task): Run {
    const { run, step, index } = task
    const flow = this.flows[step.definition.child!.flow]!
    return this.#start(flow, run.inputOfChild(task), { delay: 0, parent: { run, step, index }, undoes: null })
  }

  /** Starts the run that undoes another. */
  startUndo(run: Run): Run {
    return this.#start(undoFlowOf(run.flow)!, inputOfUndo(run), { delay: 0, parent: null, undoes: run })
  }

  #start(flow: FlowDefinition, input: Json, origin: Origin): Run {
    const run = new Run(flow, input, this, origin)
    if (origin.parent ?? origin.undoes) run.id = this.idOf(origin)
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

  /** Settles what is due; answers how much. */
  tick(): number {
    const settled = this.tasks.filter((task) => isDue(task, this.clock.now)).length
    for (const run of this.runs) run.tick()
    const ended = this.runs.map((run) => run.endOverdue())
    return settled + ended.reduce((sum, one) => sum + one, 0)
  }

  /** Starts runs for others, and lets these go on after those; only a tick begins to undo. */
  tend(isTick: boolean): void {
    tendChildren(this)
    if (isTick) beginUndos(this)
  }

  /** When something that waits for a time is due, or a deadline ends. */
  get nextDueAt(): number | null {
    const open = this.runs.filter(({ status }) => status === 'started')
    const steps = open.flatMap((run) => run.steps).filter(({ status }) => status === 'started')
    const times = [
      ...this.tasks.map(({ dueAt }) => dueAt),
      ...[...open, ...steps].map(({ deadlineAt }) => deadlineAt),
      ...this.notices.dueAt,
    ].filter((time) => time !== null)
    return times.length === 0 ? null : Math.min(...times)
  }

  /** Whether tasks wait for slots, or for the time from when on they do. */
  get isCrowded(): boolean {
    return this.tasks.some(awaitsSlots)
  }

  /**
   * Gives tasks the slots for which they wait; answers how many there were. Which of several have theirs is left open, and so only the
   * database knows: `now` says what a task does. No key may have too many, and none that could have had its slots is left.
   */
  admit(now: (task: Task) => 'waits' | 'is ready' | 'is admitted'): number {
    const waiting = this.tasks.filter(awaitsSlots)
    const admitted: Task[] = []
    for (const task of waiting) {
      const state = now(task)
      if (state === 'waits') continue
      if (task.waitsFor === 'time' && task.dueAt! > this.clock.now)
        throw new Error(`${task.dueAt} has not come`)
      Object.assign(task, { waitsFor: 'slot', dueAt: null })
      if (state === 'is admitted') admitted.push(task)
    }
    for (const run of this.runs) run.admit(admitted.filter((task) => task.run === run))
    const problems = this.#slots.admit(admitted, this.tasks, this.clock.now)
    // Where the clock went back, what has to be looked at is in its future.
    const { now: time, latest } = this.clock
    const forgotten = time < latest ? undefined : this.#slots.forgotten(this.tasks, time)
    if (forgotten) problems.push(`nobody has admitted ${forgotten.step.definition.slug} ${forgotten.index}`)
    if (problems.length > 0) throw new Error(problems.join('; '))
    return admitted.length
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
