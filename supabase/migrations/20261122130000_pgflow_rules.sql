-- Chapter 34: rules. Who the caller is, what they may do with a run, and what they may start.

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

-- Whether the caller may do something with a run that exists; what they may not view, they may not change either.
create function pgflow.caller_may(run_id uuid, action text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_can_access_run(caller_may.run_id, caller_may.action);
  return true;
exception
  when sqlstate 'PT403' or sqlstate 'PT404' then return false;
end
$$;

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

-- Refuses a start that is not for the caller to make. The service role may start everything.
create function pgflow.assert_may_start(
  flow_slug text,
  inputs jsonb,
  idempotency_keys text[],
  group_id uuid,
  priority text default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow pgflow.flows := pgflow.lock_flow(assert_may_start.flow_slug);
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
  if array_position(array['low', 'normal', 'high'], assert_may_start.priority)
     > array_position(array['low', 'normal', 'high'], flow.priority) then
    raise exception using
      errcode = 'PT403',
      message = format('you may not start flow "%s" with priority %s', assert_may_start.flow_slug, assert_may_start.priority),
      detail = format('the priority of the flow is %s', flow.priority),
      hint = 'Ask for the flow''s own priority or a lower one, start it on the server with a secret key, or define the flow with a higher one.';
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

-- Raises PT400 or PT413 where what a client sends to sync is not an object of up to 1,000 run ids with the seq of an event each.
create function pgflow.assert_are_cursors(cursors jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  quantity int;
  wrong text;
begin
  if jsonb_typeof(cursors) is distinct from 'object' then
    raise exception using
      errcode = 'PT400',
      message = 'the cursors are not an object',
      hint = 'Give them as {"<run_id>": <seq of the last event that is known>}.';
  end if;
  select count(*), min(c.key || ': ' || c.value) filter (
    where c.key !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' or c.value::text !~ '^([0-9]{1,18}|null)$'
  )
  into quantity, wrong
  from jsonb_each(cursors) c;
  if quantity > 1000 then
    raise exception using
      errcode = 'PT413',
      message = format('%s cursors are too many for one call', quantity),
      hint = 'Ask for up to 1,000 runs in a call, and for the others in further calls.';
  end if;
  if wrong is not null then
    raise exception using
      errcode = 'PT400',
      message = format('this is no cursor: %s', left(wrong, 200)),
      hint = 'A cursor is the id of a run with the seq of the last event that is known of it: a whole number, or null.';
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
