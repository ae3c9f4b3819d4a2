import type { Sql } from 'postgres'
import type { RunEvent, RunRow, RunSnapshot, RunStatus } from '../client/types.ts'
import type { ErrorDescription } from '../flow/error-description.ts'
import type { LimitKey } from './limits-queries.ts'

/** Which runs; what is `undefined` says nothing. */
export interface RunFilter {
  /** A slug, or an alias for all versions. */
  readonly flow: string | undefined
  readonly status: readonly RunStatus[] | undefined
  /** Runs that started then or later. */
  readonly since: Date | undefined
  /** Part of the run's error, in any case. */
  readonly error: string | undefined
  /** Whether runs that steps of other runs have started are among them. */
  readonly children: boolean
  readonly limit: number | undefined
}

export interface RunCount {
  readonly flow_slug: string
  readonly status: RunStatus
  readonly count: number
}

/** The tasks of a step, with up to three that tell most: failed ones, then those that were tried most often. */
export interface StepTasks {
  readonly step_slug: string
  readonly is_map: boolean
  readonly is_loop: boolean
  /** Of a wait: who may complete it. `null` for other steps. */
  readonly wait: Wait | null
  /** `null` for waits, sleeps and sub-flows, which no worker attempts. */
  readonly max_attempts: number | null
  /** How many tasks have each status. */
  readonly statuses: Readonly<Record<string, number>>
  /** The limits for whose slots tasks wait, three at most; empty where none does. */
  readonly slots: readonly LimitKey[]
  readonly examples: readonly TaskRow[]
  /** Of a sub-flow: the slug of its flow. */
  readonly child_flow: string | null
  /** Ten of the runs that it has started, failed and open ones first. */
  readonly children: readonly ChildOfStep[]
}

export interface ChildOfStep {
  readonly run_id: string
  readonly task_index: number
  readonly status: RunStatus
  readonly error: string | null
}

export interface Wait {
  readonly completed_by: 'service_role' | 'owner' | 'authenticated' | 'assignees'
  readonly not_by_owner: boolean
  readonly webhook: string | null
  /** The users whom a wait for assignees asks, from when it begins. */
  readonly assignees: readonly string[]
  /** The user who has completed or rejected it last. */
  readonly decided_by: string | null
}

export interface TaskRow {
  readonly task_index: number
  readonly status: string
  /** Those that count. */
  readonly attempts: number
  readonly started_at: string | null
  readonly completed_at: string | null
  readonly failed_at: string | null
  readonly error_message: string | null
  /** What the handler threw last. */
  readonly last_error: ErrorDescription | null
}

/** The newest first. */
export function listRuns(sql: Sql, filter: RunFilter): Promise<RunRow[]> {
  return values(sql`
    select pgflow.run_record(r) as value
    from pgflow.runs r
    where ${matches(sql, filter)}
    order by r.started_at desc, r.run_id desc
    limit ${filter.limit ?? null}`)
}

export async function runIds(sql: Sql, filter: RunFilter): Promise<string[]> {
  return values(sql`
    select r.run_id as value
    from pgflow.runs r
    where ${matches(sql, filter)}
    order by r.started_at desc, r.run_id desc
    limit ${filter.limit ?? null}`)
}

export async function countRuns(sql: Sql, run_ids: readonly string[]): Promise<RunCount[]> {
  return values(sql`
    select jsonb_build_object('flow_slug', r.flow_slug, 'status', r.status, 'count', count(*)) as value
    from pgflow.runs r
    where r.run_id = any (${[...run_ids]}::uuid[])
    group by r.flow_slug, r.status
    order by count(*) desc, r.flow_slug, r.status`)
}

function matches(sql: Sql, filter: RunFilter) {
  const flow = filter.flow ?? null
  const since = filter.since ?? null
  const error = filter.error ?? null
  const status = filter.status === undefined ? null : [...filter.status]
  return sql`
    (${flow}::text is null
      or r.flow_slug = ${flow}
      or r.flow_slug = any (array(select f.flow_slug from pgflow.flows f where f.alias = ${flow})))
    and (${status}::text[] is null or r.status = any (${status}))
    and (${since}::timestamptz is null or r.started_at >= ${since})
    and (${filter.children} or r.depth = 0)
    and (${error}::text is null or position(lower(${error}) in lower(r.error)) > 0)`
}

export async function getRun(sql: Sql, run_id: string): Promise<RunSnapshot> {
  const [run] = await values<RunSnapshot>(sql`select pgflow_public.get_run(run_id => ${run_id}) as value`)
  return run! // it raises where there is none
}

export function tasksOf(sql: Sql, run_id: string): Promise<StepTasks[]> {
  return values(sql`
    with task as (
      select t.*, t.attempts_count - t.attempts_before as attempts,
             row_number() over (
               partition by t.step_slug
               order by t.status = 'failed' desc, t.last_error is not null desc, t.attempts_count desc, t.task_index
             ) as place
      from pgflow.step_tasks t
      where t.run_id = ${run_id}
    ),
    status as (
      select t.step_slug, jsonb_object_agg(t.status, t.count) as statuses
      from (select t.step_slug, t.status, count(*) from task t group by t.step_slug, t.status) t
      group by t.step_slug
    ),
    example as (
      select t.step_slug, jsonb_agg(jsonb_build_object(
               'task_index', t.task_index, 'status', t.status, 'attempts', t.attempts, 'started_at', t.started_at,
               'completed_at', t.completed_at, 'failed_at', t.failed_at, 'error_message', t.error_message,
               'last_error', t.last_error
             ) order by t.place) as examples
      from task t
      where t.place <= 3
      group by t.step_slug
    )
    select jsonb_build_object(
      'step_slug', s.step_slug, 'is_map', s.step_type = 'map', 'is_loop', s.step_type = 'loop',
      'max_attempts', case when s.step_type not in ('wait', 'sleep') and s.child_flow is null then o.max_attempts end,
      'child_flow', s.child_flow,
      'children', (
        select coalesce(jsonb_agg(to_jsonb(c) order by c.task_index), '[]')
        from (
          select child.run_id, t.task_index, child.status, child.error
          from task t
          join pgflow.runs child on child.run_id = t.child_run_id
          where t.step_slug = st.step_slug
          order by child.status in ('failed', 'cancelled') desc, child.status = 'started' desc, t.task_index
          limit 10
        ) c
      ),
      'wait', case s.step_type when 'wait' then jsonb_build_object(
        'completed_by', s.completed_by, 'not_by_owner', s.not_by_owner, 'webhook', s.webhook,
        'assignees', (
          select coalesce(jsonb_agg(w.user_id order by w.user_id), '[]') from pgflow.wait_assignees w
          where w.run_id = r.run_id and w.step_slug = s.step_slug and s.completed_by = 'assignees'
        ),
        'decided_by', (
          select v.event -> 'actor' ->> 'id' from pgflow.run_event_records v
          where v.run_id = r.run_id and v.event ->> 'step_slug' = s.step_slug
            and v.event ->> 'type' in ('step:completed', 'step:failed', 'step:skipped')
          order by v.seq desc limit 1
        )
      ) end,
      'statuses', st.statuses, 'examples', e.examples,
      'slots', (
        select coalesce(jsonb_agg(to_jsonb(k) - array['slot_key', 'is_full'] order by k.is_full desc, k.slot_key), '[]')
        from (
          select n.*, n.running >= n.running_limit is true as is_full from pgflow.limits_now n
          where n.slot_key in (select unnest(t.slot_keys) from task t where t.step_slug = st.step_slug and t.waits_for = 'slot')
          order by is_full desc, n.slot_key
          limit 3
        ) k
      )
    ) as value
    from status st
    join example e using (step_slug)
    join pgflow.runs r on r.run_id = ${run_id}
    join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = st.step_slug
    join pgflow.step_options o on o.flow_slug = s.flow_slug and o.step_slug = s.step_slug
    order by s.step_index`)
}

/** Failed attempts that were followed by another, the latest ones, in order. */
export async function retriesOf(sql: Sql, run_id: string, most: number): Promise<RunEvent[]> {
  const events = await values<RunEvent>(sql`
    select e.event as value
    from pgflow.run_event_records e
    where e.run_id = ${run_id} and e.event ->> 'type' = 'step:retrying'
    order by e.seq desc
    limit ${most}`)
  return events.reverse()
}

/** The status of a run, and the events after one of them: all that led to the status, if it is less than 1,000. */
export async function eventsAfter(
  sql: Sql,
  run_id: string,
  seq: number,
): Promise<{
  readonly status: RunStatus
  readonly error: string | null
  readonly events: readonly RunEvent[]
}> {
  // The status is read before the events: of a run that has ended, its last event is among them.
  const [row] = await values<Awaited<ReturnType<typeof eventsAfter>>>(sql`
    with run as materialized (select r.status, r.error from pgflow.runs r where r.run_id = ${run_id})
    select jsonb_build_object(
      'status', (select status from run), 'error', (select error from run),
      'events', pgflow_public.get_run_events(run_id => ${run_id}, after => ${seq})
    ) as value`)
  return row!
}

export async function cancelRun(
  sql: Sql,
  run_id: string,
  reason: string | null,
  undo: boolean,
): Promise<void> {
  await sql`select (pgflow.cancel_run(run_id => ${run_id}, reason => ${reason}, undo => ${undo})).status`
}

export async function retryRun(sql: Sql, run_id: string): Promise<void> {
  await sql`select (pgflow.retry_run(run_id => ${run_id})).status`
}

export async function countRunsOf(sql: Sql, flow_slug: string): Promise<number> {
  const [count] = await values<number>(sql`
    select count(*)::int as value from pgflow.runs r where r.flow_slug = ${flow_slug}`)
  return count!
}

/** Deletes a flow with all its runs. Tasks that a worker has at the moment come to nothing. */
export async function deleteFlow(sql: Sql, flow_slug: string): Promise<void> {
  await sql.begin(async (transaction) => {
    await transaction`
      select pgflow.close_tasks(array(select r.run_id from pgflow.runs r where r.flow_slug = ${flow_slug} order by r.run_id))`
    await transaction`delete from pgflow.runs r where r.flow_slug = ${flow_slug}`
    await transaction`select pgflow.delete_flow(flow_slug => ${flow_slug})`
  })
}

/** The type is what the query says. */
async function values<Value>(rows: PromiseLike<readonly unknown[]>): Promise<Value[]> {
  return (await rows).map((row) => (row as { value: Value }).value)
}
