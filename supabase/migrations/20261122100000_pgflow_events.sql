-- Chapter 14: every transition becomes an event.
--
-- Statement-level triggers on runs and step_states write the log, so that no transition can be forgotten, by
-- hand-written SQL either. They hold the runs' locks: `seq` goes on from the run's last event, without gaps.
--
-- Events say who: the signed-in user, and the role that the caller acts as. What workers do has no actor.

-- Appends the events of runs: `run:started` and `run:retried` for those that start, else what their status became.
create function pgflow.append_run_events(run_ids uuid[], started_type text)
returns void
language plpgsql
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
  insert into pgflow.run_events (run_id, seq, type, at, data, actor_id, actor_role)
  select r.run_id, last.seq + 1,
         case r.status when 'started' then append_run_events.started_type else 'run:' || r.status end,
         coalesce(
           r.completed_at, r.failed_at, r.cancelled_at,
           case append_run_events.started_type when 'run:started' then r.started_at end, pgflow.now()
         ),
         case
           when r.status in ('failed', 'cancelled') then jsonb_build_object('error', r.error)
           when r.status = 'started' and append_run_events.started_type = 'run:retried' then jsonb_build_object('step_slugs', (
             select coalesce(jsonb_agg(ss.step_slug order by s.step_index), '[]')
             from pgflow.step_states ss
             join pgflow.steps s using (flow_slug, step_slug)
             where ss.run_id = r.run_id and ss.status = 'created'
           ))
           else '{}'
         end,
         case when r.status in ('started', 'cancelled') then actor_id end,
         case when r.status in ('started', 'cancelled') then actor_role end
  from pgflow.runs r
  cross join lateral (
    select coalesce(max(e.seq), 0) as seq from pgflow.run_events e where e.run_id = r.run_id
  ) last
  where r.run_id = any (append_run_events.run_ids);
end
$$;

create function pgflow.tg_runs__after_insert()
returns trigger
language plpgsql
security definer -- whoever changes a run writes its log
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.append_run_events(array_agg(n.run_id), 'run:started') from new_rows n having count(*) > 0;
  return null;
end
$$;

create trigger _900_events_of_insert after insert on pgflow.runs
  referencing new table as new_rows
  for each statement execute function pgflow.tg_runs__after_insert();

create function pgflow.tg_runs__after_update()
returns trigger
language plpgsql
security definer -- whoever changes a run writes its log
set search_path = pg_catalog, pg_temp
set enable_hashjoin = on -- transition tables have no index
as $$
begin
  perform pgflow.append_run_events(array_agg(n.run_id), 'run:retried')
  from new_rows n join old_rows o using (run_id)
  where n.status <> o.status
  having count(*) > 0;
  return null;
end
$$;

create trigger _900_events_of_update after update on pgflow.runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_runs__after_update();

-- Appends the events of step states: (run_id, step_slug) with what they became, in the order in which things happen:
-- a step ends before others start.
create type pgflow.step_transition as (
  run_id uuid,
  step_slug text,
  type text
);

create function pgflow.append_step_events(transitions pgflow.step_transition[])
returns void
language plpgsql
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
  now timestamptz;
  actor_id uuid := pgflow.current_user_id();
  actor_role text := case when actor_id is not null then pgflow.caller_role() end;
begin
  -- The engine holds these locks already; hand-written SQL gets them here.
  perform from pgflow.runs r
  where r.run_id = any (array(select t.run_id from unnest(transitions) t))
  order by r.run_id
  for no key update;
  now := pgflow.now();

  insert into pgflow.run_events (run_id, seq, type, step_slug, at, data, actor_id, actor_role)
  select ss.run_id,
         last.seq + row_number() over (
           partition by ss.run_id
           order by t.type = 'step:started' and ss.status = 'completed' desc, array_position(
             array['step:completed', 'step:failed', 'step:skipped', 'step:cancelled', 'step:retrying', 'step:progress'],
             t.type
           ) nulls last, s.step_index
         ),
         t.type, ss.step_slug,
         coalesce(
           case t.type
             when 'step:started' then ss.started_at
             when 'step:completed' then ss.completed_at
             when 'step:failed' then ss.failed_at
             when 'step:skipped' then ss.skipped_at
           end,
           now
         ),
         case t.type
           when 'step:started' then jsonb_build_object('initial_tasks', ss.initial_tasks)
           when 'step:failed' then jsonb_build_object('error', ss.error)
           when 'step:skipped' then jsonb_build_object('skip_reason', ss.skip_reason, 'error', ss.error)
           when 'step:retrying' then
             jsonb_build_object('error', ss.error, 'retries', ss.retries, 'retry_at', ss.retry_at)
           when 'step:progress' then jsonb_build_object('progress', ss.progress)
           else '{}'
         end,
         case when settled.by_somebody then actor_id end,
         case when settled.by_somebody then actor_role end
  from unnest(transitions) t
  join pgflow.step_states ss using (run_id, step_slug)
  join pgflow.steps s using (flow_slug, step_slug)
  cross join lateral (
    select coalesce(max(e.seq), 0) as seq from pgflow.run_events e where e.run_id = ss.run_id
  ) last
  -- A signed-in user is no worker: they have settled a task. A step without tasks was settled by nobody.
  cross join lateral (
    select actor_id is not null and ss.initial_tasks > 0 and t.type in ('step:completed', 'step:failed', 'step:retrying')
  ) as settled (by_somebody);
end
$$;

create function pgflow.tg_step_states__after_insert()
returns trigger
language plpgsql
security definer -- whoever changes a step state writes its run's log
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.append_step_events(array_agg(row(n.run_id, n.step_slug, 'step:' || n.status)::pgflow.step_transition))
  from new_rows n
  where n.status <> 'created'
  having count(*) > 0;
  return null;
end
$$;

create trigger _900_events_of_insert after insert on pgflow.step_states
  referencing new table as new_rows
  for each statement execute function pgflow.tg_step_states__after_insert();

create function pgflow.tg_step_states__after_update()
returns trigger
language plpgsql
security definer -- whoever changes a step state writes its run's log
set search_path = pg_catalog, pg_temp
set enable_hashjoin = on -- transition tables have no index
as $$
begin
  perform pgflow.append_step_events(array_agg(row(n.run_id, n.step_slug, kind.type)::pgflow.step_transition))
  from new_rows n
  join old_rows o using (run_id, step_slug)
  cross join lateral (
    values
      (case when o.status = 'created' and n.status = 'completed' then 'step:started' end),
      (case when n.status <> o.status and n.status <> 'created' then 'step:' || n.status end),
      (case when n.status = o.status and n.retries > o.retries then 'step:retrying' end),
      (case when n.status = o.status and n.progress is distinct from o.progress then 'step:progress' end)
  ) as kind (type)
  where kind.type is not null
  having count(*) > 0;
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
       || e.data
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
