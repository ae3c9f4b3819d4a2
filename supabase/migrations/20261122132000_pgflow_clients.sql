-- Chapter 22: what clients ask for.
--
-- These functions are security definer, since clients have no rights on the tables, and apply the rules to their caller.

-- What clients see of a run: all columns but those of the engine.
create function pgflow.run_record(run pgflow.runs)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(run) - array[
    'remaining_steps', 'parent_run_id', 'parent_step_slug', 'parent_task_index', 'depth', 'trace_parent'
  ];
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

create function pgflow.client_start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text,
  metadata jsonb,
  watch boolean,
  delay int,
  group_id uuid
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
    client_start_flow.group_id
  );
  select r.* into run from pgflow.start_flow(
    client_start_flow.flow_slug, client_start_flow.input,
    idempotency_key => client_start_flow.idempotency_key, metadata => client_start_flow.metadata,
    delay => client_start_flow.delay, group_id => client_start_flow.group_id
  ) r;
  if client_start_flow.watch then
    perform pgflow.watch_run(run.run_id);
  end if;
  return pgflow.snapshot(run.run_id);
end
$$;

create function pgflow.client_start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[],
  metadata jsonb,
  delay int,
  group_id uuid
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
    client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys, client_start_flows.group_id
  );
  run_ids := array(
    select r.run_id
    from pgflow.start_flows(
      client_start_flows.flow_slug, client_start_flows.inputs, client_start_flows.idempotency_keys,
      metadata => client_start_flows.metadata, delay => client_start_flows.delay, group_id => client_start_flows.group_id
    ) with ordinality r
    order by r.ordinality
  );
  return (
    select coalesce(jsonb_agg(pgflow.snapshot(r.run_id) order by r.n), '[]')
    from unnest(run_ids) with ordinality r (run_id, n)
  );
end
$$;

create function pgflow.client_get_run(run_id uuid, watch boolean)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run.run_id, 'view');
  if client_get_run.watch then
    perform pgflow.watch_run(client_get_run.run_id);
  end if;
  return pgflow.snapshot(client_get_run.run_id);
end
$$;

create function pgflow.client_get_run_events(run_id uuid, after bigint, watch boolean)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run_events.run_id, 'view');
  if client_get_run_events.watch then
    perform pgflow.watch_run(client_get_run_events.run_id);
  end if;
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

create function pgflow.client_cancel_run(run_id uuid, reason text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(client_cancel_run.run_id, 'cancel');
  perform pgflow.cancel_run(client_cancel_run.run_id, client_cancel_run.reason);
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
create function pgflow.client_list_runs(
  flow_slug text,
  status text,
  metadata jsonb,
  owner_id uuid,
  before uuid,
  quantity int,
  group_id uuid
)
returns jsonb
language plpgsql
stable
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
        client_list_runs.metadata, last_seen, client_list_runs.before, is_service, caller, page;
  return runs;
end
$$;
