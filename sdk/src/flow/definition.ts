import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Duration } from '../shared/duration.ts'
import type { Context } from './context.ts'
import type { Json } from './json-types.ts'
import type { FlowTypes } from './types.ts'

/** Who may start a flow from a client. */
export type StartRole = 'service_role' | 'authenticated' | 'anon'

/** Whose events a flow broadcasts: of runs that somebody watches, of all runs, of none. */
export type Broadcast = 'watched' | 'always' | 'never'

/** How often, how long and how patiently a step is tried. */
export interface RetryOptions {
  /** How many times a task is tried at most. @default 3 */
  readonly maxAttempts?: number
  /** A failed attempt is repeated after `baseDelay * 2 ** attempts`: seconds, or text such as `'500ms'`. @default 5 */
  readonly baseDelay?: Duration
  /** How long one attempt may take: whole seconds, or text such as `'5m'` or `'2h'`. @default 60 */
  readonly timeout?: Duration
}

export interface FlowOptions extends StepTiming {
  /** A flow whose shape changes gets the next number; runs of older versions go on. @default 1 */
  readonly version?: number
  /** @default 'service_role' */
  readonly startRole?: StartRole
  /** @default 'watched' */
  readonly broadcast?: Broadcast
}

export interface StepTiming extends RetryOptions {
  /** How long a ready step waits for its first attempt: whole seconds, or text such as `'10m'`. @default 0 */
  readonly startDelay?: Duration
}

/** What becomes of a step whose condition is not met, or whose attempts are exhausted. */
export type StepFallback = 'fail' | 'skip' | 'skip-cascade'

/** When a step runs, and what becomes of it if it does not. */
export interface Conditions {
  /** A part of the step's input: it runs only if its input contains this. */
  readonly runIf?: Json
  /** A part of the step's input: it does not run if its input contains this. */
  readonly runUnless?: Json
  /**
   * What becomes of a step that does not run: it is skipped with all that depends on it, it is skipped alone, so that
   * its dependents run without its output, or the run fails.
   * @default 'skip-cascade'
   */
  readonly whenUnmet?: StepFallback
  /** The same for a step whose last attempt failed. @default 'fail' */
  readonly whenExhausted?: StepFallback
}

/** What is not given here is as the flow has it. */
export interface StepOptions extends StepTiming, Conditions {}

/** Where a map has its items: in the run's input or the output of a dep, at a path inside it. */
export interface MapSource {
  /** `run`, or the slug of a dep. */
  readonly source: string
  /** Keys, as in `a.b`. */
  readonly path?: string
}

/** A step as a worker runs it. */
export interface StepDefinition {
  readonly slug: string
  readonly type: 'single' | 'map'
  readonly deps: readonly string[]
  /** Of maps only. */
  readonly items?: MapSource
  readonly options: StepOptions
  /** Of what the handler gets: the payload, or an item of a map. */
  readonly inputSchema?: StandardSchemaV1
  /** Of what the handler returns; of a map, for each item. */
  readonly outputSchema?: StandardSchemaV1
  readonly handler: StepHandler
}

/** A handler without the types of its flow: the worker calls it with what the database gave. */
export type StepHandler = (payload: unknown, context: Context) => unknown

/** Any flow, whatever its types: what the worker, the client and `compile` take. */
export interface AnyFlow {
  /** As the database knows it: with the version, from the second one on. */
  readonly slug: string
  /** The slug without the version: it names the newest one. */
  readonly alias: string
  readonly options: FlowOptions
  /** Of what a run is started with. */
  readonly inputSchema?: StandardSchemaV1
  /** In the order of their definition, so that a step comes after its deps. */
  readonly steps: ReadonlyMap<string, StepDefinition>
  /** For the compiler only; it does not exist at run time. */
  readonly '~types': FlowTypes
}
