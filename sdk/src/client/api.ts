import { errorFrom, PgflowError } from './errors.ts'
import type { WireEvent } from './store.ts'
import type { RpcLike, RpcResponse, SupabaseLike } from './supabase.ts'
import type { RunSnapshot } from './types.ts'

/** So many events come in one answer at most. */
export const pageSize = 1000

/** Milliseconds; an answer that takes longer is given up, and asked for again. */
const patience = 15_000

export interface StartArguments {
  readonly flow_slug: string
  readonly input: unknown
  readonly idempotency_key?: string
  readonly metadata?: unknown
}

export async function startFlow(supabase: SupabaseLike, args: StartArguments): Promise<RunSnapshot> {
  return (await call(supabase, 'start_flow', args)) as RunSnapshot
}

export async function getRun(supabase: SupabaseLike, runId: string): Promise<RunSnapshot> {
  return (await call(supabase, 'get_run', { run_id: runId })) as RunSnapshot
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
