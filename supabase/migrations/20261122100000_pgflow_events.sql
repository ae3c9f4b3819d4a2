-- Chapter 25: every transition becomes an event.
--
-- Statement-level triggers on runs and step_states write the log, so that no transition can be forgotten, by
-- hand-written SQL either. They hold the runs' locks: `seq` goes on from the run's last event, without gaps.
--
-- Old and new rows meet in a full join, since Postgres has no nested loop for it: a plan that is kept from a statement with one
-- row would compare each old row with each new one. Rows without a partner have null in a condition, and so are left out; the
-- `coalesce` around it keeps Postgres from seeing that, and from making an inner join of it.
--
-- What an event sets is in `data`, which is null where that is nothing, and for the most frequent of all: `step:started` with one
-- initial task.
--
-- Events say who: the signed-in user, and the role that the caller acts as. What workers do has no actor.

-- The first events of steps, as their rows say: of those that have begun.
create view pgflow.first_step_events
with (security_invoker = true)
as
select ss.run_id, ss.step_slug, ss.status = 'started' as is_start,
       (select s.step_index from pgflow.steps s where s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug) as step_index,
       'step:' || ss.status as type,
       coalesce(
         ss.completed_at, ss.failed_at, ss.skipped_at, case ss.status when 'started' then ss.started_at end, pgflow.now()
       ) as at,
       case ss.status
         when 'started' then
           case when ss.initial_tasks is distinct from 1 then jsonb_build_object('initial_tasks', ss.initial_tasks) end
         when 'failed' then jsonb_build_object('error', ss.error)
         when 'skipped' then jsonb_build_object('skip_reason', ss.skip_reason, 'error', ss.error)
       end as data
from pgflow.step_states ss
where ss.status <> 'created';
comment on view pgflow.first_step_events is 'The first event of each step that has begun, as its row says.';

-- A run that begins: `run:started`, then the steps that begin in the same statement, as they do where a run is started. (A
-- run that is written by hand may have ended before.)
create function pgflow.tg_runs__after_insert()
returns trigger
language plpgsql
security definer -- whoever changes a run writes its log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  actor_id uuid := pgflow.current_user_id();
  actor_role text := pgflow.caller_role();
begin
  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data, actor_id, actor_role)
  select n.run_id, 1,
         'run:' || n.status, null,
         coalesce(n.completed_at, n.failed_at, n.cancelled_at, n.started_at),
         case
           when n.status in ('failed', 'cancelled') then jsonb_build_object('error', n.error)
           when n.waits_for is not null then jsonb_build_object('waits_for', n.waits_for)
         end,
         case when n.status in ('started', 'cancelled') then actor_id end,
         case when n.status in ('started', 'cancelled') then actor_role end
  from new_rows n
  union all
  select n.run_id, 1 + row_number() over (partition by n.run_id order by event.is_start, event.step_index),
         event.type, event.step_slug, event.at, event.data, null, null
  from new_rows n
  cross join lateral (select e.* from pgflow.first_step_events e where e.run_id = n.run_id offset 0) event;
  return null;
end
$$;

create trigger _900_events_of_insert after insert on pgflow.runs
  referencing new table as new_rows
  for each statement execute function pgflow.tg_runs__after_insert();

-- A run that ends, is retried, or waits for something else or no more. One that ends may let another one begin. One that fails, or was
-- cancelled so, is to be undone.
create function pgflow.tg_runs__after_update()
returns trigger
language plpgsql
security definer -- whoever changes a run writes its log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = on
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  actor_id uuid := pgflow.current_user_id();
  actor_role text := pgflow.caller_role();
begin
  insert into pgflow.run_events (run_id, seq, type, at, data, actor_id, actor_role)
  select n.run_id,
         1 + (select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = n.run_id),
         'run:' || case
           when n.status <> 'started' then n.status
           when o.status <> 'started' then 'retried'
           when n.waits_for is null then 'begun'
           else 'waiting'
         end,
         coalesce(n.completed_at, n.failed_at, n.cancelled_at, pgflow.now()),
         case
           when n.status = o.status then jsonb_build_object('waits_for', n.waits_for)
           when n.status = 'completed' then null
           when n.status = 'started' then jsonb_build_object('step_slugs', (
             select coalesce(jsonb_agg(ss.step_slug order by s.step_index), '[]')
             from pgflow.step_states ss
             join pgflow.steps s using (flow_slug, step_slug)
             where ss.run_id = n.run_id and ss.status = 'created'
           ))
           when o.waits_for is not null then jsonb_build_object('error', n.error, 'waits_for', null)
           else jsonb_build_object('error', n.error)
         end,
         case when n.status in ('started', 'cancelled') and n.status <> o.status then actor_id end,
         case when n.status in ('started', 'cancelled') and n.status <> o.status then actor_role end
  from new_rows n
  full join old_rows o using (run_id)
  where coalesce(n.status <> o.status or n.status = o.status and n.waits_for is distinct from o.waits_for, false);
  if exists (select from pgflow.run_singletons) then
    perform pgflow.free_singletons(array(select n.run_id from new_rows n where n.status <> 'started'));
  end if;
  if exists (select from new_rows n where n.status = 'failed' or n.undo = 'asked') then
    perform pgflow.ask_for_undos(array(
      select n.run_id
      from new_rows n
      full join old_rows o using (run_id)
      where coalesce(
        n.status = 'failed' and o.status = 'started' or n.undo = 'asked' and o.undo is distinct from n.undo, false
      )
    ));
  end if;
  if exists (select from new_rows n where n.depth > 0) then
    insert into pgflow.alarms (due_at, kind, run_id)
    select pgflow.now(), case n.status when 'started' then 'retried' else 'ended' end, n.run_id
    from new_rows n
    full join old_rows o using (run_id)
    where coalesce(n.depth > 0 and (n.status = 'started') <> (o.status = 'started'), false);
    perform pgflow.notify_workers(array(select n.parent_run_id from new_rows n where n.depth > 0));
  end if;
  return null;
end
$$;

create trigger _900_events_of_update after update on pgflow.runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_runs__after_update();

-- Steps that are added to a run, by hand. Those that begin in the statement that begins their run are in its log already.
create function pgflow.tg_step_states__after_insert()
returns trigger
language plpgsql
security definer -- whoever changes a step state writes its run's log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  added pgflow.step_key[] := array(
    select row(n.run_id, n.step_slug)::pgflow.step_key
    from new_rows n
    where n.status <> 'created'
      and not exists (select from pgflow.run_events e where e.run_id = n.run_id and e.step_slug = n.step_slug)
  );
begin
  if cardinality(added) = 0 then
    return null;
  end if;
  perform from pgflow.runs r
  where r.run_id = any (array(select k.run_id from unnest(added) k))
  order by r.run_id
  for no key update;
  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data)
  select event.run_id,
         row_number() over (partition by event.run_id order by event.is_start, event.step_index) + (
           select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = event.run_id
         ),
         event.type, event.step_slug, event.at, event.data
  from unnest(added) k
  cross join lateral (
    select e.* from pgflow.first_step_events e where e.run_id = k.run_id and e.step_slug = k.step_slug offset 0
  ) event;
  return null;
end
$$;

create trigger _900_events_of_insert after insert on pgflow.step_states
  referencing new table as new_rows
  for each statement execute function pgflow.tg_step_states__after_insert();

-- What steps have become, in the order in which things happen: a step ends before others start. One that completes without
-- having started before (an empty map) starts first.
create function pgflow.tg_step_states__after_update()
returns trigger
language plpgsql
security definer -- whoever changes a step state writes its run's log
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = on
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  as_of timestamptz;
  actor_id uuid := pgflow.current_user_id();
  actor_role text := case when actor_id is not null then pgflow.caller_role() end;
begin
  -- The engine holds these locks already; hand-written SQL gets them here.
  perform from pgflow.runs r
  where r.run_id = any (array(select n.run_id from new_rows n))
  order by r.run_id
  for no key update;
  as_of := pgflow.now();
  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data, actor_id, actor_role)
  select event.run_id,
         row_number() over (partition by event.run_id order by event.place, event.step_index) + (
           select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = event.run_id
         ),
         event.type, event.step_slug,
         coalesce(
           case event.type
             when 'step:started' then event.started_at
             when 'step:completed' then event.completed_at
             when 'step:failed' then event.failed_at
             when 'step:skipped' then event.skipped_at
           end,
           as_of
         ),
         case event.type
           when 'step:started' then case
             when event.waits_for is not null then jsonb_build_object(
               'initial_tasks', event.initial_tasks, 'waits_for', event.waits_for, 'due_at', event.due_at
             )
             when event.initial_tasks is distinct from 1 then jsonb_build_object('initial_tasks', event.initial_tasks)
           end
           when 'step:failed' then jsonb_build_object('error', event.error)
           when 'step:skipped' then jsonb_build_object('skip_reason', event.skip_reason, 'error', event.error)
           when 'step:retrying' then
             jsonb_build_object('error', event.error, 'retries', event.retries, 'retry_at', event.retry_at)
               || case event.waits_for when 'slot' then '{"waits_for": "slot"}' else '{}'::jsonb end
           when 'step:admitted' then jsonb_build_object('waits_for', event.waits_for)
           when 'step:progress' then jsonb_build_object('progress', event.progress) || case
             when event.has_turned then jsonb_strip_nulls(jsonb_build_object('initial_tasks', event.initial_tasks, 'waits_for', event.waits_for))
             else '{}'
           end
         end,
         case when settled.by_somebody then actor_id when settled.early then pgflow.early_answer_by(event.run_id, event.step_slug) end,
         case
           when settled.by_somebody then actor_role
           when settled.early and pgflow.early_answer_by(event.run_id, event.step_slug) is not null then 'authenticated'
         end
  from (
    select n.*, kind.type, kind.place, n.initial_tasks > o.initial_tasks as has_turned, (
             select s.step_index from pgflow.steps s where s.flow_slug = n.flow_slug and s.step_slug = n.step_slug
           ) as step_index
    from new_rows n
    full join old_rows o using (run_id, step_slug)
    cross join lateral (
      values
        (case n.status
           when 'completed' then 1 when 'failed' then 2 when 'skipped' then 3 when 'cancelled' then 4
           when o.status then 5
           else 7
         end,
         case
           when n.status = 'created' then null
           when n.status <> o.status then 'step:' || n.status
           when n.retries > o.retries then 'step:retrying'
         end),
        (case n.status when 'completed' then 0 else 6 end,
         case
           when o.status = 'created' and n.status = 'completed' then 'step:started'
           when n.status = o.status and n.progress is distinct from o.progress then 'step:progress'
           when n.status = o.status and n.waits_for is distinct from 'slot' and o.waits_for = 'slot' then 'step:admitted'
         end)
    ) as kind (place, type)
    where kind.type is not null
  ) event
  -- A signed-in user is no worker: they have settled a task. A step without tasks was settled by nobody, or before it began.
  cross join lateral (
    select actor_id is not null and event.initial_tasks > 0
       and event.type in ('step:completed', 'step:failed', 'step:retrying'),
       event.initial_tasks = 0 and event.type = 'step:completed'
  ) as settled (by_somebody, early);
  return null;
end
$$;

create trigger _900_events_of_update after update on pgflow.step_states
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_step_states__after_update();

-- Events as clients see them, one flat object each; `actor` is {id, role} where somebody acted who is no worker. Outputs are stored once, with their run or step, and join here;
-- above 16 KB the event says `output_omitted` instead.
create view pgflow.run_event_records
with (security_invoker = true)
as
select e.run_id, e.seq,
       jsonb_build_object('seq', e.seq, 'type', e.type, 'step_slug', e.step_slug, 'at', e.at)
       || case
            when e.actor_role is null then '{}'
            else jsonb_build_object('actor', jsonb_build_object('id', e.actor_id, 'role', e.actor_role))
          end
       || coalesce(e.data, case e.type when 'step:started' then '{"initial_tasks": 1}'::jsonb else '{}' end)
       || case
            when source.output is null then '{}'
            when octet_length(source.output::text) > 16384 then '{"output_omitted": true}'
            else jsonb_build_object('output', source.output)
          end as event
from pgflow.run_events e
left join lateral (
  select ss.output from pgflow.step_states ss
  where e.type = 'step:completed' and ss.run_id = e.run_id and ss.step_slug = e.step_slug
  union all
  select r.output from pgflow.runs r
  where e.type = 'run:completed' and r.run_id = e.run_id
) source on true;
comment on view pgflow.run_event_records is 'The events of runs as clients see them.';
