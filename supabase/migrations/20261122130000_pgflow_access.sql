-- Chapter 20: who may do what. All grants, policies and the exposed API.
--
-- Clients reach nothing but pgflow_public. Its functions run as their caller and call the few definer functions here,
-- which look at who the caller is. Tables have row level security and no grants to clients: a second wall.

-- The role that the caller acts as, also inside definer functions.
create function pgflow.caller_role()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(nullif(current_setting('role', true), 'none'), session_user);
end
$$;

-- Whether the caller is the service role or above it, and so not bound by ownership.
create function pgflow.caller_is_service()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_has_role(pgflow.caller_role(), 'service_role', 'member');
end
$$;

-- Whether the signed-in user may do something with a run: action is `view`, `cancel`, `retry` or `complete`. Owners see their
-- own runs in any case; this is asked for all else. Replace it to share runs, for instance within teams:
--   create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text) returns boolean …
create function pgflow.can_access_run(run_id uuid, owner_id uuid, group_id uuid, action text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(can_access_run.owner_id = pgflow.current_user_id(), false);
end
$$;
comment on function pgflow.can_access_run is
  'Decides what a signed-in user may do with a run (view, cancel, retry, complete); replaceable. Default: all with their own.';

-- Whether the signed-in user may start runs in a group. Replace it where teams share runs:
--   create or replace function pgflow.can_start_in_group(group_id uuid) returns boolean …
create function pgflow.can_start_in_group(group_id uuid)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return false;
end
$$;
comment on function pgflow.can_start_in_group is 'Decides in which groups a signed-in user may start runs; replaceable. Default: in none.';

-- Raises PT404 where a run does not exist or the caller may not see it, PT403 where they may see it and no more.
create function pgflow.assert_can_access_run(run_id uuid, action text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
  can_view boolean;
begin
  select r.* into run from pgflow.runs r where r.run_id = assert_can_access_run.run_id;
  if found and pgflow.caller_is_service() then
    return;
  end if;
  can_view := found and (
    coalesce(run.owner_id = pgflow.current_user_id(), false)
    or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'view')
  );
  if can_view is not true then
    raise exception using
      errcode = 'PT404',
      message = format('run %s does not exist, or is not yours', coalesce(assert_can_access_run.run_id::text, 'null')),
      hint = 'Sign in as the user who started the run, and check its id.';
  end if;
  if action <> 'view' and pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, action) is not true then
    raise exception using
      errcode = 'PT403',
      message = format('you may not %s run %s', action, run.run_id),
      hint = 'The project decides it in pgflow.can_access_run.';
  end if;
end
$$;

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

-- Whether a flow may be started `quantity` times for an owner, null where nobody is signed in. Replace it for quotas; it may
-- also raise an error of its own. The service role and SQL are not asked.
--   create or replace function pgflow.may_start(flow_slug text, owner_id uuid, quantity int) returns boolean …
create function pgflow.may_start(flow_slug text, owner_id uuid, quantity int)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return true;
end
$$;
comment on function pgflow.may_start is 'Decides whether a client may start a flow now, for quotas; replaceable. Default: yes.';

-- Refuses a start that is not for the caller to make. The service role may start everything.
create function pgflow.assert_may_start(flow_slug text, inputs jsonb, idempotency_keys text[], group_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow pgflow.flows := pgflow.held_flow(assert_may_start.flow_slug);
begin
  if pgflow.caller_is_service() then
    return;
  end if;
  if flow.start_role <> 'anon' and not pg_has_role(pgflow.caller_role(), flow.start_role, 'member') then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s may not start flow "%s"', pgflow.caller_role(), assert_may_start.flow_slug),
      detail = format('its start_role is %s', flow.start_role),
      hint = case flow.start_role
        when 'authenticated' then 'Sign in first.'
        else 'Start it on the server with a secret key, or define the flow with start_role authenticated.'
      end;
  end if;
  -- Who knows or guesses a key would find the run of another, or take the key first.
  if num_nonnulls(variadic idempotency_keys) > 0 and pgflow.current_user_id() is null then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s may not use idempotency keys without a user id', pgflow.caller_role()),
      hint = 'Sign in, anonymously for instance, or leave the key out.';
  end if;
  if group_id is not null and pgflow.can_start_in_group(group_id) is not true then
    raise exception using
      errcode = 'PT403',
      message = format('you may not start runs in group %s', group_id),
      hint = 'The project decides it in pgflow.can_start_in_group.';
  end if;
  perform pgflow.assert_fits(flow, inputs);
  if pgflow.may_start(flow.flow_slug, pgflow.current_user_id(), jsonb_array_length(inputs)) is not true then
    raise exception using
      errcode = 'PT403',
      message = format('you may not start flow "%s" now', assert_may_start.flow_slug),
      hint = 'The project limits it in pgflow.may_start: wait for runs to end, or ask for more.';
  end if;
end
$$;

-- Raises PT413 where a client sends too much at once.
create function pgflow.assert_fits(flow pgflow.flows, inputs jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  largest int;
begin
  if jsonb_typeof(inputs) is distinct from 'array' then
    raise exception using
      errcode = 'PT400',
      message = format('the inputs for flow "%s" are not an array', flow.flow_slug),
      hint = 'Give inputs as a JSON array, an element for each run.';
  end if;
  if jsonb_array_length(inputs) > 1000 then
    raise exception using
      errcode = 'PT413',
      message = format('%s inputs are too many for one call', jsonb_array_length(inputs)),
      hint = 'Start up to 1,000 runs in a call, and the others in further calls.';
  end if;
  if octet_length(inputs::text) > flow.max_input_bytes then
    largest := (select max(octet_length(i::text)) from jsonb_array_elements(inputs) i);
    if largest > flow.max_input_bytes then
      raise exception using
        errcode = 'PT413',
        message = format('an input of %s bytes is too large for flow "%s"', largest, flow.flow_slug),
        detail = format('max_input_bytes of the flow is %s', flow.max_input_bytes),
        hint = 'Put large data into Supabase Storage, and its path into the input; or raise flows.max_input_bytes in SQL.';
    end if;
  end if;
end
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

-- The exposed API.

-- Which version of the migrations this database has, for packages that meet a missing function or argument.
--   supabase.schema('pgflow_public').rpc('schema_version')
create function pgflow_public.schema_version()
returns int
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.schema_version()
$$;
comment on function pgflow_public.schema_version is 'The version of the installed migrations.';

-- Starts a run of a flow and answers with its snapshot. `delay` is in seconds; `group_id` is a team's, where
-- pgflow.can_start_in_group lets the caller start runs in it.
--   supabase.schema('pgflow_public').rpc('start_flow', { flow_slug: 'analyze_document', input: { path: 'README.md' } })
create function pgflow_public.start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text default null,
  metadata jsonb default null,
  watch boolean default false,
  delay int default 0,
  group_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_start_flow(flow_slug, coalesce(input, 'null'), idempotency_key, metadata, watch, delay, group_id)
$$;
comment on function pgflow_public.start_flow is
  'Starts a run of a flow and answers with its snapshot. watch: broadcast its events for five minutes.';

-- Starts a run for each of many inputs, all or none, and answers with their snapshots, in the order of the inputs.
--   supabase.schema('pgflow_public').rpc('start_flows', { flow_slug: 'resize_image', inputs: [{ path: 'a.png' }] })
create function pgflow_public.start_flows(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[] default null,
  metadata jsonb default null,
  delay int default 0,
  group_id uuid default null
)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_start_flows(flow_slug, inputs, idempotency_keys, metadata, delay, group_id)
$$;
comment on function pgflow_public.start_flows is
  'Starts a run of a flow for each of many inputs and answers with their snapshots.';

-- The snapshot of a run: its row, its step states, and `seq`, the number of the last event in it.
--   supabase.schema('pgflow_public').rpc('get_run', { run_id })
create function pgflow_public.get_run(run_id uuid, watch boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run(run_id, watch)
$$;
comment on function pgflow_public.get_run is 'The snapshot of a run. watch: broadcast its events for five minutes.';

-- Up to 1,000 events of a run after the one numbered `after`, in order.
--   supabase.schema('pgflow_public').rpc('get_run_events', { run_id, after: 3 })
create function pgflow_public.get_run_events(run_id uuid, after bigint default 0, watch boolean default false)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_get_run_events(run_id, after, watch)
$$;
comment on function pgflow_public.get_run_events is
  'Up to 1,000 events of a run after `after`. watch: broadcast its events for five minutes.';

-- Cancels a run and answers with its snapshot; the reason becomes its error.
--   supabase.schema('pgflow_public').rpc('cancel_run', { run_id, reason: 'no longer needed' })
create function pgflow_public.cancel_run(run_id uuid, reason text default null)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_cancel_run(run_id, reason)
$$;
comment on function pgflow_public.cancel_run is 'Cancels a run and answers with its snapshot.';

-- Lets a failed or cancelled run go on from where it ended, and answers with its snapshot.
--   supabase.schema('pgflow_public').rpc('retry_run', { run_id })
create function pgflow_public.retry_run(run_id uuid)
returns jsonb
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_retry_run(run_id)
$$;
comment on function pgflow_public.retry_run is 'Lets a failed or cancelled run go on, and answers with its snapshot.';

-- Runs without their steps, the newest first, at most 1,000: the signed-in user's own, or those of an owner or group that
-- pgflow.can_access_run lets them see, of the newest 1,000 that match; all of them for the service role. `before` is the
-- run_id of the last one seen; it must still be there.
--   supabase.schema('pgflow_public').rpc('list_runs', { flow_slug: 'analyze_document', status: 'failed' })
create function pgflow_public.list_runs(
  flow_slug text default null,
  status text default null,
  metadata jsonb default null,
  owner_id uuid default null,
  before uuid default null,
  quantity int default 50,
  group_id uuid default null
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.client_list_runs(flow_slug, status, metadata, owner_id, before, quantity, group_id)
$$;
comment on function pgflow_public.list_runs is 'Lists runs, the newest first; metadata is matched with @>.';

-- Erases what a deleted user leaves, and answers how many runs that were. For servers with a secret key.
--   supabase.schema('pgflow_public').rpc('forget_owner', { owner_id: user.id })
create function pgflow_public.forget_owner(owner_id uuid, quantity int default null)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.forget_owner(forget_owner.owner_id, forget_owner.quantity)
$$;
comment on function pgflow_public.forget_owner is 'Erases what a deleted user leaves. For servers with a secret key.';

-- Row level security: the own runs for users, where somebody grants them the tables; everything else is closed. The rule is
-- asked for others' runs only: it costs a call a row.

alter table pgflow.flows enable row level security;
alter table pgflow.flow_aliases enable row level security;
alter table pgflow.steps enable row level security;
alter table pgflow.deps enable row level security;
alter table pgflow.runs enable row level security;
alter table pgflow.run_keys enable row level security;
alter table pgflow.step_states enable row level security;
alter table pgflow.step_tasks enable row level security;
alter table pgflow.run_events enable row level security;
alter table pgflow.run_watches enable row level security;
alter table pgflow.workers enable row level security;

create policy own_runs on pgflow.runs for select to authenticated
  using (
    owner_id = (select pgflow.current_user_id()) or pgflow.can_access_run(run_id, owner_id, group_id, 'view')
  );
create policy own_step_states on pgflow.step_states for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = step_states.run_id));
create policy own_run_events on pgflow.run_events for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = run_events.run_id));

create policy closed on pgflow.flows for all to anon, authenticated using (false);
create policy closed on pgflow.flow_aliases for all to anon, authenticated using (false);
create policy closed on pgflow.steps for all to anon, authenticated using (false);
create policy closed on pgflow.deps for all to anon, authenticated using (false);
create policy closed on pgflow.run_keys for all to anon, authenticated using (false);
create policy closed on pgflow.step_tasks for all to anon, authenticated using (false);
create policy closed on pgflow.run_watches for all to anon, authenticated using (false);
create policy closed on pgflow.workers for all to anon, authenticated using (false);

-- The private channels of runs. Nobody may insert, so that events cannot be forged.

-- Whether the caller may listen to a topic: that of a run they can access. Never raises, whatever the topic.
create function pgflow.can_read_topic(topic text)
returns boolean
language sql
stable
security definer -- clients have no rights on runs
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pgflow.runs r
    where r.run_id = case
        when can_read_topic.topic ~ '^pgflow:run:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
        then substr(can_read_topic.topic, 12)::uuid
      end
      and (
        r.owner_id = (select pgflow.current_user_id())
        or pgflow.can_access_run(r.run_id, r.owner_id, r.group_id, 'view')
      )
  )
$$;

do $$
begin
  if to_regclass('realtime.messages') is not null then
    create policy pgflow_run_channels on realtime.messages for select to authenticated
      using (pgflow.can_read_topic((select realtime.topic())));
  end if;
end
$$;

-- Grants: execute is taken from everybody, then given by name.

revoke all on all tables in schema pgflow from public, anon, authenticated, service_role;
revoke all on all functions in schema pgflow, pgflow_public from public, anon, authenticated, service_role;

grant usage on schema pgflow_public, pgflow to anon, authenticated, service_role;

grant execute on function
  pgflow_public.start_flow(text, jsonb, text, jsonb, boolean, int, uuid),
  pgflow_public.start_flows(text, jsonb, text[], jsonb, int, uuid),
  pgflow_public.get_run(uuid, boolean),
  pgflow_public.get_run_events(uuid, bigint, boolean),
  pgflow_public.list_runs(text, text, jsonb, uuid, uuid, int, uuid),
  pgflow_public.cancel_run(uuid, text),
  pgflow_public.retry_run(uuid),
  pgflow_public.schema_version(),
  pgflow.schema_version(),
  pgflow.client_start_flow(text, jsonb, text, jsonb, boolean, int, uuid),
  pgflow.client_start_flows(text, jsonb, text[], jsonb, int, uuid),
  pgflow.client_get_run(uuid, boolean),
  pgflow.client_get_run_events(uuid, bigint, boolean),
  pgflow.client_list_runs(text, text, jsonb, uuid, uuid, int, uuid),
  pgflow.client_cancel_run(uuid, text),
  pgflow.client_retry_run(uuid)
to anon, authenticated, service_role;

grant execute on function pgflow.can_read_topic(text) to authenticated;
-- For teams that grant the tables to their users, whose policies call these.
grant execute on function pgflow.can_access_run(uuid, uuid, uuid, text), pgflow.current_user_id() to authenticated;

grant execute on function pgflow.forget_owner(uuid, int), pgflow_public.forget_owner(uuid, int) to service_role;

-- Workers with a secret key. What they call runs as the owner, since the service role has no rights on the tables.

do $$
declare
  for_workers regprocedure;
begin
  foreach for_workers in array array[
    'pgflow.register_flow', 'pgflow.register_worker', 'pgflow.settle_and_claim', 'pgflow.heartbeat', 'pgflow.hand_back',
    'pgflow.report_progress', 'pgflow.fetch_value', 'pgflow.stop_worker'
  ]::regproc[]::oid[]::regprocedure[] loop
    execute format('alter function %s security definer', for_workers);
    execute format('grant execute on function %s to service_role', for_workers);
  end loop;
end
$$;

grant execute on function
  pgflow_public.register_flow(jsonb),
  pgflow_public.register_worker(uuid, text, text[]),
  pgflow_public.settle_and_claim(jsonb, text[], int, uuid, int, int),
  pgflow_public.heartbeat(uuid, jsonb, int),
  pgflow_public.hand_back(jsonb),
  pgflow_public.report_progress(jsonb),
  pgflow_public.fetch_value(uuid, text, text),
  pgflow_public.stop_worker(uuid)
to service_role;
