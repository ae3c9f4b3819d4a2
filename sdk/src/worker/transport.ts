import type { AnyFlow } from '../flow/definition.ts'

/** One attempt at a task; the attempt is what a settlement is fenced by. */
export interface TaskKey {
  readonly run_id: string
  readonly step_slug: string
  readonly task_index: number
  readonly attempt: number
}

export interface ClaimedTask extends TaskKey {
  readonly flow_slug: string
  /** `{ run, <dep>: … }` */
  readonly input: unknown
  /** Seconds. */
  readonly timeout: number
}

export interface CompletedResult extends TaskKey {
  /** The output as JSON text: it goes to the database as it is. */
  readonly outputJson: string
}

export interface FailedResult extends TaskKey {
  readonly error: string
  /** Seconds. */
  readonly retry_delay?: number
  readonly permanent?: boolean
}

export type Result = CompletedResult | FailedResult

/** `applied` is false for a stale result: nothing changed. */
export interface Settlement extends TaskKey {
  readonly applied: boolean
}

/** `active` is false when the task is no longer this attempt's. */
export interface Lease extends TaskKey {
  readonly active: boolean
}

export interface WorkerRow {
  readonly worker_id: string
  readonly name: string
  readonly flow_slugs: readonly string[]
}

export interface ClaimRequest {
  readonly flow_slugs: readonly string[]
  readonly quantity: number
  readonly worker_id: string
  /** Seconds. */
  readonly lease: number
}

/**
 * How a worker talks to its database. Each call is one transaction, and none needs a session.
 * What a call throws is judged by its `code` (see `isTransient`).
 */
export interface Transport {
  defineFlow(flow: AnyFlow): Promise<void>
  registerWorker(worker: WorkerRow): Promise<void>
  claim(request: ClaimRequest): Promise<ClaimedTask[]>
  settle(results: readonly Result[]): Promise<Settlement[]>
  /** @param lease seconds */
  extend(tasks: readonly TaskKey[], lease: number): Promise<Lease[]>
  heartbeat(workerId: string): Promise<void>
  stopWorker(workerId: string): Promise<void>
  close(): Promise<void>
}
