import type { Connection, RequestOptions } from './connection.ts'
import type { WireEvent } from './store.ts'
import type { RunRow, RunSnapshot, RunStatus } from './types.ts'

/** So many events or runs come in one answer at most. */
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

/** One page of the log after an event. `watch` asks for broadcasts too, from before the page is read. */
export async function getRunEvents(
  connection: Connection,
  runId: string,
  after: number,
  watch: boolean,
): Promise<WireEvent[]> {
  return (await connection.call('get_run_events', { run_id: runId, after, watch })) as WireEvent[]
}
