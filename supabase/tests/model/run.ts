/**
 * What the engine must do, said once more in the plainest way: no batches of many runs, no locks, no SQL. A run is its
 * steps, each with its tasks; whatever happens to it is a method.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Notices, Parent } from './children.ts'
import { type FlowDefinition, hasItems, isLimited, isPlain, type Source } from './definition.ts'
import { at, contains, type Json, typeOf } from './json.ts'
import { afterTurn, nextTurn, withoutTurn } from './loops.ts'
import type { Clock } from './queue.ts'
import { type Key, keysOf, type Limit } from './slots.ts'
import {
  type Change,
  cascades,
  exhausted,
  inOrder,
  isClosed,
  plainStart,
  type Step,
  transition,
  unstarted,
  type Waits,
  type Wave,
} from './step.ts'
import {
  close,
  type Ending,
  idle,
  isCurrent,
  isDue,
  isOpen,
  type Settlement,
  settleTask,
  type Task,
  timedOut,
  unsettled,
} from './task.ts'
import { undoFlowOf } from './undo.ts'

/** What runs share. */
export interface World {
  readonly clock: Clock
  readonly limits: readonly Limit[]
  readonly notices: Notices
}

/** Why a run was started, and after how many seconds it begins. */
export interface Origin {
  readonly delay: number
  readonly parent: Parent | null
  readonly undoes: Run | null
}

export class Run {
  readonly flow: FlowDefinition
  readonly input: Json
  readonly steps: Step[]
  /** The database gives it. */
  id = ''
  readonly parent: Parent | null
  /** How many parents it has: its own, that of its parent … */
  readonly depth: number
  /** The run whose completed steps it undoes, and the one that undoes its own. */
  readonly undoes: Run | null
  undoing: Run | null = null
  /** Whether it was cancelled so that it is undone. */
  isToBeUndone = false
  readonly #world: World
  readonly #clock: Clock
  readonly events: string[] = ['run:started']
  status: 'started' | 'completed' | 'failed' | 'cancelled' = 'started'
  output: Json = null
  error: string | null = null
  /** When it fails if it is still open then, in seconds. */
  deadlineAt: number | null

  constructor(flow: FlowDefinition, input: Json, world: World, { delay, parent, undoes }: Origin) {
    this.flow = flow
    this.input = input
    this.parent = parent
    this.depth = parent ? parent.run.depth + 1 : 0
    this.undoes = undoes
    this.#world = world
    this.#clock = world.clock
    this.deadlineAt = flow.deadline === null ? null : world.clock.now + delay + flow.deadline
    this.steps = flow.steps.map((definition, order) => ({
      definition,
      order,
      ...unstarted,
      skipReason: null,
      output: null,
      tasks: [],
    }))
    this.#advance(new Map(), delay)
  }

  get tasks(): Task[] {
    return this.steps.flatMap((step) => step.tasks)
  }

  /** Settles tasks, all at one moment; tells for each whether it counted. */
  settle(settlements: readonly Settlement[]): boolean[] {
    const counted = new Map<Task, Ending>()
    const applied = settlements.map(({ task, attempt, ending }) => {
      const counts = !counted.has(task) && (attempt === null ? isOpen(task) : isCurrent(task, attempt))
      if (counts) counted.set(task, ending)
      return counts
    })
    const wave: Wave = new Map()
    for (const step of this.steps) {
      const endings = [...counted].filter(([task]) => task.step === step)
      if (endings.length > 0) wave.set(step, this.#settleStep(step, endings))
    }
    if (wave.size > 0) this.#advance(wave)
    return applied
  }

  /** Ends the run and all that is open under it; whether it could. */
  cancel(reason: string | null, undo = false): boolean {
    if (this.status === 'started') {
      this.#apply(this.#cancellations(new Map()))
      this.#close(this.tasks, 'cancelled')
      this.#end('cancelled', reason)
    }
    if (this.status !== 'cancelled') return false
    if (undo && !this.isToBeUndone && !this.undoing) {
      this.isToBeUndone = true
      this.#notifyOfUndo()
    }
    return true
  }

  /** Runs what failed or was cancelled again; whether it could. Its parent has to be told, unless it has asked for that. */
  retry(isAskedByParent = false): boolean {
    if (this.status !== 'failed' && this.status !== 'cancelled') return false
    if (this.undoing) return false
    this.isToBeUndone = false
    this.status = 'started'
    this.error = null
    this.events.push('run:retried')
    if (this.parent && !isAskedByParent) this.#notify('retried')
    if (this.flow.deadline !== null) this.deadlineAt = this.#clock.now + this.flow.deadline
    for (const step of this.steps) {
      if (step.status === 'failed' || step.status === 'cancelled') Object.assign(step, unstarted)
    }
    this.#advance(this.#decisions())
    return true
  }

  /** Settles what is due. */
  tick(): void {
    const wave: Wave = new Map()
    for (const task of this.tasks.filter((one) => isDue(one, this.#clock.now))) {
      wave.set(task.step, this.#settleDue(task))
    }
    if (wave.size > 0) this.#advance(wave)
  }

  /** Ends itself or the steps that have exceeded their deadlines; answers how many. */
  endOverdue(): number {
    const { now } = this.#clock
    if (this.status !== 'started') return 0
    if (this.deadlineAt !== null && this.deadlineAt <= now) {
      this.#apply(this.#cancellations(new Map()))
      this.#close(this.tasks, 'cancelled')
      this.#end('failed', `the run has exceeded its deadline of ${this.flow.deadline} s`)
      return 1
    }
    const wave: Wave = new Map()
    for (const step of this.steps) {
      if (step.status !== 'started' || step.deadlineAt === null || step.deadlineAt > now) continue
      const { slug, deadline } = step.definition
      wave.set(step, exhausted(step, `step "${slug}" has exceeded its deadline of ${deadline} s`))
    }
    if (wave.size > 0) this.#advance(wave)
    return wave.size
  }

  /** Completes a wait, maybe before it begins; whether that is no contradiction. */
  completeWait(step: Step, value: Json): boolean {
    const [task] = step.tasks
    if (step.status === 'completed') return isDeepStrictEqual(step.output, value)
    if (step.status === 'started')
      return this.settle([{ task: task!, attempt: null, ending: { output: value } }])[0]!
    if (step.status !== 'created') return false
    if (task?.status === 'completed') return isDeepStrictEqual(task.output, value)
    step.tasks = [{ ...this.#newTask(step, 0, null), status: 'completed', output: value, isEarly: true }]
    return true
  }

  /** Rejects a wait; whether it waited, or was rejected so before. */
  rejectWait(step: Step, reason: string): boolean {
    if (step.status === 'failed' || step.status === 'skipped') return step.error === reason
    if (step.status !== 'started') return false
    const ending = { error: reason, permanent: true }
    return this.settle([{ task: step.tasks[0]!, attempt: null, ending }])[0]!
  }

  /** Gives tasks that waited for a slot theirs. */
  admit(tasks: readonly Task[]): void {
    for (const step of this.steps) {
      const admitted = tasks.filter((task) => task.step === step)
      const { map, child } = step.definition
      for (const task of admitted) {
        const state = child
          ? ({ waitsFor: 'run' } as const)
          : ({ status: 'queued', waitsFor: null, visible: true } as const)
        Object.assign(task, { ...state, dueAt: null, hiddenUntil: null })
      }
      if (admitted.length > 0 && child) this.#callChildren(step, 0)
      if (admitted.length === 0 || map) continue
      step.waits = child ? forRun : null
      this.events.push(`step:admitted ${step.definition.slug}`)
    }
  }

  /** What a handler is given. */
  inputOf(task: Task): Json {
    return hasItems(task.step.definition) ? task.item : this.#inputOf(task.step)
  }

  /** What the child of a task is started with. */
  inputOfChild({ step, item }: Task): Json {
    return step.definition.map ? item : this.#valueAt(step.definition.child!.input)
  }

  /** How many deps a step waits for. */
  openDeps(step: Step): number {
    return this.#deps(step).filter((dep) => !isClosed(dep)).length
  }

  #settleDue(task: Task): Change {
    const { wait } = task.step.definition
    if (wait && wait.whenTimedOut !== 'complete') {
      settleTask(task, { error: timedOut, permanent: true }, this.#clock)
      return wait.whenTimedOut === 'fail'
        ? { to: 'failed', error: timedOut }
        : { to: 'skipped', reason: 'timed_out', error: timedOut }
    }
    const output = wait ? wait.timedOutOutput : null
    settleTask(task, { output }, this.#clock)
    return { to: 'completed', output }
  }

  /** What settled tasks mean for their step. */
  #settleStep(step: Step, endings: [Task, Ending][]): Change {
    const fatal: string[] = []
    const again: { error: string; retryAt: number }[] = []
    for (const [task, ending] of endings) {
      const { retryAt, failed } = settleTask(task, ending, this.#clock)
      if (failed) fatal.push(task.error!)
      if (retryAt !== undefined) again.push({ error: task.error!, retryAt })
      this.#giveUpChild(task)
    }
    const { map, loop, collect } = step.definition
    if (fatal.length > 0) {
      const error = collect ? tooManyFailures(step) : fatal.sort()[0]!
      if (error !== null) return exhausted(step, error)
    }
    const done = step.tasks.filter(
      ({ status }) => status === 'completed' || (collect && status === 'failed'),
    ).length
    if (done < step.tasks.length) {
      const waits = again.length > 0 && !map && this.#isLimited(step) ? { waits: forSlot } : {}
      const retryAt = again.length > 0 ? Math.max(...again.map((failure) => failure.retryAt)) : null
      return {
        to: 'working',
        done,
        retries: again.length,
        error: again.at(-1)?.error ?? null,
        retryAt,
        ...waits,
      }
    }
    if (loop) return afterTurn(step, this.#isLimited(step) ? forSlot : null)
    const outputs = step.tasks.map((task) => (collect ? outcomeOf(task) : task.output))
    return { to: 'completed', output: map ? outputs : outputs[0]! }
  }

  /** Applies changes, wave after wave, until nothing follows from them any more. */
  #advance(first: Wave, delay = 0): void {
    const started = new Set<Step>()
    let wave = first
    do {
      const errors = [...wave.values()].flatMap((change) => (change.to === 'failed' ? [change.error] : []))
      if (errors.length > 0) {
        this.#apply(this.#cancellations(wave))
        this.#end('failed', errors.sort()[0]!)
        break
      }
      for (const step of this.#apply(wave)) started.add(step)
      wave = this.#decisions(delay)
    } while (wave.size > 0)

    for (const step of this.steps) {
      if (step.status === 'started' && started.has(step)) this.#createTasks(step, delay)
      const closed = this.status === 'failed' ? 'cancelled' : step.skipReason ? 'skipped' : undefined
      if (closed) this.#close(step.tasks, closed)
    }
    if (this.status === 'started' && this.#isDone()) {
      this.output = Object.fromEntries(
        this.steps
          .filter((step) => step.status === 'completed' && this.#isLeaf(step))
          .map((step) => [step.definition.slug, step.output]),
      )
      this.#end('completed', null)
    }
  }

  /** Applies one wave; plain steps whose deps it has closed start with it. Answers with the steps that started. */
  #apply(wave: Wave): Step[] {
    const events = [...wave].flatMap(([step, change]) => transition(step, change))
    const isEnding = [...wave.values()].some(({ to }) => to === 'failed' || to === 'cancelled')
    const freed = isEnding
      ? []
      : this.steps.filter((step) => isPlain(this.flow, step.definition) && this.#isReady(step))
    for (const step of freed) events.push(...transition(step, plainStart))
    this.events.push(...inOrder(events))
    return [
      ...freed,
      ...[...wave].filter(([, { to }]) => to === 'started' || to === 'turned').map(([step]) => step),
    ]
  }

  /** In a run that ends, a wave only closes steps, and everything else that is open is cancelled. */
  #cancellations(wave: Wave): Wave {
    const closing = [...wave].filter(
      ([, { to }]) => to === 'completed' || to === 'failed' || to === 'skipped',
    )
    const ending: Wave = new Map(closing)
    for (const step of this.steps) {
      if (!ending.has(step) && (step.status === 'created' || step.status === 'started')) {
        ending.set(step, { to: 'cancelled' })
      }
    }
    return ending
  }

  /** What becomes of steps that wait for nothing any more. */
  #decisions(delay = 0): Wave {
    const wave: Wave = new Map()
    for (const step of this.steps.filter(({ status }) => status === 'created')) {
      if (this.#deps(step).some(cascades))
        wave.set(step, { to: 'skipped', reason: 'dep_skipped', error: null })
      else if (this.#isReady(step)) wave.set(step, this.#decide(step, delay))
    }
    return wave
  }

  #decide(step: Step, delay: number): Change {
    const { slug, runIf, runUnless, whenUnmet, map, child, loop, wait, sleep } = step.definition
    const input = this.#inputOf(step)
    const isMet =
      (runIf === undefined || contains(input, runIf)) &&
      (runUnless === undefined || !contains(input, runUnless))
    if (!isMet && whenUnmet === 'fail') {
      return { to: 'failed', error: `step "${slug}" does not run: its condition is not met` }
    }
    if (!isMet) return { to: 'skipped', reason: 'condition_unmet', error: null }
    const early = step.tasks.find(({ isEarly }) => isEarly)
    if (early) return { to: 'completed', output: early.output }
    const begin = this.#clock.now + delay
    if (wait) return waiting('signal', wait.timeout === null ? null : begin + wait.timeout)
    if (sleep && 'for' in sleep) return waiting('time', begin + sleep.for)
    if (sleep) return this.#sleepUntil(slug, sleep.until)
    const isOver = loop && withoutTurn(step)
    if (isOver) return isOver
    if (!map && this.#isLimited(step)) return started(step, forSlot)
    if (!map) return started(step, child ? forRun : null)
    const items = this.#items(step)
    if (!Array.isArray(items)) {
      const where = [map.source, ...map.path].join('.')
      return {
        to: 'failed',
        error: `step "${slug}" cannot map ${where}: it is ${typeOf(items)}, not an array`,
      }
    }
    return items.length === 0 ? { to: 'completed', output: [] } : { to: 'started', items }
  }

  #sleepUntil(slug: string, key: string): Change {
    const value = at(this.input, [key])
    const time = typeof value === 'number' ? value : Date.parse(typeof value === 'string' ? value : '') / 1000
    if (Number.isNaN(time)) {
      const shown = value === undefined ? 'missing' : JSON.stringify(value)
      return {
        to: 'failed',
        error: `step "${slug}" cannot sleep until run.${key}: it is ${shown}, not an ISO date or seconds since 1970`,
      }
    }
    return time <= this.#clock.now ? { to: 'completed', output: null } : waiting('time', time)
  }

  /** A map step's array of items, if it is one; a source that was skipped has none. */
  #items({ definition: { map } }: Step): Json | undefined {
    const source = this.steps.find(({ definition }) => definition.slug === map!.source)
    if (source?.status === 'skipped') return []
    return at(source ? source.output : this.input, map!.path)
  }

  /** What is at a place; null where there is nothing. */
  #valueAt({ source, path }: Source): Json {
    const step = this.steps.find(({ definition }) => definition.slug === source)
    if (step && step.status !== 'completed') return null
    return at(step ? step.output : this.input, path) ?? null
  }

  /** A task for each item; of a map that starts again, completed ones are kept, and the others begin anew. A loop gets its next turn. */
  #createTasks(step: Step, delay: number): void {
    const total = delay + step.definition.startDelay
    const { deadline, map, child, loop } = step.definition
    if (deadline !== null) step.deadlineAt ??= this.#clock.now + delay + deadline
    const keys = keysOf(this.flow, step.definition, this.#inputOf(step), this.#world.limits)
    const create = (item: Json, index: number): Task => {
      const before = step.tasks[index]
      if (before?.status === 'completed') return before
      const task = this.#newTask(step, index, item)
      if (this.#isLimited(step)) return { ...task, ...this.#waitingForSlot(keys, index, total) }
      if (child) return { ...task, status: 'waiting', waitsFor: 'run' }
      if (!step.waits) return { ...task, visible: total === 0 }
      return { ...task, status: 'waiting', waitsFor: step.waits.for, dueAt: step.waits.dueAt }
    }
    if (loop) {
      const { index, item } = nextTurn(step, this.#valueAt(loop.start))
      step.tasks = [...step.tasks.slice(0, index), create(item, index)]
    } else {
      step.tasks = (map ? (this.#items(step) as Json[]) : [null]).map(create)
    }
    if (child && !this.#isLimited(step)) this.#callChildren(step, total)
  }

  /** Has the children of a step started, after some seconds. */
  #callChildren(step: Step, delay: number): void {
    this.#world.notices.add({ kind: 'child', run: this, step, dueAt: this.#clock.now + delay })
  }

  /** Closes those of the tasks that are open; nobody wants their children any more. */
  #close(tasks: readonly Task[], status: 'cancelled' | 'skipped'): void {
    for (const task of tasks.filter(isOpen)) {
      close(task, status)
      this.#giveUpChild(task)
    }
  }

  /** Nobody waits for the child of a task any more. */
  #giveUpChild({ child, step }: Task): void {
    if (child?.status === 'started' && step.definition.child!.whenParentEnds === 'cancel')
      child.#notify('cancel')
  }

  #notify(kind: 'ended' | 'cancel' | 'retried' | 'undo'): void {
    this.#world.notices.add({ kind, run: this, dueAt: this.#clock.now })
  }

  #notifyOfUndo(): void {
    if (undoFlowOf(this.flow) && !this.undoes) this.#notify('undo')
  }

  #waitingForSlot(keys: readonly Key[], index: number, delay: number): Partial<Task> {
    const readyAt = this.#clock.now + delay
    const wait = delay > 0 ? ({ waitsFor: 'time', dueAt: readyAt } as const) : ({ waitsFor: 'slot' } as const)
    return { status: 'waiting', ...wait, keys, rank: readyAt + index / 1e6 }
  }

  #isLimited({ definition }: Step): boolean {
    return isLimited(this.flow, definition)
  }

  #newTask(step: Step, index: number, item: Json): Task {
    const before = step.tasks[index]
    const attempts = before?.attempts ?? 0
    // A child that was undone is over: another takes its place.
    const kept = before?.child?.undoing ? undefined : before
    const counts = { attempts, attemptsBefore: attempts }
    return {
      run: this,
      step,
      index,
      item,
      ...counts,
      child: kept?.child ?? null,
      childId: kept?.childId ?? null,
      status: 'queued',
      ...idle,
      ...unsettled,
      visible: false,
    }
  }

  #end(status: 'completed' | 'failed' | 'cancelled', error: string | null): void {
    this.status = status
    this.error = error
    this.events.push(`run:${status}`)
    if (this.parent) this.#notify('ended')
    if (status === 'failed') this.#notifyOfUndo()
  }

  #inputOf(step: Step): Json {
    const deps = this.#deps(step).filter(({ status }) => status === 'completed')
    return { run: this.input, ...Object.fromEntries(deps.map((dep) => [dep.definition.slug, dep.output])) }
  }

  #deps(step: Step): Step[] {
    return this.steps.filter(({ definition }) => step.definition.deps.includes(definition.slug))
  }

  #isReady(step: Step): boolean {
    return step.status === 'created' && this.#deps(step).every((dep) => isClosed(dep) && !cascades(dep))
  }

  #isLeaf(step: Step): boolean {
    return !this.flow.steps.some(({ deps }) => deps.includes(step.definition.slug))
  }

  #isDone(): boolean {
    return this.steps.every(isClosed)
  }
}

/** Why a map that collects failures fails after all, if it does. */
function tooManyFailures({ definition, tasks }: Step): string | null {
  const { count, share } = definition.collect!
  const failed = tasks.filter(({ status }) => status === 'failed')
  const tolerated = count ?? (share === null ? tasks.length : Math.floor(share * tasks.length))
  if (failed.length <= tolerated) return null
  const first = failed.sort((a, b) => a.failedAt! - b.failedAt! || a.index - b.index)[0]!
  return `step "${definition.slug}" failed: ${failed.length} of its ${tasks.length} items failed, and it tolerates ${tolerated}; the first error: ${first.error}`
}

function outcomeOf({ status, output, error }: Task): Json {
  return status === 'completed' ? { status, value: output } : { status, error }
}

const forSlot: Waits = { for: 'slot', dueAt: null }
const forRun: Waits = { for: 'run', dueAt: null }

function waiting(what: Waits['for'], dueAt: number | null): Change {
  return { to: 'started', items: [null], waits: { for: what, dueAt } }
}

/** A step begins that is no map; a loop has the turns that it has taken before, too. */
function started({ definition, tasks }: Step, waits: Waits | null): Change {
  const turns = definition.loop ? tasks.filter(({ status }) => status === 'completed').length : 0
  return { to: 'started', items: Array.from({ length: turns + 1 }, () => null), ...(waits && { waits }) }
}
