/** Runs and waits, as the client lists them, and what becomes of the waits: loaded when it is used. */
import type { ListFilter, WaitFilter } from './api.ts'
import type { RequestOptions } from './connection.ts'
import type { Lives } from './lives.ts'
import type { argumentsFrom, CallOptions, MoreTests } from './options.ts'
import type { RunRow, WaitRow } from './types.ts'

/** A wait, as it is listed or by its run and slug. */
export interface WaitKey {
  readonly run_id: string
  readonly step_slug: string
}

const isUuid = (value: unknown) => /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(String(value))

const tests: MoreTests = {
  status: (value) => ['started', 'completed', 'failed', 'cancelled'].includes(value as string),
  ownerId: isUuid,
  cursor: (value) => value === null || isUuid(value),
  limit: (value) => Number.isInteger(value) && (value as number) >= 1,
  afterWait: (value) => (value as WaitRow | null)?.step_slug !== undefined,
}

/** `argumentsFrom` is loaded already, and given, so that the client stays in one file. */
type ArgumentsFrom = typeof argumentsFrom

export async function listRuns(
  { connection }: Lives,
  argumentsFrom: ArgumentsFrom,
  options: RequestOptions & CallOptions,
): Promise<{ runs: RunRow[]; cursor: string | null }> {
  const {
    cursor,
    limit = 50,
    ...filter
  } = await argumentsFrom<ListFilter>(
    options,
    'flowSlug status metadata ownerId groupId cursor limit signal',
    tests,
  )
  const quantity = Math.min(limit, 1000)
  const args = { ...filter, quantity, before: cursor ?? undefined }
  const runs = await connection.call('list_runs', args, options)
  const last = runs.length < quantity ? undefined : runs.at(-1)
  return { runs, cursor: last?.run_id ?? null }
}

export async function listWaits(
  { connection }: Lives,
  argumentsFrom: ArgumentsFrom,
  options: RequestOptions & CallOptions,
): Promise<WaitRow[]> {
  const { flow_slug, limit, after_wait } = await argumentsFrom<WaitFilter>(
    options,
    'flowSlug limit afterWait signal',
    tests,
  )
  const args = { flow_slug, quantity: limit, after: after_wait, watch: undefined }
  return connection.call('list_waits', args, options)
}

/** Completes or rejects a wait, also one of a run that the user may not see. */
export async function decideWait(
  lives: Lives,
  argumentsFrom: ArgumentsFrom,
  { run_id, step_slug }: WaitKey,
  options: CallOptions,
): Promise<void> {
  const completes = 'output' in options
  const args = await argumentsFrom<object>(options, `${completes ? 'output' : 'reason'}! signal`)
  const snapshot = await lives.connection.call(
    completes ? 'complete_wait' : 'reject_wait',
    { ...args, run_id, step_slug } as never, // which the name decides
    options,
  )
  // Who may not see the run gets none.
  if (snapshot !== null) await lives.get(run_id)?.adopt(snapshot, options.signal)
}
