import type { Sql } from 'postgres'

/** From when on something is worth a finding; intervals of Postgres. */
export interface Limits {
  readonly openTransaction: string
  readonly silentWorker: string
  readonly claimedTask: string
  readonly waitingTask: string
  readonly archive: string
}

export const limits: Limits = {
  openTransaction: '10 minutes',
  silentWorker: '1 minute',
  claimedTask: '1 minute',
  waitingTask: '1 hour',
  // `maintain` keeps a week.
  archive: '8 days',
}

export interface Check {
  readonly title: string
  /** What to do; SQL is written as it can be run. */
  readonly advice: string
  /** Whether everything works without it. @default false */
  readonly isOptional?: boolean
  /** What is wrong; `undefined` if nothing is. */
  problem(sql: Sql, limits: Limits): Promise<string | undefined>
}

const upkeepJob =
  "select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain(keep_runs => '30 days') $$)"

export const checks: readonly Check[] = [
  {
    title: 'the database exposes pgflow_public',
    advice:
      'add pgflow_public, and pgflow_worker for workers with a secret key, to the exposed schemas: in the dashboard (Settings > Data API), or in [api].schemas of config.toml with supabase config push',
    // Where PostgREST is set up from outside, the database cannot know.
    problem: (sql) =>
      text(sql`
        select setting as problem
        from pg_db_role_setting, unnest(setconfig) setting
        where setting like 'pgrst.db_schemas=%' and setting !~ '[=, ]pgflow_public(,|$| )'`),
  },
  {
    title: 'clients may listen to their runs',
    advice:
      'create policy pgflow_run_channels on realtime.messages for select to authenticated using (pgflow.can_read_topic((select realtime.topic())))',
    problem: (sql) =>
      text(sql`
        select 'realtime.messages has no policy of pgflow' as problem
        where to_regclass('realtime.messages') is not null and not exists (
          select from pg_policies where schemaname = 'realtime' and policyname like 'pgflow%'
        )`),
  },
  {
    title: 'events are broadcast',
    advice: 'nothing to do: clients poll',
    isOptional: true,
    problem: (sql) =>
      text(sql`select 'there is no Realtime here' as problem where to_regclass('realtime.messages') is null`),
  },
  {
    title: 'pgmq is installed',
    advice: 'create extension pgmq',
    problem: (sql) =>
      text(
        sql`select 'it is not' as problem where not exists (select from pg_extension where extname = 'pgmq')`,
      ),
  },
  {
    title: 'each flow has its queue',
    advice: 'select * from pgflow.repair()',
    problem: (sql) =>
      text(sql`
        select 'no tables for ' || string_agg(f.flow_slug, ', ' order by f.flow_slug)
          || ': a queue was dropped, or a backup was restored without it' as problem
        from pgflow.flows f
        where to_regclass(format('pgmq.%I', 'q_' || f.queue_name)) is null
           or to_regclass(format('pgmq.%I', 'a_' || f.queue_name)) is null
        having count(*) > 0`),
  },
  {
    title: 'each open task has its message',
    advice: 'select * from pgflow.repair()',
    problem: async (sql) => {
      const counts = await perQueue(
        sql,
        (queue) => sql`
        select count(*)::int as n
        from pgflow.step_tasks t
        where t.flow_slug = ${queue.flow_slug} and t.status in ('queued', 'started')
          and not exists (select from ${sql(`pgmq.q_${queue.queue_name}`)} q where q.msg_id = t.message_id)`,
      )
      return counts === undefined ? undefined : `${counts} have none, so that no worker gets them`
    },
  },
  {
    title: 'each open run has an open task',
    advice:
      "cancel and resume them: select pgflow.cancel_run(r.run_id), pgflow.retry_run(r.run_id) from pgflow.runs r where r.status = 'started' and not exists (select from pgflow.step_tasks t where t.run_id = r.run_id and t.status in ('waiting', 'queued', 'started'))",
    problem: (sql) =>
      text(sql`
        select count(*) || ' have none and cannot go on, such as ' || min(r.run_id::text) as problem
        from pgflow.runs r
        where r.status = 'started' and not exists (
          select from pgflow.step_tasks t where t.run_id = r.run_id and t.status in ('waiting', 'queued', 'started')
        )
        having count(*) > 0`),
  },
  {
    title: 'each flow with open runs has a worker',
    advice: 'start one: pgflow worker, or the Edge Function; the view pgflow.flow_versions shows them all',
    problem: (sql) =>
      text(sql`
        select 'none for ' || string_agg(v.flow_slug || ' (' || v.running_runs || ' open)', ', ' order by v.flow_slug) as problem
        from pgflow.flow_versions v
        where v.running_runs > 0 and v.workers = 0
        having count(*) > 0`),
  },
  {
    title: 'something ticks',
    advice:
      "start a worker, or let pg_cron do it: select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain() $$)",
    problem: async (sql, { silentWorker }) => {
      const overdue = await text(sql`
        select count(*) || ' waits, sleeps, deadlines and looks at limits are due since ' || date_trunc('second', min(d.due_at))
          || ': nothing settles them' as problem
        from (
          select t.due_at from pgflow.step_tasks t where t.due_at is not null
          union all
          select a.due_at from pgflow.alarms a
        ) d
        where d.due_at < pgflow.now() - ${silentWorker}::text::interval
        having count(*) > 0`)
      if (overdue !== undefined || (await isTicked(sql, silentWorker, 'tick|maintain|wake_worker')))
        return overdue
      return text(sql`
        select 'something is due at ' || date_trunc('second', pgflow.next_due_at())
          || ', and there is neither a living worker nor a job of pg_cron' as problem
        where pgflow.next_due_at() is not null`)
    },
  },
  {
    title: 'tasks are admitted where slots are free',
    advice: 'select pgflow.recheck_limit()',
    // Each limit of theirs has a free slot; one with a rate has been free for a minute.
    problem: (sql, { waitingTask }) =>
      text(sql`
        with key as materialized (select * from pgflow.limits_now)
        select count(*) || ' wait for a slot since ' || date_trunc('second', min(t.queued_at)) || ' and before, though slots are free, such as '
          || 'one of run ' || min(t.run_id::text) as problem
        from pgflow.step_tasks t
        where t.waits_for = 'slot' and t.queued_at < pgflow.now() - ${waitingTask}::text::interval
          and not exists (
            select from key k
            left join pgflow.limit_keys r using (slot_key)
            where k.slot_key = any (t.slot_keys)
              and (k.running >= k.running_limit or r.next_at > pgflow.now() - interval '1 minute')
          )
        having count(*) > 0`),
  },
  {
    title: 'tasks of workers that died are claimed again',
    advice: 'start a worker: it claims them at once',
    problem: async (sql, { claimedTask }) => {
      const counts = await perQueue(
        sql,
        (queue) => sql`
        select count(*)::int as n
        from pgflow.step_tasks t
        join ${sql(`pgmq.q_${queue.queue_name}`)} q on q.msg_id = t.message_id
        where t.flow_slug = ${queue.flow_slug} and t.status = 'started' and q.vt < clock_timestamp() - ${claimedTask}::text::interval`,
      )
      return counts === undefined ? undefined : `the leases of ${counts} are over`
    },
  },
  {
    title: 'workers that have not stopped are alive',
    advice:
      'start them again, if they should run; their tasks come back by themselves, and pgflow.maintain deletes the rows after a day',
    isOptional: true,
    problem: (sql, { silentWorker }) =>
      text(sql`
        select count(*) || ' were last heard from ' || max(date_trunc('second', w.last_heartbeat_at)) || ' or before, such as "'
          || min(w.name) || '"' as problem
        from pgflow.workers w
        where w.stopped_at is null and w.last_heartbeat_at < pgflow.now() - ${silentWorker}::text::interval
        having count(*) > 0`),
  },
  {
    title: 'no transaction is open for long',
    advice:
      'end it: select pg_terminate_backend(<pid>). While it is open, no dead rows of the queues are removed, and they become slow',
    isOptional: true,
    problem: (sql, { openTransaction }) =>
      text(sql`
        select string_agg(
          'pid ' || a.pid || ' (' || coalesce(nullif(a.application_name, ''), a.usename) || ', ' || a.state || ') since '
            || date_trunc('second', a.xact_start), ', ' order by a.xact_start
        ) as problem
        from pg_stat_activity a
        where a.backend_type = 'client backend' and a.pid <> pg_backend_pid() and a.datname = current_database()
          and a.xact_start < clock_timestamp() - ${openTransaction}::text::interval
        having count(*) > 0`),
  },
  {
    title: 'no unused replication slot holds old rows back',
    advice:
      "if nothing reads it any more: select pg_drop_replication_slot('<slot>'). It keeps WAL and dead rows, until the disk is full",
    isOptional: true,
    problem: (sql) =>
      text(sql`
        select string_agg(s.slot_name || ' (' || pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)) || ')', ', ') as problem
        from pg_replication_slots s
        where not s.active and s.restart_lsn is not null
        having count(*) > 0`),
  },
  {
    title: 'no prepared transaction holds old rows back',
    advice: "rollback prepared '<name>', or commit it",
    isOptional: true,
    problem: (sql, { openTransaction }) =>
      text(sql`
        select string_agg(p.gid || ' since ' || date_trunc('second', p.prepared), ', ') as problem
        from pg_prepared_xacts p
        where p.database = current_database() and p.prepared < clock_timestamp() - ${openTransaction}::text::interval
        having count(*) > 0`),
  },
  {
    title: 'schedules are started on time',
    advice: `start a worker, or let pg_cron do it: ${upkeepJob}`,
    problem: async (sql, { silentWorker }) => {
      const isServed = await isTicked(sql, silentWorker, 'maintain|tick|start_due_schedules')
      return text(sql`
        select case
          when min(s.due_at) < pgflow.now() - interval '2 minutes'
          then count(*) || ' are due, such as "' || min(s.schedule_slug) || '", the first since ' || date_trunc('second', min(s.due_at))
          when not ${isServed}
          then 'nothing looks for what is due: no job of pg_cron calls pgflow.maintain, and no worker runs'
        end as problem
        from pgflow.schedules s
        where s.paused_at is null and (not ${isServed} or s.due_at < pgflow.now() - interval '2 minutes')
        having count(*) > 0`)
    },
  },
  {
    title: 'upkeep is scheduled',
    advice: `${upkeepJob}, after create extension pg_cron`,
    isOptional: true,
    problem: async (sql) => {
      if (!(await exists(sql, 'cron.job'))) return 'pg_cron is not installed: finished runs and archives grow'
      return text(sql`
        select 'finished runs and archives grow' as problem
        where not exists (select from cron.job j where j.command like '%pgflow.maintain%' and j.active)`)
    },
  },
  {
    title: 'upkeep runs',
    advice:
      "the table cron.job_run_details has its messages. Correct the job, or schedule it again: select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain(keep_runs => '30 days') $$)",
    problem: async (sql) => {
      if (!(await exists(sql, 'cron.job_run_details'))) return undefined
      return text(sql`
        select 'the job ' || j.jobid || ' failed the last time: ' || coalesce(last.return_message, '') as problem
        from cron.job j
        cross join lateral (
          select d.status, d.return_message from cron.job_run_details d
          where d.jobid = j.jobid and d.status in ('succeeded', 'failed')
          order by d.start_time desc limit 1
        ) last
        where j.command like '%pgflow.maintain%' and j.active and last.status = 'failed'`)
    },
  },
  {
    title: 'archives are pruned',
    advice: 'select pgflow.maintain(), until it answers left: false; schedule it, as above',
    isOptional: true,
    problem: async (sql, { archive }) => {
      const counts = await perQueue(
        sql,
        (queue) => sql`
        select case when exists (
            select from ${sql(`pgmq.a_${queue.queue_name}`)} a where a.archived_at < pgflow.now() - ${archive}::text::interval
          ) then pg_total_relation_size(format('pgmq.%I', ${`a_${queue.queue_name}`}::text))::float8 else 0 end as n`,
      )
      return counts === undefined
        ? undefined
        : `archives with old messages take ${(counts / 2 ** 20).toFixed(1)} MB`
    },
  },
  {
    title: 'inputs are validated against their schemas',
    advice: 'create extension pg_jsonschema with schema extensions',
    isOptional: true,
    problem: (sql) =>
      text(sql`
        select 'the database cannot: pg_jsonschema is not installed. Workers and the client still do' as problem
        where exists (select from pgflow.flows where input_schema is not null)
          and not exists (select from pg_extension where extname = 'pg_jsonschema')`),
  },
  {
    title: 'Edge Functions can be woken',
    advice: 'create extension pg_net; docs/edge-functions.md has the rest',
    isOptional: true,
    problem: async (sql) => {
      // Only asked of those who want it.
      if (!(await exists(sql, 'cron.job'))) return undefined
      return text(sql`
        select 'pgflow.wake_worker is scheduled, but ' || array_to_string(pgflow.missing_to_wake(), ', ') || ' is missing' as problem
        where exists (select from cron.job j where j.command like '%pgflow.wake_worker%' and j.active)
          and cardinality(pgflow.missing_to_wake()) > 0`)
    },
  },
]

async function text(rows: PromiseLike<readonly unknown[]>): Promise<string | undefined> {
  const [row] = await rows
  return (row as { problem: string | null } | undefined)?.problem ?? undefined
}

/** Whether somebody looks for what is due: a worker that lives, or a job of pg_cron that calls one of these functions. */
async function isTicked(sql: Sql, silentWorker: string, functions: string): Promise<boolean> {
  const jobs = (await exists(sql, 'cron.job'))
    ? sql`select from cron.job j where j.active and j.command ~ ${`pgflow[.](${functions})`}`
    : sql`select where false`
  const [row] = await sql`
    select exists (${jobs}) or exists (
      select from pgflow.workers w
      where w.stopped_at is null and w.last_heartbeat_at > pgflow.now() - ${silentWorker}::text::interval
    ) as is_ticked`
  return row?.is_ticked === true
}

async function exists(sql: Sql, relation: string): Promise<boolean> {
  const [row] = await sql`select to_regclass(${relation}) is not null as is_there`
  return row?.is_there === true
}

/** The sum over all flows whose queue is there; `undefined` if it is 0. */
async function perQueue(
  sql: Sql,
  query: (queue: { flow_slug: string; queue_name: string }) => PromiseLike<readonly unknown[]>,
): Promise<number | undefined> {
  const queues = await sql<{ flow_slug: string; queue_name: string }[]>`
    select f.flow_slug, f.queue_name from pgflow.flows f
    where to_regclass(format('pgmq.%I', 'q_' || f.queue_name)) is not null
      and to_regclass(format('pgmq.%I', 'a_' || f.queue_name)) is not null`
  let sum = 0
  for (const queue of queues) {
    const [row] = await query(queue)
    sum += (row as { n: number }).n
  }
  return sum === 0 ? undefined : sum
}
