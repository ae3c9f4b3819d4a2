/** Flows as the model knows them. */
import type { Json } from './json.ts'

/** What becomes of a step that does not run, or has no attempts left. */
export type Reaction = 'fail' | 'skip' | 'skip-cascade'

/** What a wait becomes when its time is over. */
export type TimedOut = Reaction | 'complete'

export interface StepDefinition {
  readonly slug: string
  readonly deps: readonly string[]
  /** Where a map step finds its items: in `run` or a dep, inside it at a path. */
  readonly map?: { readonly source: string; readonly path: readonly string[] }
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
}

/** Steps in topological order. */
export type FlowDefinition = readonly StepDefinition[]

/** Whether a step starts as soon as its deps are closed. */
export function isPlain({ map, wait, sleep, runIf, runUnless }: StepDefinition): boolean {
  return !map && !wait && !sleep && runIf === undefined && runUnless === undefined
}
