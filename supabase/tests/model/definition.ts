/** Flows as the model knows them. */
import type { Json } from './json.ts'

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
  /** Seconds, as are the delays of failures. */
  readonly baseDelay: number
  readonly startDelay: number
}

/** Steps in topological order. */
export type FlowDefinition = readonly StepDefinition[]

/** Whether a step starts as soon as its deps are closed. */
export function isPlain({ map, runIf, runUnless }: StepDefinition): boolean {
  return !map && runIf === undefined && runUnless === undefined
}
