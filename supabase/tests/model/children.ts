/**
 * Sub-flows: tasks whose work is a run of another flow, their child. Parent and child leave notices for each other, which the next tick
 * takes; in between nobody knows more than its own run.
 */
import type { Queue } from './queue.ts'
import type { Run } from './run.ts'
import type { Step } from './step.ts'
import type { Ending, Task } from './task.ts'
import { undoFlowOf } from './undo.ts'

export const deepest = 8

/** A task that a run was started for. */
export interface Parent {
  readonly run: Run
  readonly step: Step
  readonly index: number
}

export type Notice = { readonly dueAt: number } & (
  | { readonly kind: 'child'; readonly run: Run; readonly step: Step }
  | { readonly kind: 'ended' | 'cancel' | 'retried' | 'undo'; readonly run: Run }
)
type NoticeOf<K> = Notice & { readonly kind: K }

/** What the next tick after its time has to look at; it may come in vain. */
export class Notices {
  #notices: Notice[] = []

  add(notice: Notice): void {
    this.#notices.push(notice)
  }

  take<K extends Notice['kind']>(kind: K, now: number): NoticeOf<K>[] {
    const isTaken = (notice: Notice) => notice.kind === kind && notice.dueAt <= now
    const taken = this.#notices.filter(isTaken)
    this.#notices = this.#notices.filter((notice) => !isTaken(notice))
    return taken as NoticeOf<K>[]
  }

  get dueAt(): number[] {
    return this.#notices.map(({ dueAt }) => dueAt)
  }
}

export function taskOf({ step, index }: Parent): Task | undefined {
  return step.tasks[index]
}

/** Whether a task waits for a run that it has begun to wait for. */
function hasBegun({ waitsFor, attempts, attemptsBefore }: Task): boolean {
  return waitsFor === 'run' && attempts > attemptsBefore
}

function isReady(task: Task): boolean {
  return task.waitsFor === 'run' && !hasBegun(task)
}

/** Starts, retries and cancels children, and lets their parents go on. What that leads to is done at once, twenty times over. */
export function tendChildren(queue: Queue): void {
  const { notices, clock } = queue
  for (let round = 0; round < 20; round++) {
    const ready = notices.take('child', clock.now).flatMap(({ step }) => step.tasks.filter(isReady))
    const ended = notices.take('ended', clock.now).flatMap(({ run }) => endedTask(run))
    const cancelled = notices.take('cancel', clock.now)
    const retried = notices.take('retried', clock.now)
    if (ready.length + ended.length + cancelled.length + retried.length === 0) break

    const done = [...ended, ...ready.filter(({ child }) => child?.status === 'completed')]
    settle(queue, new Map(done.map((task) => [task, endingOf(task.child!)])))
    // Some may have been closed by that.
    begin(queue, new Set(ready.filter(isReady)))
    const unneeded = cancelled
      .filter(({ run }) => run.status === 'started' && !isWanted(run))
      .map(({ run }) => ({ run, reason: reasonOf(run.parent!), undo: isUndone(run.parent!.run) }))
    for (const { run, reason, undo } of unneeded) run.cancel(reason, undo)
    for (const parent of new Set(retried.flatMap(({ run }) => parentToRetry(run)))) parent.retry()
  }
}

function settle(queue: Queue, endings: ReadonlyMap<Task, Ending>): void {
  queue.settle([...endings].map(([task, ending]) => ({ task, attempt: null, ending })))
}

/** Starts the children of tasks, or lets those that they have go on. */
function begin(queue: Queue, tasks: ReadonlySet<Task>): void {
  const endings = new Map<Task, Ending>()
  for (const task of tasks) {
    task.attempts += 1
    const { child, run, step } = task
    if (!child && run.depth === deepest) {
      const flow = queue.nameOf(queue.flows[step.definition.child!.flow]!)
      const error = `step "${step.definition.slug}" cannot start a run of flow "${flow}": it would be deeper than 8 levels below the root run`
      endings.set(task, { error, permanent: true })
    } else if (!child) {
      task.child = queue.startChild(task)
    } else if ((child.status === 'failed' || child.status === 'cancelled') && !child.retry(true)) {
      const error = `child run ${child.id} cannot be retried: run ${child.id} cannot be retried: run ${child.undoing!.id} undoes it`
      endings.set(task, { error, permanent: true })
    }
  }
  settle(queue, endings)
}

/** The task that has waited for a child that has ended, if it still does. */
function endedTask(child: Run): Task[] {
  const task = taskOf(child.parent!)
  return task && hasBegun(task) && task.child === child && child.status !== 'started' ? [task] : []
}

/** How a child that has ended settles its parent's task. */
function endingOf({ id, status, output, error }: Run): Ending {
  if (status === 'completed') return { output }
  const what = status === 'failed' ? 'failed' : 'was cancelled'
  return { error: `child run ${id} ${what}${error === null ? '' : `: ${error}`}`, permanent: true }
}

/** Whether the parent's task is still there for its child to do. */
function isWanted(child: Run): boolean {
  const task = taskOf(child.parent!)
  return task?.child === child && task.status === 'waiting'
}

/** Whether a run is undone, or will be: then its open children are, too. */
function isUndone({ isToBeUndone, undoing, status, flow }: Run): boolean {
  return isToBeUndone || undoing !== null || (status === 'failed' && undoFlowOf(flow) !== null)
}

function reasonOf({ run, step }: Parent): string {
  if (run.status === 'started') return `step "${step.definition.slug}" of its parent run ${run.id} is over`
  return `its parent run ${run.id} ${run.status === 'cancelled' ? 'was' : 'has'} ${run.status}`
}

/** The parent that goes on because its child was retried, if it does. */
function parentToRetry(child: Run): Run[] {
  const { run, step } = child.parent!
  const goesOn = child.status === 'started' || child.status === 'completed'
  const canGoOn = run.status === 'failed' && (step.status === 'failed' || step.status === 'cancelled')
  return goesOn && canGoOn ? [run] : []
}
