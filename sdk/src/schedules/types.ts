/** A schedule, as the database has it. Times are ISO 8601. */
export interface ScheduleRow<Input = unknown> {
  readonly schedule_slug: string
  /** The slug of the flow, without a version: its newest version is started. */
  readonly alias: string
  /** Who decides about it: the definition of the flow, SQL, or the user. */
  readonly made_by: 'flow' | 'sql' | 'client'
  readonly cron: string
  readonly time_zone: string
  readonly input: Input
  readonly overlap: 'skip' | 'allow' | 'cancel'
  readonly catch_up: 'last' | 'none' | 'all'
  /** In seconds. */
  readonly catch_up_window: number
  /** In seconds. */
  readonly spread: number
  readonly owner_id: string | null
  readonly group_id: string | null
  readonly created_at: string
  /** `null` unless it is paused. */
  readonly paused_at: string | null
  /** The next time at which it starts a run, unless it is paused. */
  readonly next_at: string
  /** The last time that has passed. */
  readonly last_at: string | null
  /** The run that was started last; it may have been deleted. */
  readonly last_run_id: string | null
  /** Why no run was started at `last_at`; `null` if one was. */
  readonly last_problem: string | null
}
