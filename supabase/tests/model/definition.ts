/** Flows as the model knows them. */
import type { Json } from './json.ts'

/** What becomes of a step that does not run, or has no attempts left. */
export type Reaction = 'fail' | 'skip' | 'skip-cascade'

/** What a wait becomes when its time is over. */
export type TimedOut = Reaction | 'complete'

/** How many tasks of a key are queued or started at once, and how many are admitted in so many seconds. */
export interface LimitDefinition {
  readonly running: number | null
  readonly rate: readonly [count: number, period: number] | null
}

/** One of the limits of a history; each value at a path in the step's input has a key of its own. */
export interface LimitUse {
  readonly limit: number
  readonly by: readonly string[] | null
}

/** A value in `run` or a dep, inside it at a path. */
export interface Source {
  readonly source: string
  readonly path: readonly string[]
}

/** A run of another flow does the work. */
export interface ChildDefinition {
  /** Its place among the flows of the history. */
  readonly flow: number
  /** What it is started with; a flow map gives each its item instead. */
  readonly input: Source
  readonly whenParentEnds: 'cancel' | 'leave'
}

/** The output of each turn is the input of the next. */
export interface LoopDefinition {
  readonly start: Source
  /** What the last output contains. */
  readonly until?: Json
  readonly max: number
  readonly whenExceeded: 'fail' | 'complete'
}

export interface StepDefinition {
  readonly slug: string
  readonly deps: readonly string[]
  /** Where a map step finds its items. */
  readonly map?: Source
  readonly child?: ChildDefinition
  readonly loop?: LoopDefinition
  /** Whether what it has done can be undone. */
  readonly hasUndo?: boolean
  /** Somebody completes it. Seconds; without a timeout there is no end. */
  readonly wait?: {
    readonly timeout: number | null
    readonly whenTimedOut: TimedOut
    readonly timedOutOutput: Json
  }
  /** The time ends it: so many seconds after it began, or what is at a path of the run's input. */
  readonly sleep?: { readonly for: number } | { readonly until: string }
  readonly runIf?: Json
  readonly runUnless?: Json
  readonly whenUnmet: Reaction
  readonly whenExhausted: Reaction
  readonly maxAttempts: number
  /** Seconds, as are the delays of failures. */
  readonly baseDelay: number
  readonly startDelay: number
  readonly limits: readonly LimitUse[]
  /** How many items of a map have a slot at once. */
  readonly concurrency: number | null
  /** A map that completes although so many of its items fail, or such a share of them; null of both is all. */
  readonly collect: { readonly count: number | null; readonly share: number | null } | null
  /** Seconds for all that it does, its start delay included. */
  readonly deadline: number | null
}

export interface FlowDefinition {
  /** In topological order. */
  readonly steps: readonly StepDefinition[]
  /** Those that the tasks of all its steps have, beside those of their step. */
  readonly limits: readonly LimitUse[]
  /** Seconds for a run in all. */
  readonly deadline: number | null
}

/** Whether a step has a task for each of several items or turns, with inputs and outputs of their own. */
export function hasItems({ map, loop }: StepDefinition): boolean {
  return (map ?? loop) !== undefined
}

/** Whether a step starts as soon as its deps are closed. */
export function isPlain(flow: FlowDefinition, step: StepDefinition): boolean {
  const { map, child, loop, wait, sleep, runIf, runUnless } = step
  if (map ?? child ?? loop ?? wait ?? sleep) return false
  return runIf === undefined && runUnless === undefined && !isLimited(flow, step)
}

/** The limits that the tasks of a flow have, and those of the flows that it starts, by their places. */
function limitsBelow(flows: readonly FlowDefinition[], place: number, known = new Set<number>()): number[] {
  if (known.has(place)) return []
  known.add(place)
  const { steps, limits } = flows[place]!
  const own = [...limits, ...steps.flatMap((step) => step.limits)].map(({ limit }) => limit)
  return [...own, ...steps.flatMap(({ child }) => (child ? limitsBelow(flows, child.flow, known) : []))]
}

/** The flows, without slots that a step would hold while a flow that it starts needs them: registering refuses these. */
export function withoutSharedSlots(flows: readonly FlowDefinition[]): FlowDefinition[] {
  return flows.map((flow) => {
    const needed = flow.steps.map(({ child }) => (child ? limitsBelow(flows, child.flow) : []))
    const without = (uses: readonly LimitUse[], limits: readonly number[]) =>
      uses.filter(({ limit }) => !limits.includes(limit))
    const steps = flow.steps.map((step, n) => ({ ...step, limits: without(step.limits, needed[n]!) }))
    return { ...flow, steps, limits: without(flow.limits, needed.flat()) }
  })
}

/** Whether the tasks of a step wait for slots. */
export function isLimited(flow: FlowDefinition, step: StepDefinition): boolean {
  if (step.wait || step.sleep) return false
  return flow.limits.length + step.limits.length > 0 || step.concurrency !== null
}
