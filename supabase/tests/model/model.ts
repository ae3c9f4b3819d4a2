/**
 * What the engine must do, said once more in the plainest way: no batches of many runs, no locks, no SQL. A run is its
 * steps, each with its tasks; whatever happens to it is a method; what it looks like then is `look`.
 */
import { at, contains, type Json, typeOf } from './json.ts'

/** What becomes of a step that does not run, or has no attempts left. */
export type Reaction = 'fail' | 'skip' | 'skip-cascade'

export interface StepDefinition {
  readonly slug: string
  readonly deps: readonly string[]
  /** Where a map step finds its items: in `run` or a dep, inside it at a path. */
  readonly map?: { readonly source: string; readonly path: readonly string[] }
  readonly runIf?: Json
  readonly runUnless?: Json
  readonly whenUnmet: Reaction
  readonly whenExhausted: Reaction
  readonly maxAttempts: number
  /** Seconds. */
  readonly startDelay: number
}

/** Steps in topological order. */
export type FlowDefinition = readonly StepDefinition[]

type StepStatus = 'created' | 'started' | 'completed' | 'failed' | 'skipped' | 'cancelled'
type TaskStatus = 'queued' | 'started' | 'completed' | 'failed' | 'skipped' | 'cancelled'

export interface Task {
  readonly run: Run
  readonly step: Step
  readonly index: number
  readonly item: Json
  status: TaskStatus
  /** Counts claims, and never falls. */
  attempts: number
  /** Attempts that were used up before the run was retried. */
  attemptsBefore: number
  output: Json
  error: string | null
  /** Whether a claim may take it now. */
  visible: boolean
  /** The id of its message, which the database gives. */
  message: number
}

export interface Step {
  readonly definition: StepDefinition
  readonly order: number
  status: StepStatus
  skipReason: 'condition_unmet' | 'dep_skipped' | 'attempts_exhausted' | null
  output: Json
  error: string | null
  retries: number
  progress: { done: number; total: number } | null
  initialTasks: number | null
  /** Completed tasks, as of the last progress of the step. */
  done: number
  tasks: Task[]
}

type Change =
  | { to: 'completed'; output: Json }
  | { to: 'failed'; error: string }
  | { to: 'skipped'; reason: NonNullable<Step['skipReason']>; error: string | null }
  | { to: 'started'; items: Json[] }
  | { to: 'working'; done: number; retries: number; error: string | null }
  | { to: 'cancelled' }

type Wave = Map<Step, Change>

const plainStart: Change = { to: 'started', items: [null] }

/** How an attempt of a task ended. */
export type Ending =
  | { readonly output: Json }
  | { readonly error: string; readonly retryDelay?: number; readonly permanent?: boolean }

export interface Settlement {
  readonly task: Task
  /** The attempt that ended; none settles the task as it stands. */
  readonly attempt: number | null
  readonly ending: Ending
}

/** The events of one wave: steps end before others start, each kind in the order of the steps. */
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

export const leaseExpired = 'lease expired: the worker was lost'

export class Run {
  readonly flow: FlowDefinition
  readonly input: Json
  readonly steps: Step[]
  readonly events: string[] = ['run:started']
  status: 'started' | 'completed' | 'failed' | 'cancelled' = 'started'
  output: Json = null
  error: string | null = null

  constructor(flow: FlowDefinition, input: Json, delay = 0) {
    this.flow = flow
    this.input = input
    this.steps = flow.map((definition, order) => ({
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
  cancel(reason: string | null): boolean {
    if (this.status === 'cancelled') return true
    if (this.status !== 'started') return false
    this.#apply(this.#cancellations(new Map()))
    for (const task of this.tasks.filter(isOpen)) task.status = 'cancelled'
    this.#end('cancelled', reason)
    return true
  }

  /** Runs what failed or was cancelled again; whether it could. */
  retry(): boolean {
    if (this.status !== 'failed' && this.status !== 'cancelled') return false
    this.status = 'started'
    this.error = null
    this.events.push('run:retried')
    for (const step of this.steps) {
      if (step.status === 'failed' || step.status === 'cancelled') Object.assign(step, unstarted)
    }
    this.#advance(this.#decisions())
    return true
  }

  /** What a handler is given. */
  inputOf(task: Task): Json {
    return task.step.definition.map ? task.item : this.#inputOf(task.step)
  }

  /** How many deps a step waits for. */
  openDeps(step: Step): number {
    return this.#deps(step).filter((dep) => !isClosed(dep)).length
  }

  /** What settled tasks mean for their step. */
  #settleStep(step: Step, endings: [Task, Ending][]): Change {
    const total = step.tasks.length
    let retries = 0
    let lastError: string | null = null
    const fatal: string[] = []
    for (const [task, ending] of endings) {
      if ('output' in ending) {
        complete(task, ending.output)
      } else if (ending.permanent || !hasAttempts(task)) {
        fail(task, ending.error)
        fatal.push(ending.error)
      } else {
        requeue(task, ending.error, ending.retryDelay ?? 0)
        retries += 1
        lastError = ending.error
      }
    }
    if (fatal.length > 0) {
      const error = fatal.sort()[0]!
      return step.definition.whenExhausted === 'fail'
        ? { to: 'failed', error }
        : { to: 'skipped', reason: 'attempts_exhausted', error }
    }
    const done = step.tasks.filter(({ status }) => status === 'completed').length
    if (done < total) return { to: 'working', done, retries, error: lastError }
    const outputs = step.tasks.map(({ output }) => output)
    return { to: 'completed', output: step.definition.map ? outputs : outputs[0]! }
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
      wave = this.#decisions()
    } while (wave.size > 0)

    for (const step of this.steps) {
      if (step.status === 'started' && started.has(step)) this.#createTasks(step, delay)
      const closed = this.status === 'failed' ? 'cancelled' : step.skipReason ? 'skipped' : undefined
      if (closed) for (const task of step.tasks.filter(isOpen)) task.status = closed
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
    const freed = isEnding ? [] : this.steps.filter((step) => isPlain(step.definition) && this.#isReady(step))
    for (const step of freed) events.push(...transition(step, plainStart))
    events.sort((a, b) => ranks.indexOf(a.kind) - ranks.indexOf(b.kind) || a.step.order - b.step.order)
    this.events.push(
      ...events.map(({ kind, step }) => `step:${kind.replace(' first', '')} ${step.definition.slug}`),
    )
    return [...freed, ...[...wave.keys()].filter((step) => wave.get(step)!.to === 'started')]
  }

  /** In a run that ends, a wave only closes steps, and everything else that is open is cancelled. */
  #cancellations(wave: Wave): Wave {
    const closing = [...wave].filter(([, { to }]) => to !== 'started' && to !== 'working')
    const ending: Wave = new Map(closing)
    for (const step of this.steps) {
      if (!ending.has(step) && (step.status === 'created' || step.status === 'started')) {
        ending.set(step, { to: 'cancelled' })
      }
    }
    return ending
  }

  /** What becomes of steps that wait for nothing any more. */
  #decisions(): Wave {
    const wave: Wave = new Map()
    for (const step of this.steps.filter(({ status }) => status === 'created')) {
      if (this.#deps(step).some(cascades))
        wave.set(step, { to: 'skipped', reason: 'dep_skipped', error: null })
      else if (this.#isReady(step)) wave.set(step, this.#decide(step))
    }
    return wave
  }

  #decide(step: Step): Change {
    const { slug, runIf, runUnless, whenUnmet, map } = step.definition
    const input = this.#inputOf(step)
    const isMet =
      (runIf === undefined || contains(input, runIf)) &&
      (runUnless === undefined || !contains(input, runUnless))
    if (!isMet && whenUnmet === 'fail') {
      return { to: 'failed', error: `step "${slug}" does not run: its condition is not met` }
    }
    if (!isMet) return { to: 'skipped', reason: 'condition_unmet', error: null }
    if (!map) return plainStart
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

  /** A map step's array of items, if it is one; a source that was skipped has none. */
  #items({ definition: { map } }: Step): Json | undefined {
    const source = this.steps.find(({ definition }) => definition.slug === map!.source)
    if (source?.status === 'skipped') return []
    return at(source ? source.output : this.input, map!.path)
  }

  /** A task for each item; of a map that starts again, completed ones are kept, and the others begin anew. */
  #createTasks(step: Step, delay: number): void {
    const visible = delay + step.definition.startDelay === 0
    const items = step.definition.map ? (this.#items(step) as Json[]) : [null]
    step.tasks = items.map((item, index) => {
      const before = step.tasks[index]
      if (before?.status === 'completed') return before
      const attempts = before?.attempts ?? 0
      const counts = { attempts, attemptsBefore: attempts }
      return { run: this, step, index, item, ...counts, status: 'queued', ...unsettled, visible, message: 0 }
    })
  }

  #end(status: 'completed' | 'failed' | 'cancelled', error: string | null): void {
    this.status = status
    this.error = error
    this.events.push(`run:${status}`)
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
    return !this.flow.some(({ deps }) => deps.includes(step.definition.slug))
  }

  #isDone(): boolean {
    return this.steps.every(isClosed)
  }
}

const unstarted = {
  status: 'created',
  error: null,
  retries: 0,
  progress: null,
  initialTasks: null,
  done: 0,
} as const satisfies Partial<Step>

const unsettled = { output: null, error: null } as const satisfies Partial<Task>

/** Changes a step; answers with the events of that. */
function transition(step: Step, change: Change): { kind: string; step: Step }[] {
  if (change.to === 'working') return work(step, change)
  const begins = step.status === 'created' && change.to === 'completed'
  step.status = change.to
  if (change.to === 'started') {
    step.initialTasks = change.items.length
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
function work(
  step: Step,
  { done, retries, error }: Change & { to: 'working' },
): { kind: string; step: Step }[] {
  const total = step.initialTasks!
  const before = step.done
  step.done = done
  step.retries += retries
  if (retries > 0) step.error = error
  const hasGrown = Math.floor((20 * done) / total) > Math.floor((20 * before) / total)
  if (hasGrown) step.progress = { done, total }
  return [
    ...(retries > 0 ? [{ kind: 'retrying', step }] : []),
    ...(hasGrown ? [{ kind: 'progress', step }] : []),
  ]
}

function isClosed({ status }: Step): boolean {
  return status === 'completed' || status === 'skipped'
}

/** Whether a step was skipped together with all that depends on it. */
function cascades({ skipReason, definition }: Step): boolean {
  if (skipReason === 'condition_unmet') return definition.whenUnmet === 'skip-cascade'
  if (skipReason === 'attempts_exhausted') return definition.whenExhausted === 'skip-cascade'
  return skipReason === 'dep_skipped'
}

/** Whether a step starts as soon as its deps are closed. */
function isPlain({ map, runIf, runUnless }: StepDefinition): boolean {
  return !map && runIf === undefined && runUnless === undefined
}

export function isOpen({ status }: Task): boolean {
  return status === 'queued' || status === 'started'
}

export function isCurrent({ status, attempts }: Task, attempt: number): boolean {
  return status === 'started' && attempts === attempt
}

export function hasAttempts({ attempts, attemptsBefore, step }: Task): boolean {
  return attempts - attemptsBefore < step.definition.maxAttempts
}

function complete(task: Task, output: Json): void {
  task.status = 'completed'
  task.output = output
  task.error = null
}

function fail(task: Task, error: string): void {
  task.status = 'failed'
  task.error = error
}

function requeue(task: Task, error: string, delay: number): void {
  task.status = 'queued'
  task.error = error
  task.visible = delay === 0
}
