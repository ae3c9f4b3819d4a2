import type { Connection, RequestOptions } from './connection.ts'
import type { ResponseError } from './errors.ts'
import type { WireEvent } from './store.ts'
import type { RunRow, RunSnapshot, RunStatus } from './types.ts'

/** So many runs are asked for at once, and come in one answer, at most. */
export const pageSize = 1000

interface CommonStartArguments {
  readonly flow_slug: string
  readonly metadata: unknown
  readonly delay: number | undefined
  readonly group_id: string | undefined
}

interface StartArguments extends CommonStartArguments {
  readonly input: unknown
  readonly idempotency_key: string | undefined
}

interface StartManyArguments extends CommonStartArguments {
  readonly inputs: readonly unknown[]
  readonly idempotency_keys: readonly (string | null)[] | undefined
}

interface ListArguments {
  readonly flow_slug: string | undefined
  readonly status: RunStatus | undefined
  readonly metadata: unknown
  readonly owner_id: string | undefined
  readonly group_id: string | undefined
  readonly before: string | undefined
  readonly quantity: number
}

export async function startFlow(
  connection: Connection,
  args: StartArguments,
  options: RequestOptions = {},
): Promise<RunSnapshot> {
  return (await connection.call('start_flow', args, options)) as RunSnapshot
}

export async function startFlows(
  connection: Connection,
  args: StartManyArguments,
  options: RequestOptions = {},
): Promise<RunSnapshot[]> {
  return (await connection.call('start_flows', args, options)) as RunSnapshot[]
}

export async function getRun(
  connection: Connection,
  runId: string,
  options: RequestOptions = {},
): Promise<RunSnapshot> {
  return (await connection.call('get_run', { run_id: runId }, options)) as RunSnapshot
}

export async function listRuns(
  connection: Connection,
  args: ListArguments,
  options: RequestOptions = {},
): Promise<RunRow[]> {
  return (await connection.call('list_runs', args, options)) as RunRow[]
}

export async function cancelRun(
  connection: Connection,
  runId: string,
  reason: string | undefined,
  options: RequestOptions = {},
): Promise<RunSnapshot> {
  return (await connection.call('cancel_run', { run_id: runId, reason }, options)) as RunSnapshot
}

export async function retryRun(
  connection: Connection,
  runId: string,
  options: RequestOptions = {},
): Promise<RunSnapshot> {
  return (await connection.call('retry_run', { run_id: runId }, options)) as RunSnapshot
}

/** What is new of a run. */
export interface SyncedRun {
  readonly run_id: string
  readonly status: RunStatus
  /** The number of its last event. */
  readonly seq: number
  /** Whether its events are broadcast to the topic. */
  readonly watched: boolean
  /** The next events after the cursor. */
  readonly events: readonly WireEvent[]
  /** Whether there is more to ask for. */
  readonly more: boolean
}

/** Why a run is not shown. */
export interface MissingRun extends ResponseError {
  readonly run_id: string
  readonly code: string
}

export interface SyncAnswer {
  /** As whom the server has understood the caller. */
  readonly user_id: string | null
  /** Where the events of watched runs are broadcast; `null` where there is no channel for the caller. */
  readonly topic: string | null
  /** Runs with news, and those whose cursor is `null`. */
  readonly runs: readonly SyncedRun[]
  /** Runs that do not exist, or are not the caller's. */
  readonly missing: readonly MissingRun[]
}

/** Reads what is new of runs after their cursors. `watch` has their events broadcast from before they are read. */
export async function sync(
  connection: Connection,
  cursors: Readonly<Record<string, number | null>>,
  watch: string | undefined,
): Promise<SyncAnswer> {
  return (await connection.call('sync', { cursors, watch })) as SyncAnswer
}
