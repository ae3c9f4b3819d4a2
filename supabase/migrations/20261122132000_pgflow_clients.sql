-- Chapter 35: what clients ask for.
--
-- These functions are security definer, since clients have no rights on the tables, and apply the rules to their caller.

-- What clients see of a run: all columns but those of the engine, and the run that undoes it.
create function pgflow.run_record(run pgflow.runs)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(run) - array['trace_parent', 'undo'] - case
    when run.depth = 0 then '{parent_run_id,parent_step_slug,parent_task_index,depth}'::text[] else '{}'
  end || jsonb_build_object('undone_by', case when run.undo = 'begun' then pgflow.undo_run_of(run.run_id) end);
end
$$;

-- A run with its step states and the number of the last event in it, from one look at the database.
create function pgflow.snapshot(run_id uuid)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.run_record(r) || jsonb_build_object(
    'seq', (select coalesce(max(e.seq), 0) from pgflow.run_events e where e.run_id = r.run_id),
    'steps', (
      select jsonb_agg(to_jsonb(ss) - array['run_id', 'flow_slug', 'remaining_deps', 'remaining_tasks'] order by s.step_index)
      from pgflow.step_states ss
      join pgflow.steps s using (flow_slug, step_slug)
      where ss.run_id = r.run_id
    )
  )
  from pgflow.runs r
  where r.run_id = snapshot.run_id
$$;

-- The topic to which the events of runs go that the caller watches: that of the signed-in user, whatever `watch` is; for
-- clients with a secret key, one of their own, which `watch` names. Null for those who do not watch, and for callers without
-- an identity, whom no channel could be reserved for. Clients before version 3 say true and have other channels: they poll.
create function pgflow.topic_of_caller(watch text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if topic_of_caller.watch is null or topic_of_caller.watch in ('true', 'false') then
    return null;
  end if;
  if topic_of_caller.watch !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    raise exception using
      errcode = 'PT400',
      message = format('watch is no UUID: %s', left(topic_of_caller.watch, 100)),
      hint = 'Give a UUID that the client has chosen for itself, in lower case.';
  end if;
  return case
    when pgflow.caller_is_service() then 'pgflow:watch:' || topic_of_caller.watch
    else 'pgflow:user:' || pgflow.current_user_id()
  end;
end
$$;

create function pgflow.client_start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text,
  metadata jsonb,
  watch text,
  delay int,
  group_id uuid,
  priority text
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  perform pgflow.assert_may_start(
    client_start_flow.flow_slug, jsonb_build_array(client_start_flow.input), array[client_start_flow.idempotency_key],
    client_start_flow.group_id, client_start_flow.priority
  );
  select r.* into run from pgflow.start_runs(
    client_start_flow.flow_slug, null, array[client_start_flow.input], array[client_start_flow.idempotency_key], null,
    client_start_flow.group_id, client_start_flow.metadata, client_start_flow.delay, client_start_flow.priority,
    is_client => not pgflow.caller_is_service()
  ) r;
  perform pgflow.watch_runs(array[run.run_id], pgflow.topic_of_caller(client_start_flow.watch));
  return pgflow.snapshot(run.run_id);
end
$$;

create function pgflow.client_start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[],
  metadata jsonb,
  watch text,
  delay int,
  group_id uuid,
  priority text
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  run_ids uuid[];
begin
  perform pgflow.assert_may_start(
    client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys, client_start_flows.group_id,
    client_start_flows.priority
  );
  run_ids := array(
    select r.run_id
    from pgflow.start_runs(
      client_start_flows.flow_slug, null,
      pgflow.inputs_of(client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys),
      client_start_flows.idempotency_keys, null, client_start_flows.group_id, client_start_flows.metadata,
      client_start_flows.delay, client_start_flows.priority, is_client => not pgflow.caller_is_service()
    ) with ordinality r
    order by r.ordinality
  );
  perform pgflow.watch_runs(run_ids, pgflow.topic_of_caller(client_start_flows.watch));
  return (
    select coalesce(jsonb_agg(pgflow.snapshot(r.run_id) order by r.n), '[]')
    from unnest(run_ids) with ordinality r (run_id, n)
  );
end
$$;

create function pgflow.client_get_run(run_id uuid, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run.run_id, 'view');
  perform pgflow.watch_runs(array[client_get_run.run_id], pgflow.topic_of_caller(client_get_run.watch));
  return pgflow.snapshot(client_get_run.run_id);
end
$$;

create function pgflow.client_get_run_events(run_id uuid, after bigint, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run_events.run_id, 'view');
  perform pgflow.watch_runs(array[client_get_run_events.run_id], pgflow.topic_of_caller(client_get_run_events.watch));
  return (
    select coalesce(jsonb_agg(e.event order by e.seq), '[]')
    from (
      select record.seq, record.event
      from pgflow.run_event_records record
      where record.run_id = client_get_run_events.run_id and record.seq > coalesce(client_get_run_events.after, 0)
      order by record.seq
      limit 1000
    ) e
  );
end
$$;

-- What many runs have become since their cursors. Those without news are left out of the answer.
create function pgflow.client_sync(cursors jsonb, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
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
  caller uuid := pgflow.current_user_id();
  is_service boolean := pgflow.caller_is_service();
  topic text := pgflow.topic_of_caller(client_sync.watch);
  run_ids uuid[];
  visible uuid[];
  afters bigint[];
  held uuid[];
begin
  perform pgflow.assert_are_cursors(client_sync.cursors);
  run_ids := array(select c.key::uuid from jsonb_each_text(client_sync.cursors) c);
  select coalesce(array_agg(r.run_id), '{}'), array_agg((client_sync.cursors ->> r.run_id::text)::bigint)
  into visible, afters
  from unnest(run_ids) asked (run_id)
  join pgflow.runs r using (run_id)
  where is_service or r.owner_id = caller or pgflow.can_access_run(r.run_id, r.owner_id, r.group_id, 'view');
  held := pgflow.watch_runs(visible, topic, waits => false);

  return (
    with current as (
      select r.run_id, r.status, v.after, coalesce(last.seq, 0) as seq, r.run_id = any (held) as is_held,
             topic is not null and r.status = 'started' and f.broadcast <> 'never' and r.run_id <> all (held) as watched
      from unnest(visible, afters) v (run_id, after)
      join pgflow.runs r using (run_id)
      join pgflow.flows f using (flow_slug)
      left join lateral (select max(e.seq) as seq from pgflow.run_events e where e.run_id = r.run_id) last on true
    ), next as (
      -- Each run gets its first events before any gets its next ones.
      select c.run_id, e.seq, row_number() over (order by e.n, c.run_id) as place
      from current c
      cross join lateral (
        select e.seq, row_number() over (order by e.seq) as n
        from pgflow.run_events e
        where e.run_id = c.run_id and e.seq > c.after
        order by e.seq
        limit 1000
      ) e
      where c.seq > c.after
      order by place
      limit 10000
    ), shown as (
      select n.run_id, n.seq, n.place, (
        select record.event from pgflow.run_event_records record where record.run_id = n.run_id and record.seq = n.seq
      ) as event
      from next n
      offset 0
    ), measured as (
      select s.run_id, s.seq, s.event,
             sum(octet_length(s.event::text)) over (order by s.place) - octet_length(s.event::text) as bytes_before
      from shown s
    ), page as (
      select m.run_id, max(m.seq) as seq, jsonb_agg(m.event order by m.seq) as events
      from measured m
      where m.bytes_before < 1000000
      group by m.run_id
    ), pages as materialized (
      -- One value, since a join of this and the runs would be a loop in a loop.
      select coalesce(jsonb_object_agg(p.run_id, jsonb_build_object('seq', p.seq, 'events', p.events)), '{}') as by_run from page p
    ), answer as (
      select c.*, pages.by_run -> c.run_id::text as page from current c cross join pages
    )
    select jsonb_build_object(
      'user_id', nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub',
      'topic', topic,
      'runs', coalesce(jsonb_agg(jsonb_build_object(
        'run_id', c.run_id, 'status', c.status, 'seq', c.seq, 'watched', c.watched, 'events', coalesce(c.page -> 'events', '[]'),
        'more', c.is_held or coalesce(coalesce((c.page ->> 'seq')::bigint, c.after) < c.seq, false)
      )) filter (where c.after is null or c.after < c.seq or c.is_held), '[]'),
      'missing', (
        select coalesce(jsonb_agg(jsonb_build_object(
          'run_id', asked.run_id, 'code', 'PT404',
          'message', format('run %s does not exist, or is not yours', asked.run_id),
          'hint', 'Sign in as the user who started the run, and check its id.'
        )), '[]')
        from (select run_id from unnest(run_ids) run_id except select run_id from unnest(visible) run_id) asked
      )
    )
    from answer c
  );
end
$$;

create function pgflow.client_cancel_run(run_id uuid, reason text, undo boolean)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_cancel_run.run_id, 'cancel');
  perform pgflow.cancel_run(client_cancel_run.run_id, client_cancel_run.reason, client_cancel_run.undo);
  return pgflow.snapshot(client_cancel_run.run_id);
end
$$;

create function pgflow.client_retry_run(run_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_retry_run.run_id, 'retry');
  perform pgflow.retry_run(client_retry_run.run_id);
  return pgflow.snapshot(client_retry_run.run_id);
end
$$;

-- Of the caller's own runs the rule is not asked. Of others' runs a page looks at the newest 1,000 that match the filters,
-- so that it takes a bounded time whatever the rule costs and says: a caller who may see none of them learns it at once.
-- `watch` waits for nobody: a run to which somebody is writing at the moment is not watched.
create function pgflow.client_list_runs(
  flow_slug text,
  status text,
  metadata jsonb,
  owner_id uuid,
  before uuid,
  quantity int,
  group_id uuid,
  watch text,
  children boolean default false
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
declare
  caller uuid := pgflow.current_user_id();
  is_service boolean := pgflow.caller_is_service();
  listed_owner uuid := client_list_runs.owner_id;
  page int := least(greatest(client_list_runs.quantity, 0), 1000);
  last_seen timestamptz;
  versions text[];
  runs jsonb;
  run_ids uuid[];
  held uuid[];
begin
  if not is_service and listed_owner is null and client_list_runs.group_id is null then
    if caller is null then
      return '[]';
    end if;
    listed_owner := caller;
  end if;
  if exists (select from pgflow.flow_aliases a where a.alias = client_list_runs.flow_slug) then
    versions := array(select f.flow_slug from pgflow.flows f where f.alias = client_list_runs.flow_slug);
  end if;
  if client_list_runs.before is not null then
    perform pgflow.assert_can_access_run(client_list_runs.before, 'view');
    last_seen := (select r.started_at from pgflow.runs r where r.run_id = client_list_runs.before);
  end if;
  -- Executed as text, since it is planned anew for what is asked for: then a filter that is null costs nothing.
  execute $list$
    select coalesce(jsonb_agg(pgflow.run_record(listed) order by listed.started_at desc, listed.run_id desc), '[]')
    from (
      select candidate.*
      from (
        select r.*
        from pgflow.runs r
        where ($1 is null or r.owner_id = $1)
          and ($2 is null or r.group_id = $2)
          and ($3 is null or r.flow_slug = $3 and $4 is null or r.flow_slug = any ($4))
          and ($5 is null or r.status = $5)
          and ($6 is null or r.metadata @> $6)
          and ($7 is null or (r.started_at, r.run_id) < ($7, $8))
          and ($12 or r.depth = 0)
        order by r.started_at desc, r.run_id desc
        limit case when $9 or $1 = $10 then $11 else 1000 end
      ) candidate
      where $9 or candidate.owner_id = $10
         or pgflow.can_access_run(candidate.run_id, candidate.owner_id, candidate.group_id, 'view')
      order by candidate.started_at desc, candidate.run_id desc
      limit $11
    ) listed
  $list$
  into runs
  using listed_owner, client_list_runs.group_id, client_list_runs.flow_slug, versions, client_list_runs.status,
        client_list_runs.metadata, last_seen, client_list_runs.before, is_service, caller, page,
        coalesce(client_list_runs.children, false);
  if client_list_runs.watch is null then
    return runs;
  end if;
  run_ids := array(select (r ->> 'run_id')::uuid from jsonb_array_elements(runs) r);
  held := pgflow.watch_runs(run_ids, pgflow.topic_of_caller(client_list_runs.watch), waits => false);
  -- What they are now, from when every later change is broadcast.
  return (
    select coalesce(jsonb_agg(pgflow.run_record(r) order by r.started_at desc, r.run_id desc), '[]')
    from pgflow.runs r
    where r.run_id = any (run_ids)
  );
end
$$;

-- The children of a run, for those who may see that run: in the order of their steps and items. `after` is the task_index of the last one of a page.
create function pgflow.client_list_children(run_id uuid, step_slug text, after int, quantity int)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
declare
  page int := least(greatest(coalesce(client_list_children.quantity, 100), 0), 1000);
begin
  perform pgflow.assert_can_access_run(client_list_children.run_id, 'view');
  if client_list_children.after is not null and client_list_children.step_slug is null then
    raise exception using
      errcode = 'PT400',
      message = 'after is given without step_slug',
      hint = 'Give the step whose children are listed: after is the parent_task_index of the last one that is known.';
  end if;
  return (
    select coalesce(jsonb_agg(pgflow.run_record(listed.child) order by listed.step_index, listed.task_index), '[]')
    from (
      select s.step_index, c.task_index, c.child
      from pgflow.runs parent
      join pgflow.steps s using (flow_slug)
      cross join lateral (
        select t.task_index, child
        from pgflow.step_tasks t
        join pgflow.runs child on child.run_id = t.child_run_id
        where t.run_id = parent.run_id and t.step_slug = s.step_slug and t.task_index > coalesce(client_list_children.after, -1)
        order by t.task_index
        limit page
      ) c
      where parent.run_id = client_list_children.run_id and s.child_flow is not null
        and (client_list_children.step_slug is null or s.step_slug = client_list_children.step_slug)
      order by s.step_index, c.task_index
      limit page
    ) listed
  );
end
$$;

-- What clients see of a schedule.
create function pgflow.schedule_record(schedule pgflow.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(schedule) - array['schedule_id', 'due_at'];
end
$$;

-- Whose schedules a call is about: those of the signed-in user; for the service role those of `owner_id`, or of nobody.
create function pgflow.scheduling_owner(owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  caller uuid := pgflow.current_user_id();
begin
  if pgflow.caller_is_service() then
    return scheduling_owner.owner_id;
  end if;
  if caller is null then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s has no schedules without a user id', pgflow.caller_role()),
      hint = 'Sign in, anonymously for instance.';
  elsif scheduling_owner.owner_id <> caller then
    raise exception using
      errcode = 'PT403',
      message = 'you may not use the schedules of another user',
      hint = 'Leave owner_id out: it is for secret keys.';
  end if;
  return caller;
end
$$;

-- The rules are those of a start; users may only have schedules of flows that say so, up to max_schedules of each.
create function pgflow.client_schedule_flow(
  flow_slug text,
  cron text,
  input jsonb,
  time_zone text,
  schedule_slug text,
  overlap text,
  catch_up text,
  catch_up_window int,
  owner_id uuid
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = pg_catalog, pg_temp
as $$
declare
  owner uuid := pgflow.scheduling_owner(client_schedule_flow.owner_id);
  is_service boolean := pgflow.caller_is_service();
  flow pgflow.flows := pgflow.lock_flow(client_schedule_flow.flow_slug);
  wanted pgflow.schedules;
begin
  wanted.schedule_slug := coalesce(client_schedule_flow.schedule_slug, flow.alias);
  wanted.made_by := case when is_service then 'sql' else 'client' end;
  wanted.cron := client_schedule_flow.cron;
  wanted.input := client_schedule_flow.input;
  wanted.time_zone := client_schedule_flow.time_zone;
  wanted.overlap := client_schedule_flow.overlap;
  wanted.catch_up := client_schedule_flow.catch_up;
  wanted.catch_up_window := client_schedule_flow.catch_up_window;
  wanted.spread := 0;
  wanted.owner_id := owner;
  perform pgflow.assert_may_start(client_schedule_flow.flow_slug, jsonb_build_array(client_schedule_flow.input), null, null);
  if not is_service then
    perform pgflow.assert_users_may_start(flow, array[owner]);
    perform pg_advisory_xact_lock(hashtextextended('pgflow.schedules:' || owner, 0)); -- or two calls exceed the limit together
    if flow.max_schedules <= (
      select count(*) from pgflow.schedules s
      where s.owner_id = owner and s.alias = flow.alias and s.schedule_slug <> wanted.schedule_slug
    ) then
      raise exception using
        errcode = 'PT403',
        message = format('you may not have more than %s schedules of flow "%s"', flow.max_schedules, flow.alias),
        hint = 'Delete one, or change one that you have; the project sets the limit in flows.max_schedules.';
    end if;
  end if;
  return pgflow.schedule_record(pgflow.put_schedule(wanted, client_schedule_flow.flow_slug));
end
$$;

create function pgflow.client_list_schedules(flow_slug text, owner_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; it lists the caller's own
set search_path = pg_catalog, pg_temp
as $$
declare
  is_service boolean := pgflow.caller_is_service();
  owner uuid := pgflow.scheduling_owner(client_list_schedules.owner_id);
begin
  return (
    select coalesce(jsonb_agg(pgflow.schedule_record(listed) order by listed.schedule_slug, listed.owner_id), '[]')
    from (
      select s.* from pgflow.schedules s
      where (is_service and owner is null or s.owner_id = owner)
        and (client_list_schedules.flow_slug is null or s.alias = client_list_schedules.flow_slug)
      order by s.schedule_slug, s.owner_id
      limit 1000
    ) listed
  );
end
$$;

-- Pauses, resumes or deletes a schedule; users do that with those that they have made.
create function pgflow.client_change_schedule(action text, schedule_slug text, owner_id uuid)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; it changes the caller's own
set search_path = pg_catalog, pg_temp
as $$
declare
  owner uuid := pgflow.scheduling_owner(client_change_schedule.owner_id);
  schedule pgflow.schedules := pgflow.locked_schedule(client_change_schedule.schedule_slug, owner);
begin
  if schedule.made_by <> 'client' and not pgflow.caller_is_service() then
    raise exception using
      errcode = 'PT403',
      message = format('you may not change schedule "%s"', schedule.schedule_slug),
      hint = 'The project has made it for you.';
  end if;
  if action = 'pause' then
    schedule := pgflow.pause_schedule(schedule.schedule_slug, owner);
  elsif action = 'resume' then
    schedule := pgflow.resume_schedule(schedule.schedule_slug, owner);
  else
    perform pgflow.unschedule(schedule.schedule_slug, owner);
  end if;
  return pgflow.schedule_record(schedule);
end
$$;
