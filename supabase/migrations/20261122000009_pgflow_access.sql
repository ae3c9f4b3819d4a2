-- Chapter 9: who may do what. All grants, policies and the exposed API.
--
-- Clients reach nothing but pgflow_public. Its functions run as their caller and call the few definer functions here,
-- which look at who the caller is. Tables have row level security and no grants to clients: a second wall.

-- The role that the caller acts as, also inside definer functions.
create function pgflow.caller_role()
returns text
language sql
stable
set search_path = ''
as $$
  select coalesce(nullif(current_setting('role', true), 'none'), session_user)
$$;

-- Whether the caller is the service role or above it, and so not bound by ownership.
create function pgflow.caller_is_service()
returns boolean
language sql
stable
set search_path = ''
as $$
  select pg_has_role(pgflow.caller_role(), 'service_role', 'member')
$$;

-- Whether the signed-in user may see, cancel and retry a run. Replace it to share runs, for instance within teams:
--   create or replace function pgflow.can_access_run(run_id uuid, owner_id uuid) returns boolean …
create function pgflow.can_access_run(run_id uuid, owner_id uuid)
returns boolean
language sql
stable
set search_path = ''
as $$
  select coalesce(owner_id = pgflow.current_user_id(), false)
$$;
comment on function pgflow.can_access_run is 'Decides which runs a signed-in user may access; replaceable. Default: their own.';

-- Raises PT404 where a run does not exist, or is not the caller's.
create function pgflow.assert_can_access_run(run_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if not exists (
    select from pgflow.runs r
    where r.run_id = assert_can_access_run.run_id
      and (pgflow.caller_is_service() or pgflow.can_access_run(r.run_id, r.owner_id))
  ) then
    raise exception using
      errcode = 'PT404',
      message = format('run %s does not exist, or is not yours', coalesce(assert_can_access_run.run_id::text, 'null')),
      hint = 'Sign in as the user who started the run, and check its id.';
  end if;
end
$$;

-- A run with its step states and the number of the last event in it, from one look at the database.
create function pgflow.snapshot(run_id uuid)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select to_jsonb(r) - 'remaining_steps' || jsonb_build_object(
    'seq', pgflow.last_seq(r.run_id),
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
  watch boolean
)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the flow's start_role decides
set search_path = ''
as $$
declare
  required text := (select f.start_role from pgflow.flows f where f.flow_slug = client_start_flow.flow_slug);
  run pgflow.runs;
begin
  if required <> 'anon' and not pgflow.caller_is_service() and not pg_has_role(pgflow.caller_role(), required, 'member') then
    raise exception using
      errcode = 'PT403',
      message = format('the role %s may not start flow "%s"', pgflow.caller_role(), client_start_flow.flow_slug),
      detail = format('its start_role is %s', required),
      hint = case required
        when 'authenticated' then 'Sign in first.'
        else 'Start it on the server with a secret key, or define the flow with start_role authenticated.'
      end;
  end if;
  run := pgflow.start_flow(
    client_start_flow.flow_slug, client_start_flow.input,
    idempotency_key => client_start_flow.idempotency_key, metadata => client_start_flow.metadata
  );
  if client_start_flow.watch then
    perform pgflow.watch_run(run.run_id);
  end if;
  return pgflow.snapshot(run.run_id);
end
$$;

create function pgflow.client_get_run(run_id uuid, watch boolean)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; can_access_run decides
set search_path = ''
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run.run_id);
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
set search_path = ''
as $$
begin
  perform pgflow.assert_can_access_run(client_get_run_events.run_id);
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

-- The exposed API.

-- Starts a run of a flow and answers with its snapshot.
--   supabase.schema('pgflow_public').rpc('start_flow', { flow_slug: 'analyze_document', input: { path: 'README.md' } })
create function pgflow_public.start_flow(
  flow_slug text,
  input jsonb,
  idempotency_key text default null,
  metadata jsonb default null,
  watch boolean default false
)
returns jsonb
language sql
set search_path = ''
as $$
  -- PostgREST passes the JSON value null as SQL's.
  select pgflow.client_start_flow(flow_slug, coalesce(input, 'null'), idempotency_key, metadata, watch)
$$;
comment on function pgflow_public.start_flow(text, jsonb, text, jsonb, boolean) is
  'Starts a run of a flow and answers with its snapshot. watch: broadcast its events for five minutes.';

-- The same without an input is an error that says so.
create function pgflow_public.start_flow(
  flow_slug text,
  idempotency_key text default null,
  metadata jsonb default null,
  watch boolean default false
)
returns jsonb
language sql
set search_path = ''
as $$
  select pgflow.client_start_flow(flow_slug, null, idempotency_key, metadata, watch)
$$;
comment on function pgflow_public.start_flow(text, text, jsonb, boolean) is 'Says that the input is missing.';

-- The snapshot of a run: its row, its step states, and `seq`, the number of the last event in it.
--   supabase.schema('pgflow_public').rpc('get_run', { run_id })
create function pgflow_public.get_run(run_id uuid, watch boolean default false)
returns jsonb
language sql
set search_path = ''
as $$
  select pgflow.client_get_run(run_id, watch)
$$;
comment on function pgflow_public.get_run is 'The snapshot of a run. watch: broadcast its events for five minutes.';

-- Up to 1,000 events of a run after the one numbered `after`, in order.
--   supabase.schema('pgflow_public').rpc('get_run_events', { run_id, after: 3 })
create function pgflow_public.get_run_events(run_id uuid, after bigint default 0, watch boolean default false)
returns jsonb
language sql
set search_path = ''
as $$
  select pgflow.client_get_run_events(run_id, after, watch)
$$;
comment on function pgflow_public.get_run_events is
  'Up to 1,000 events of a run after `after`. watch: broadcast its events for five minutes.';

-- Row level security: the own runs for users, where somebody grants them the tables; everything else is closed.

alter table pgflow.flows enable row level security;
alter table pgflow.flow_aliases enable row level security;
alter table pgflow.steps enable row level security;
alter table pgflow.deps enable row level security;
alter table pgflow.runs enable row level security;
alter table pgflow.step_states enable row level security;
alter table pgflow.step_tasks enable row level security;
alter table pgflow.run_events enable row level security;
alter table pgflow.run_watches enable row level security;
alter table pgflow.workers enable row level security;

create policy own_runs on pgflow.runs for select to authenticated
  using (pgflow.can_access_run(run_id, owner_id));
create policy own_step_states on pgflow.step_states for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = step_states.run_id));
create policy own_run_events on pgflow.run_events for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = run_events.run_id));

create policy closed on pgflow.flows for all to anon, authenticated using (false);
create policy closed on pgflow.flow_aliases for all to anon, authenticated using (false);
create policy closed on pgflow.steps for all to anon, authenticated using (false);
create policy closed on pgflow.deps for all to anon, authenticated using (false);
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
set search_path = ''
as $$
  select exists (
    select from pgflow.runs r
    where r.run_id = case
        when can_read_topic.topic ~ '^pgflow:run:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
        then substr(can_read_topic.topic, 12)::uuid
      end
      and pgflow.can_access_run(r.run_id, r.owner_id)
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
  pgflow_public.start_flow(text, jsonb, text, jsonb, boolean),
  pgflow_public.start_flow(text, text, jsonb, boolean),
  pgflow_public.get_run(uuid, boolean),
  pgflow_public.get_run_events(uuid, bigint, boolean),
  pgflow.client_start_flow(text, jsonb, text, jsonb, boolean),
  pgflow.client_get_run(uuid, boolean),
  pgflow.client_get_run_events(uuid, bigint, boolean)
to anon, authenticated, service_role;

grant execute on function pgflow.can_read_topic(text) to authenticated;
-- For teams that grant the tables to their users, whose policies call these.
grant execute on function pgflow.can_access_run(uuid, uuid), pgflow.current_user_id() to authenticated;
