import type { Sql } from 'postgres'
import type { RunStatus } from '../client/types.ts'
import type { ScheduleRow } from '../schedules/types.ts'

/** A schedule with its next times, and with what became of the run that it has started last. */
export interface ListedSchedule extends ScheduleRow {
  /** The next three, as if it were not paused. */
  readonly next_times: readonly string[]
  /** `null` if no run was started, or it has been deleted. */
  readonly last_run: { readonly status: RunStatus; readonly started_at: string } | null
}

export function listSchedules(sql: Sql, flow: string | null): Promise<ListedSchedule[]> {
  return select(
    sql,
    sql`${flow}::text is null or s.alias = coalesce((select f.alias from pgflow.flows f where f.flow_slug = ${flow}), ${flow})`,
  )
}

export async function getSchedule(sql: Sql, slug: string, owner: string | null): Promise<ListedSchedule> {
  const [schedule] = await select(
    sql,
    sql`s.schedule_slug = ${slug} and s.owner_id is not distinct from ${owner}::uuid`,
  )
  return schedule! // what changed it raises where there is none
}

async function select(sql: Sql, condition: ReturnType<Sql>): Promise<ListedSchedule[]> {
  const rows = await sql<{ value: ListedSchedule }[]>`
    select pgflow.schedule_record(s) || jsonb_build_object(
      'next_times', to_jsonb(pgflow.cron_times(
        pgflow.parsed_cron(s.cron), s.time_zone,
        case when s.paused_at is null then s.next_at - interval '1 microsecond' else pgflow.now() end, 'infinity', 3
      )),
      'last_run', (
        select jsonb_build_object('status', r.status, 'started_at', r.started_at) from pgflow.runs r where r.run_id = s.last_run_id
      )
    ) as value
    from pgflow.schedules s
    where ${condition}
    order by s.schedule_slug, s.owner_id nulls first
    limit 1000`
  return rows.map(({ value }) => value)
}

export async function pauseSchedule(sql: Sql, slug: string, owner: string | null): Promise<void> {
  await sql`select (pgflow.pause_schedule(schedule_slug => ${slug}, owner_id => ${owner})).paused_at`
}

export async function resumeSchedule(sql: Sql, slug: string, owner: string | null): Promise<void> {
  await sql`select (pgflow.resume_schedule(schedule_slug => ${slug}, owner_id => ${owner})).paused_at`
}

/** Starts a run of it now. */
export async function runSchedule(sql: Sql, slug: string, owner: string | null): Promise<void> {
  await sql`select run_id from pgflow.run_schedule(schedule_slug => ${slug}, owner_id => ${owner})`
}
