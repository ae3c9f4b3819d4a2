import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Duration } from '../shared/duration.ts'
import type { BatchOptions } from './batch-types.ts'
import type { SubFlowOptions } from './child-types.ts'
import type { Context } from './context.ts'
import type { Json } from './json-types.ts'
import type { ItemFallback } from './limit-types.ts'
import type { ExceededFallback } from './loop-types.ts'
import type { FlowTypes } from './types.ts'
import type { WaitRole, WebhookProvider } from './wait-types.ts'

/** The role that a client needs to start a flow; a higher one may too. */
export type StartRole = 'service_role' | 'authenticated' | 'anon'

/** Which runs of a flow send their events over Realtime: those that a client follows, all, or none. */
export type Broadcast = 'watched' | 'always' | 'never'

/** Attempts of a step: how many, how long, and the delay between them. */
export interface RetryOptions {
  /** How often a task is attempted at most; at least 1. @default 3 */
  readonly maxAttempts?: number
  /** After `n` failed attempts the next one starts `baseDelay * 2 ** n` later. @default '5s' */
  readonly baseDelay?: Duration
  /** The longest time for an attempt, in whole seconds: `90`, `'5m'`, `'2h'`. @default '60s' */
  readonly timeout?: Duration
}

/**
 * When something happens: minute, hour, day of the month, month and day of the week, as in cron; or one of the names.
 *
 * @example
 * '30 7 * * mon-fri' // at 7:30 on working days
 * '@hourly' // on the hour
 */
export type CronExpression =
  | `@${'hourly' | 'daily' | 'midnight' | 'weekly' | 'monthly' | 'yearly' | 'annually'}`
  | `${string} ${string} ${string} ${string} ${string}`

/** What starts a flow by itself, at the times of a cron expression. */
export type FlowSchedule<Input = unknown> = ScheduleOptions &
  (null extends Input ? { readonly input?: Input } : { readonly input: Input })

/** How a schedule starts runs. */
export interface ScheduleTiming {
  readonly cron: CronExpression
  /** The name of the time zone in which `cron` is meant, as in `Europe/Berlin`. @default 'UTC' */
  readonly timeZone?: string
  /**
   * What happens at a time at which the run before is still open: `'skip'` starts none, `'allow'` starts one beside it,
   * `'cancel'` cancels the older one. @default 'skip'
   */
  readonly overlap?: 'skip' | 'allow' | 'cancel'
  /**
   * Which times are made up for that have passed while neither a worker nor pg_cron was there: the last of them, none, or all.
   * @default 'last'
   */
  readonly catchUp?: 'last' | 'none' | 'all'
  /** How old a time may be that is made up for, in whole seconds: `90`, `'2h'`, `'3d'`. @default '1d' */
  readonly catchUpWindow?: Duration
}

interface ScheduleOptions extends ScheduleTiming {
  /** Names the schedule. It is unique in the project. */
  readonly slug: string
  /**
   * Distributes the runs of many schedules with the same time over this long, in whole seconds, a day at most; each schedule
   * has its own part. @default 0
   */
  readonly spread?: Duration
}

/** Which runs go ahead where several wait for a worker or a slot. */
export type Priority = 'high' | 'normal' | 'low'

/** How many tasks in how long a time, in whole seconds: `[3000, '1m']`. */
export type Rate = readonly [count: number, period: Duration]

interface LimitScope<By> {
  /**
   * Names the limit: all flows and steps that give this name share it. The last definition that is registered decides the
   * numbers, unless SQL has set them (`pgflow.set_limit`).
   * @default one of the flow's own, or the step's own
   */
  readonly name?: string
  /**
   * A path of a string, number or boolean in the run's input or the output of a dep, such as `'run.tenant'`: each value has a
   * limit of its own. @default all tasks share the limit
   */
  readonly by?: By
}

/** How many tasks run at the same time (`running`), how many start in a period (`rate`), or both. */
export type Limit<By = string> = LimitScope<By> &
  (
    | {
        /** How many tasks run at the same time at most: they are queued for a worker, or a worker has them. */
        readonly running: number
        readonly rate?: Rate
      }
    | {
        readonly running?: never
        /** How many tasks start in a period at most, evenly spread over it: `[3000, '1m']`. */
        readonly rate: Rate
      }
  )

/** Of a flow with this option, one run goes on at a time, or one for each value at `key`. */
export type Singleton<Key = string> = {
  /** The path of a string, number or boolean in the run's input, such as `'run.documentId'`. @default one run of the flow */
  readonly key?: Key
} & (
  | {
      /**
       * What a start does while another run goes on: `'return'` gives that run, `'reject'` is an error, `'replace'` cancels it and
       * starts a new one, `'after'` starts one that begins when it has ended. @default 'return'
       */
      readonly whenBusy?: 'return' | 'reject' | 'replace'
      readonly wait?: never
    }
  | {
      readonly whenBusy: 'after'
      /** How long a run waits for another start, which takes its place, before it begins; in whole seconds. @default 0 */
      readonly wait?: Duration
    }
)

export interface FlowOptions<Key = string> extends StepTiming {
  /** Which runs go ahead; a start may say otherwise. @default 'normal' */
  readonly priority?: Priority
  /** How long a run may take in all, in whole seconds: `90`, `'2h'`, a year at most. @default without end */
  readonly deadline?: Duration
  /** Lets one run go on at a time, or one for each value at a path in the run's input. @default any number of runs */
  readonly singleton?: Singleton<Key>
  /** Limits for all steps of the flow together. A task has three limits at most, with those of its step. @default [] */
  readonly limits?: readonly Limit<Key>[]
  /** What starts the flow by itself. Registering the flow makes, changes and removes these schedules. @default [] */
  readonly schedules?: readonly FlowSchedule[]
  /** Whether signed-in users may keep schedules of their own for this flow, up to 20 each. @default false */
  readonly schedulable?: boolean
  /** Give a flow whose shape has changed the next number; runs of older versions continue. @default 1 */
  readonly version?: number
  /** The role that a client needs to start the flow. @default 'service_role' */
  readonly startRole?: StartRole
  /** Which runs send their events over Realtime. @default 'watched' */
  readonly broadcast?: Broadcast
}

export interface StepTiming extends RetryOptions {
  /** The delay before the first attempt, once the deps are done, in whole seconds: `90`, `'10m'`. @default 0 */
  readonly startDelay?: Duration
}

/** What a step has that workers run. */
export interface TaskOptions<Key = string> {
  /** How long the step may take in all, with its attempts and delays, in whole seconds: `90`, `'2h'`. @default without end */
  readonly deadline?: Duration
  /** Limits for the step's tasks. A task has three limits at most, with those of its flow. @default [] */
  readonly limits?: readonly Limit<Key>[]
}

/** What a map has beside. */
export interface MapOptions {
  /** How many items of a run are worked on at the same time at most. @default all */
  readonly concurrency?: number
  /**
   * What happens when the last attempt of an item has failed: the step fails, or its output says so (`'collect'`): it is then an array
   * of `{ status: 'completed', value }` and `{ status: 'failed', error }`. @default 'fail'
   */
  readonly whenItemFails?: ItemFallback
  /** With `'collect'`, how many failed items are no failure of the step: a number, or a share (`'5%'`). @default all */
  readonly tolerate?: number | `${number}%`
}

/** What happens to a step whose condition is not met, or whose last attempt has failed. */
export type StepFallback = 'fail' | 'skip' | 'skip-cascade'

/** When a step runs, and what happens if it does not. */
export interface Conditions {
  /** Part of the step's payload: the step runs only if its payload contains this (`@>` of Postgres). */
  readonly runIf?: Json
  /** Part of the step's payload: the step does not run if its payload contains this (`@>` of Postgres). */
  readonly runUnless?: Json
  /**
   * What happens if the condition is not met: `'skip-cascade'` skips the step and its dependents, `'skip'` skips only the
   * step, and its dependents run without its output, `'fail'` fails the run.
   * @default 'skip-cascade'
   */
  readonly whenUnmet?: StepFallback
  /** The same when the last attempt of the step has failed. @default 'fail' */
  readonly whenExhausted?: StepFallback
}

/** Options of a wait, beside its `timeout`, for which there is no default. */
export interface WaitOptions {
  /** A role, or the path of the ids of users. @default 'service_role' */
  readonly by?: WaitRole | (string & {})
  readonly notBy?: 'owner'
  /** @default 'fail' */
  readonly whenTimedOut?: StepFallback | { readonly output: Json }
  /** @default false */
  readonly webhook?: boolean | WebhookProvider
}

/** Options of a sleep: one of them is given. */
export interface SleepOptions {
  readonly for?: Duration
  /** A path: of an ISO date or epoch seconds. */
  readonly until?: string
}

/** What a loop has beside. */
export interface LoopOptions {
  /** A part of what a turn returns: the loop completes with the first output that contains this (`@>` of Postgres). */
  readonly until?: Json
  /** How many turns it takes at most, from 1 to 10,000. @default 100 */
  readonly max?: number
  /** What happens after `max` turns of which none has ended it. @default 'fail' */
  readonly whenExceeded?: ExceededFallback
}

/** Options of an SQL step. */
export interface SqlOptions {
  /** A function with its schema, `(payload jsonb) returns jsonb`. */
  readonly call?: string
}

/** Options of a step. An omitted one of {@link StepTiming} is the flow's. */
export interface StepOptions
  extends StepTiming,
    TaskOptions,
    MapOptions,
    SubFlowOptions,
    Conditions,
    WaitOptions,
    SqlOptions,
    Omit<LoopOptions, 'until'>,
    Omit<SleepOptions, 'until'> {
  /** Of a sleep a path, of a loop a part of what a turn returns. */
  readonly until?: Json
}

/** What a step is: a handler's task, one for each item, one after another, a wait for somebody or for a time, or a call of an SQL function. */
export type StepType = 'single' | 'map' | 'wait' | 'sleep' | 'loop' | 'sql'

/** Where the items of a map, the input of a sub-flow or the first state of a loop are: in the run's input or the output of a dep, possibly at a path inside it. */
export interface MapSource {
  /** `run`, or the slug of a dep. */
  readonly source: string
  /** Keys, as in `a.b`. */
  readonly path?: string
}

/** A step as a worker runs it. */
export interface StepDefinition {
  readonly slug: string
  readonly type: StepType
  readonly deps: readonly string[]
  /** Only in maps, loops and sub-flows: where the items are, the first state, or the input. */
  readonly items?: MapSource
  /** The flow of which the step starts a run, a map one for each item; its alias where only that is given. */
  readonly child?: AnyFlow | string
  readonly options: StepOptions
  /** How tasks are gathered; the handler is a {@link BatchHandler}. */
  readonly batch?: BatchOptions
  /** Schema of what the handler gets: the payload, an item of a map, or the state of a loop. */
  readonly inputSchema?: StandardSchemaV1
  /** Schema of what the handler or the SQL function returns; in a map, for each item, in a loop, for each turn; of a wait, of what completes it. */
  readonly outputSchema?: StandardSchemaV1
  /** Waits, sleeps, sub-flows and SQL steps have none. */
  readonly handler?: StepHandler
  /** Undoes what the step has done: the handler of a step of the undo flow, and where its options differ from the step's. */
  readonly undo?: { readonly handler: StepHandler; readonly options: RetryOptions }
}

/** A step that a worker runs. */
export interface HandledStep extends StepDefinition {
  readonly handler: StepHandler
}

export function hasHandler(step: StepDefinition): step is HandledStep {
  return step.handler !== undefined
}

/** A handler without the types of its flow, as the worker calls it; with the option `batch` it is a {@link BatchHandler}. */
export type StepHandler = (payload: unknown, context: Context) => unknown

/** A flow of any type, as the worker, the client and `compile` take it. */
export interface AnyFlow {
  /** The slug in the database: from version 2 on with the version, as in `report_v2`. */
  readonly slug: string
  /** The slug without the version; a start by it starts the newest version. */
  readonly alias: string
  readonly options: FlowOptions
  /** Schema of a run's input. */
  readonly inputSchema?: StandardSchemaV1
  /** In the order of their definition, so that a step comes after its deps. */
  readonly steps: ReadonlyMap<string, StepDefinition>
  /** For the compiler only; it does not exist at run time. */
  readonly '~types': FlowTypes
}
