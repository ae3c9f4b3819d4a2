/**
 * Sub-flows: tasks whose work is a run of another flow, their child. Parent and child leave notices for each other, which the next tick
 * takes; in between nobody knows more than its own run.
 */
import type { Queue } from './queue.ts'
import type { Run } from './run.ts'
import type { Step } from './step.ts'
import { type Ending, isOpen, type Task } from './task.ts'

export const deepest = 8

/** A task that a run was started for. */
export interface Parent {
  readonly run: Run
  readonly step: Step
  readonly index: number
}

export type Notice = { readonly dueAt: number } & (
  | { readonly kind: 'child'; readonly run: Run; readonly step: Step }
  | { readonly kind: 'ended' | 'retried' | 'undo'; readonly run: Run }
  | { readonly kind: 'cancel'; readonly parent: Parent }
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

  /** Whether something is to be done because of a run, or for it. */
  isAbout(run: Run): boolean {
    return this.#notices.some((notice) => ('run' in notice ? notice.run : notice.parent.run) === run)
  }

  get dueAt(): number[] {
    return this.#notices.map(({ dueAt }) => dueAt)
  }
}

export function taskOf({ step, index }: Parent): Task | undefined {
  return step.tasks[index]
}

/** Whether the parent's task is still there for its child to do. */
function isWanted(child: Run): boolean {
  const task = taskOf(child.parent!)
  return task !== undefined && task.child === child && isOpen(task)
}

/** Starts, retries and cancels children, and lets their parents go on. */
export function tendChildren(queue: Queue): void {
  const { notices, clock } = queue
  const endings = new Map<Task, Ending>()
  for (const { step } of notices.take('child', clock.now)) {
    for (const task of step.tasks.filter(({ waitsFor }) => waitsFor === 'run')) begin(queue, task, endings)
  }
  for (const { parent } of notices.take('cancel', clock.now)) {
    const child = taskOf(parent)?.child
    if (child && !isWanted(child)) child.cancel(reasonOf(parent))
  }
  for (const { run } of notices.take('retried', clock.now)) {
    const { parent } = run
    if (run.status === 'started' && parent!.run.status === 'failed') parent!.run.retry()
  }
  for (const { run } of notices.take('ended', clock.now)) {
    const task = taskOf(run.parent!)
    if (task?.waitsFor === 'run' && task.child === run && run.status !== 'started') endings.set(task, endingOf(run))
  }
  queue.settle([...endings].map(([task, ending]) => ({ task, attempt: null, ending })))
}

/** Starts the child of a task, or lets the one that it has go on. */
function begin(queue: Queue, task: Task, endings: Map<Task, Ending>): void {
  const { child, run } = task
  if (!child && run.depth === deepest) endings.set(task, { error: tooDeep(task), permanent: true })
  else if (!child) task.child = queue.startChild(task)
  else if (child.status === 'completed') endings.set(task, endingOf(child))
  else if (child.status !== 'started' && !child.retry()) endings.set(task, endingOf(child))
}

/** How a child that has ended settles its parent's task. */
function endingOf({ id, status, output, error }: Run): Ending {
  if (status === 'completed') return { output }
  const what = status === 'failed' ? 'failed' : 'was cancelled'
  return { error: `child run ${id} ${what}${error === null ? '' : `: ${error}`}`, permanent: true }
}

function reasonOf({ run }: Parent): string {
  return `its parent run ${run.id} has ${run.status}`
}

function tooDeep({ step }: Task): string {
  return `step "${step.definition.slug}" cannot start its run: ${deepest} are the most`
}
