import type { ScheduleRow } from '../schedules/types.ts'
import type { Connection, RequestOptions } from './connection.ts'
import type { ResponseError } from './errors.ts'
import { checkOptions } from './options.ts'
import type { WireEvent } from './store.ts'
import type { ChildRow, Priority, RunRow, RunSnapshot, RunStatus, WaitRow } from './types.ts'

/** So many runs are asked for at once, and so many runs or waits come in one answer, at most. */
export const pageSize = 1000

interface CommonStartArguments {
  readonly flow_slug: string
  readonly metadata?: unknown
  readonly delay?: number
  readonly group_id?: string
  readonly priority?: Priority
}

export interface StartArguments extends CommonStartArguments {
  readonly input: unknown
  readonly idempotency_key?: string
}

export interface StartManyArguments extends CommonStartArguments {
  readonly inputs: readonly unknown[]
  readonly idempotency_keys?: readonly (string | null)[]
}

export interface WaitFilter {
  readonly flow_slug?: string
  readonly after_wait?: WaitRow
  readonly limit?: number
}

export interface ChildFilter {
  readonly after_child?: ChildRow
  readonly limit?: number
}

/** What a list is asked for: arguments and, in the words of the client, the page. */
export interface ListFilter {
  readonly flow_slug?: string
  readonly status?: RunStatus
  readonly metadata?: unknown
  readonly owner_id?: string
  readonly group_id?: string
  readonly children?: boolean
  readonly cursor?: string | null
  readonly limit?: number
}

interface ListArguments extends Omit<ListFilter, 'cursor' | 'limit'> {
  readonly before: string | undefined
  readonly quantity: number
}

/** @throws InvalidInputError if the id is no UUID; nothing is sent then */
export async function getRun(
  connection: Connection,
  runId: string,
  options?: RequestOptions,
): Promise<RunSnapshot> {
  await checkOptions({ runId }, 'runId!')
  return connection.call('get_run', { run_id: runId }, options)
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

interface SyncArguments {
  /** The last event that is known of each run; `Infinity`, of which JSON makes `null`, to learn only where it stands. */
  readonly cursors: Readonly<Record<string, number>>
  /** Has their events broadcast from before they are read. */
  readonly watch: string | undefined
}

interface WaitArguments {
  readonly run_id: string
  readonly step_slug: string
}

interface ListWaitsArguments {
  readonly flow_slug: string | undefined
  readonly quantity: number | undefined
  /** The last wait of the page before. */
  readonly after: WaitRow | undefined
  /** For five minutes, the caller's topic is told when a wait begins or ends that they may complete. */
  readonly watch: string | undefined
}

interface ChildrenArguments {
  readonly run_id: string
  readonly step_slug: string
  /** The `parent_task_index` of the last one of the page before. */
  readonly after: number | undefined
  readonly quantity: number | undefined
}

/** Those that change a run, and answer with it. */
export type RunChange = 'cancel_run' | 'retry_run' | 'complete_wait' | 'reject_wait'

interface ScheduleArguments {
  readonly flow_slug: string
  readonly input: unknown
  readonly cron: string
  readonly time_zone: string | undefined
  readonly schedule_slug: string | undefined
  readonly overlap: string | undefined
  readonly catch_up: string | undefined
  readonly catch_up_window: number | undefined
  readonly owner_id: string | undefined
}

interface NamedSchedule {
  readonly schedule_slug: string
  readonly owner_id: string | undefined
}

/** The exposed functions: what each takes, and what it answers. The migrations define them. */
export interface Api {
  start_flow(args: StartArguments): RunSnapshot
  start_flows(args: StartManyArguments): RunSnapshot[]
  get_run(args: { readonly run_id: string }): RunSnapshot
  list_runs(args: ListArguments): RunRow[]
  list_children(args: ChildrenArguments): ChildRow[]
  cancel_run(args: {
    readonly run_id: string
    readonly reason: string | undefined
    readonly undo: boolean | undefined
  }): RunSnapshot
  retry_run(args: { readonly run_id: string }): RunSnapshot
  complete_wait(args: WaitArguments & { readonly output: unknown }): RunSnapshot
  reject_wait(args: WaitArguments & { readonly reason: string }): RunSnapshot
  list_waits(args: ListWaitsArguments): WaitRow[]
  /** Reads what is new of runs after their cursors. */
  sync(args: SyncArguments): SyncAnswer
  schedule_flow(args: ScheduleArguments): ScheduleRow
  list_schedules(args: {
    readonly flow_slug: string | undefined
    readonly owner_id: string | undefined
  }): ScheduleRow[]
  pause_schedule(args: NamedSchedule): ScheduleRow
  resume_schedule(args: NamedSchedule): ScheduleRow
  delete_schedule(args: NamedSchedule): ScheduleRow
}
