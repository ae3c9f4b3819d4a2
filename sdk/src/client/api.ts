import { errorFrom, PgflowError } from './errors.ts'
import type { WireEvent } from './store.ts'
import type { RpcLike, RpcResponse, SupabaseLike } from './supabase.ts'
import type { RunRow, RunSnapshot, RunStatus } from './types.ts'

/** So many events or runs come in one answer at most. */
export const pageSize = 1000

/** Milliseconds; an answer that takes longer is given up, and asked for again. */
const patience = 15_000

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

export async function startFlow(supabase: SupabaseLike, args: StartArguments): Promise<RunSnapshot> {
  return (await call(supabase, 'start_flow', args)) as RunSnapshot
}

export async function startFlows(supabase: SupabaseLike, args: StartManyArguments): Promise<RunSnapshot[]> {
  return (await call(supabase, 'start_flows', args)) as RunSnapshot[]
}

export async function getRun(supabase: SupabaseLike, runId: string): Promise<RunSnapshot> {
  return (await call(supabase, 'get_run', { run_id: runId })) as RunSnapshot
}

export async function listRuns(supabase: SupabaseLike, args: ListArguments): Promise<RunRow[]> {
  return (await call(supabase, 'list_runs', args)) as RunRow[]
}

export async function cancelRun(
  supabase: SupabaseLike,
  runId: string,
  reason: string | undefined,
): Promise<RunSnapshot> {
  return (await call(supabase, 'cancel_run', { run_id: runId, reason })) as RunSnapshot
}

export async function retryRun(supabase: SupabaseLike, runId: string): Promise<RunSnapshot> {
  return (await call(supabase, 'retry_run', { run_id: runId })) as RunSnapshot
}

/** One page of the log after an event. `watch` asks for broadcasts too, from before the page is read. */
export async function getRunEvents(
  supabase: SupabaseLike,
  runId: string,
  after: number,
  watch: boolean,
): Promise<WireEvent[]> {
  return (await call(supabase, 'get_run_events', { run_id: runId, after, watch }, patience)) as WireEvent[]
}

async function call(
  supabase: SupabaseLike,
  name: string,
  args: object,
  timeoutMs?: number,
): Promise<unknown> {
  const request = supabase.schema('pgflow_public').rpc(name, args)
  const { data, error, status } = await (timeoutMs === undefined ? request : within(request, timeoutMs))
  if (error === null) return data
  throw errorFrom(error, status)
}

/** The answer, or an error when it takes too long; a request that hangs before it is sent is given up too. */
async function within(request: RpcLike, timeoutMs: number): Promise<RpcResponse> {
  const controller = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      controller.abort()
      reject(new PgflowError('unreachable', `No answer within ${timeoutMs} ms`))
    }, timeoutMs)
  })
  try {
    return await Promise.race([request.abortSignal(controller.signal), late])
  } finally {
    clearTimeout(timer)
  }
}
