/** Runs and waits, as the client lists them, and what becomes of the waits: loaded when it is used. */
import type { ChildFilter, ListFilter, WaitFilter } from './api.ts'
import type { RequestOptions } from './connection.ts'
import type { Live } from './live.ts'
import type { Lives } from './lives.ts'
import type { argumentsFrom, CallOptions, MoreTests } from './options.ts'
import type { ChildRow, RunRow, WaitRow } from './types.ts'

/** A wait, as it is listed or by its run and slug. */
export interface WaitKey {
  readonly run_id: string
  readonly step_slug: string
}

export interface ListChildrenOptions extends RequestOptions {
  /** The last child of the page before. @default the first page */
  readonly afterChild?: ChildRow | undefined
  /** The number of children on a page, at most 1,000. @default 100 */
  readonly limit?: number
}

const isUuid = (value: unknown) => /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(String(value))

const tests: MoreTests = {
  status: (value) => ['started', 'completed', 'failed', 'cancelled'].includes(value as string),
  ownerId: isUuid,
  cursor: (value) => value === null || isUuid(value),
  limit: (value) => Number.isInteger(value) && (value as number) >= 1,
  children: (value) => typeof value === 'boolean',
  afterChild: (value) => Number.isInteger((value as ChildRow | null)?.parent_task_index),
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
    'flowSlug status metadata ownerId groupId children cursor limit signal',
    tests,
  )
  const quantity = Math.min(limit, 1000)
  const args = { ...filter, quantity, before: cursor ?? undefined }
  const runs = await connection.call('list_runs', args, options)
  const last = runs.length < quantity ? undefined : runs.at(-1)
  return { runs, cursor: last?.run_id ?? null }
}

/** The runs that a step has started, in the order of its items. */
export async function listChildren(
  { connection, runId: run_id }: Live,
  argumentsFrom: ArgumentsFrom,
  step_slug: string,
  options: RequestOptions & CallOptions,
): Promise<ChildRow[]> {
  const { limit, after_child } = await argumentsFrom<ChildFilter>(options, 'limit afterChild signal', tests)
  const args = { run_id, step_slug, quantity: limit, after: after_child?.parent_task_index }
  return connection.call('list_children', args, options)
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
