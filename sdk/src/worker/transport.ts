import type { TransactionSql } from 'postgres'
import type { AnyFlow } from '../flow/definition.ts'
import type { ErrorDescription } from '../flow/error-description.ts'
import type { Json } from '../flow/json-types.ts'

/** One attempt at a task; the attempt is what a settlement is fenced by. */
export interface TaskKey {
  readonly run_id: string
  readonly step_slug: string
  readonly task_index: number
  readonly attempt: number
}

export interface ClaimedTask extends TaskKey {
  readonly flow_slug: string
  /** `{ run, <dep>: … }` without the values that `refs` names, or a map's item. */
  readonly input: unknown
  /** The version of each value that the claim left out, by its name: large ones, and all that a map's task has beside its item. */
  readonly refs: { readonly [name: string]: string } | null
  /** Seconds. */
  readonly timeout: number
}

/** A value that a claim left out. It never changes. */
export interface ValueRef {
  readonly run_id: string
  /** `run`, or the slug of the step whose output it is. */
  readonly name: string
  readonly version: string
}

export interface CompletedResult extends TaskKey {
  /** The output as JSON text: it goes to the database as it is. */
  readonly outputJson: string
}

export interface FailedResult extends TaskKey {
  readonly error: string
  /** What the handler threw. */
  readonly thrown?: ErrorDescription
  /** Seconds. */
  readonly retry_delay?: number
  readonly permanent?: boolean
  /** The attempt does not count against the step's `max_attempts`. */
  readonly uncounted?: boolean
}

export type Result = CompletedResult | FailedResult

export interface WorkRequest {
  readonly results: readonly Result[]
  readonly flow_slugs: readonly string[]
  /** How many tasks to claim at most; 0 to settle only. */
  readonly quantity: number
  readonly worker_id: string
  /** Seconds. */
  readonly lease: number
  /** Bytes; larger values are left out of the inputs. */
  readonly inline_limit: number
  /** If no task is claimed, `listen` has to tell when there are some. */
  readonly waiting: boolean
  /** Whether to say when something is due, for `tick`. @default false */
  readonly due?: boolean
  /** Calls of different lanes are under way at the same time: less than `exchanges`. @default 0 */
  readonly lane?: number
  /** Whether it takes long, so that no other call is to wait for it. */
  readonly apart?: boolean
}

export interface Work {
  /** The results that came too late: they changed nothing. */
  readonly stale: readonly TaskKey[]
  /** The results whose runs another transaction has locked: they are not settled yet and have to be sent again. */
  readonly held: readonly TaskKey[]
  readonly tasks: readonly ClaimedTask[]
  /** Seconds until something is due; null for nothing, and absent where it was not asked for. */
  readonly next_due_in?: number | null
  /** The same for functions of SQL steps, of those that nobody calls at the moment. */
  readonly next_call_in?: number | null
}

/** What a tick has settled, and in how many seconds something is due; null for nothing. */
export interface Tick {
  readonly settled: number
  readonly next_due_in: number | null
}

/** `active` is false when the task is no longer this attempt's. */
export interface Lease extends TaskKey {
  readonly active: boolean
  /** Of the task; null when another attempt has it. */
  readonly status: string | null
}

/** What completes a wait. */
export interface WaitCompletion {
  readonly run_id: string
  readonly step_slug: string
  /** As JSON text: it goes to the database as it is. */
  readonly outputJson: string
}

/** A result that a handler wants to be kept. */
export interface ResultToKeep extends TaskKey {
  readonly name: string
  /** As JSON text: it goes to the database as it is. */
  readonly valueJson: string
}

/** A transaction of a handler. */
export interface TransactionRequest {
  /** For the database's list of sessions; each transaction has another one. */
  readonly name: string
  /** Seconds for a statement, and between two of them. */
  readonly timeout: number
  /** Ends it at once. */
  readonly signal: AbortSignal
}

/** How far a handler is. */
export interface ProgressReport extends TaskKey {
  readonly progress: { readonly value: number; readonly data?: unknown; readonly task_index?: number }
}

export interface WorkerRow {
  readonly worker_id: string
  readonly name: string
  readonly flow_slugs: readonly string[]
}

/**
 * How a worker talks to its database. Each call is one transaction, and none needs a session.
 *
 * A call that fails rejects. Whether it is repeated is judged by the error's `code`, a SQLSTATE where the database
 * answered (see `isTransient`); so a transport over HTTP gives its errors the `code` of the response's body.
 */
export interface Transport {
  /** How many calls of `settleAndClaim` may be under way at the same time. @default 1 */
  readonly exchanges?: number
  /** `pgflow.schema_version`; `undefined` where there is none. */
  schemaVersion(): Promise<number | undefined>
  defineFlow(flow: AnyFlow): Promise<void>
  registerWorker(worker: WorkerRow): Promise<void>
  /** `pgflow.settle_and_claim`. If it rejects, no result is settled; those that are `held` have to be sent again. */
  settleAndClaim(request: WorkRequest): Promise<Work>
  /** `pgflow.heartbeat`: the worker is alive, and its tasks' leases last for `lease` seconds from now. */
  heartbeat(workerId: string, tasks: readonly TaskKey[], lease: number): Promise<Lease[]>
  /** `pgflow.settle_due`: waits and sleeps that are due are settled, of any flow. It waits for no lock. */
  tick(): Promise<Tick>
  /** `pgflow.call_functions`: calls a function of an SQL step that is due, of any flow; it takes as long as the function. */
  callFunctions(): Promise<Tick>
  /** `pgflow.hand_back`: others may claim the tasks at once, and the attempt does not count. */
  handBack(tasks: readonly TaskKey[]): Promise<void>
  /** `pgflow.report_progress`. Answers with the tasks whose runs another transaction has locked: theirs is not kept. */
  reportProgress(reports: readonly ProgressReport[]): Promise<readonly TaskKey[]>
  /** `pgflow.fetch_value`, as JSON text. */
  fetchValue(ref: ValueRef): Promise<string>
  stopWorker(workerId: string): Promise<void>
  /** `pgflow.complete_wait` */
  completeWait(completion: WaitCompletion): Promise<void>
  /** `pgflow.keep_result`: answers with what is kept. It may be repeated. */
  keepResult(result: ResultToKeep): Promise<Json>
  /** `pgflow.kept_results_of` */
  keptResultsOf(task: TaskKey): Promise<{ readonly [name: string]: Json }>
  /**
   * Runs a function in a transaction, on a connection that no other call needs. It rejects if the transaction was not committed, or if
   * that is unknown. Without, handlers have no transactions.
   */
  transact?(work: (sql: TransactionSql) => Promise<void>, request: TransactionRequest): Promise<void>
  /**
   * Calls back whenever there may be new tasks of a flow, or of any, until the transport is closed.
   *
   * @returns whether the connection can do that; without, the worker polls
   */
  listen?(onTasks: (flow_slug: string | undefined) => void): Promise<boolean>
  close(): Promise<void>
}
