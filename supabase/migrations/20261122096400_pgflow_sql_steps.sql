-- Chapter 21: steps whose work is an SQL function, which the clock calls.
--
-- The task of such a step is `waiting` for `sql`, and an alarm says from when on. Whoever takes the alarm calls the function and settles
-- the task in the same transaction, in a savepoint: what the function writes and the completion are committed together, or neither. A
-- transaction that is lost on the way brings the alarm back. No lock of the run is held while the function runs, so that it can be
-- cancelled meanwhile: then what the function has written is rolled back.
--
-- Functions run as the owner of these functions (in Supabase postgres), with the planner's settings of the session, without claims.

-- What keeps a function from being called as function(jsonb), in words; null where nothing does.
--   select pgflow.function_problem('public.save_embeddings');
create function pgflow.function_problem(name text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  function pg_proc;
begin
  select p.* into function from pg_proc p where p.oid = to_regprocedure(function_problem.name || '(jsonb)')::oid;
  return case
    when function.oid is null then 'it does not exist'
    when function.prokind <> 'f' then 'it is no function, but ' || case function.prokind
      when 'p' then 'a procedure' when 'a' then 'an aggregate' else 'a window function'
    end
    when function.proretset then 'it returns a set'
    when function.prorettype <> 'jsonb'::regtype then format('it returns %s, not jsonb', function.prorettype::regtype)
    when not has_function_privilege(function.oid, 'execute') then format('the role %s may not execute it', current_user)
  end;
end
$$;

-- Raises PT404 or PT400 where a function that a definition's steps call cannot be called, PT403 where the caller itself may not call it.
create function pgflow.assert_functions(definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  step pgflow.step_definition;
  problem text;
begin
  for step in
    select s.* from jsonb_populate_recordset(null::pgflow.step_definition, definition -> 'steps') s where s.sql_function is not null
  loop
    problem := pgflow.function_problem(step.sql_function);
    if problem is null and not has_function_privilege(
      pgflow.caller_role(), to_regprocedure(step.sql_function || '(jsonb)')::oid, 'execute'
    ) then
      problem := format('the role %s may not execute it', pgflow.caller_role());
    end if;
    if problem like 'the role %' then
      raise exception using
        errcode = 'PT403',
        message = format('step "%s" cannot call the function %s(jsonb): %s', step.step_slug, step.sql_function, problem),
        hint = format('Grant it: grant execute on function %s(jsonb) to …', step.sql_function);
    elsif problem = 'it does not exist' then
      raise exception using
        errcode = 'PT404',
        message = format('step "%s" cannot call the function %s(jsonb): %s', step.step_slug, step.sql_function, problem),
        detail = (
          select coalesce('others of this name: ' || string_agg(p.oid::regprocedure::text, ', ' order by p.oid), 'there is no other of this name')
          from parse_ident(step.sql_function) parts
          join pg_namespace n on n.nspname = parts[1]
          join pg_proc p on p.pronamespace = n.oid and p.proname = parts[2]
        ),
        hint = format('Create it before: create function %s(payload jsonb) returns jsonb …', step.sql_function);
    elsif problem is not null then
      raise exception using
        errcode = 'PT400',
        message = format('step "%s" cannot call the function %s(jsonb): %s', step.step_slug, step.sql_function, problem),
        hint = format('Define it so: create function %s(payload jsonb) returns jsonb …', step.sql_function);
    end if;
  end loop;
end
$$;

-- The tasks of SQL steps that have started: each waits for the next tick.
create function pgflow.create_sql_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with
    step as (
      select ss.run_id, s.step_slug, s.flow_slug,
             create_sql_tasks.as_of
               + make_interval(secs => coalesce(s.opt_start_delay, 0)::float8 + create_sql_tasks.delay) as due_at
      from unnest(create_sql_tasks.steps) k
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s using (flow_slug, step_slug)
      where ss.status = 'started' and s.step_type = 'sql'
    ),
    task as (
      insert into pgflow.step_tasks as old (run_id, step_slug, task_index, flow_slug, status, waits_for, queued_at)
      select s.run_id, s.step_slug, 0, s.flow_slug, 'waiting', 'sql', create_sql_tasks.as_of
      from step s
      on conflict (run_id, step_slug, task_index) do update
      set status = 'waiting',
          waits_for = excluded.waits_for,
          attempts_before = old.attempts_count,
          error_message = null,
          queued_at = excluded.queued_at,
          failed_at = null
    )
  insert into pgflow.alarms (due_at, kind, run_id, step_slug)
  select s.due_at, 'sql', s.run_id, s.step_slug from step s;
end
$$;

create type pgflow.sql_call as (
  run_id uuid,
  step_slug text,
  flow_slug text,
  queued_at timestamptz,
  timeout int
);
comment on type pgflow.sql_call is
  'A function that is due; queued_at says since when its task waits, so that a retry of the run is noticed; the timeout is in seconds.';

-- Takes the alarm of a function that is due and that nobody else calls at the moment; of those with a timeout of so many seconds, if that
-- is given. Null where there is none; queued_at is null where the alarm came in vain.
create function pgflow.take_call(timeout int)
returns pgflow.sql_call
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  call pgflow.sql_call;
begin
  with
    due as (
      select a.due_at, a.alarm_id, r.flow_slug, o.timeout
      from pgflow.alarms a
      left join pgflow.runs r using (run_id)
      left join pgflow.step_options o on o.flow_slug = r.flow_slug and o.step_slug = a.step_slug
      where a.kind = 'sql' and a.due_at <= pgflow.now()
        and (take_call.timeout is null or coalesce(o.timeout, take_call.timeout) = take_call.timeout)
      order by a.due_at, a.alarm_id
      limit 1
      for update of a skip locked
    ),
    taken as (
      delete from pgflow.alarms a using due d
      where (a.due_at, a.alarm_id) = (d.due_at, d.alarm_id)
      returning a.run_id, a.step_slug, d.flow_slug, d.timeout
    )
  select c.run_id, c.step_slug, c.flow_slug, (
           select t.queued_at from pgflow.step_tasks t
           where t.run_id = c.run_id and t.step_slug = c.step_slug and t.task_index = 0 and t.waits_for = 'sql'
         ), c.timeout
  into call
  from taken c;
  return call;
end
$$;

-- Calls the functions of SQL steps that are due, one after the other, up to `quantity`; answers how many. It begins none after 100 ms,
-- so that their transaction is short. Runs that another transaction has locked are left for later.
--   select pgflow.call_functions();
create function pgflow.call_functions(quantity int default 1)
returns int
language plpgsql
security definer -- workers with a secret key have no rights on the tables
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
  last_start constant timestamptz := clock_timestamp() + interval '100 milliseconds';
  -- What call_timeout has said in this transaction: it holds for the statement.
  timeout int := nullif(current_setting('pgflow.call_timeout', true), '')::int;
  called int := 0;
  made int := 0;
  made_call boolean;
  call pgflow.sql_call;
begin
  while called < coalesce(call_functions.quantity, 0) and (made = 0 or clock_timestamp() < last_start) loop
    call := pgflow.take_call(timeout);
    exit when call.run_id is null;
    called := called + 1;
    continue when call.queued_at is null;
    timeout := call.timeout;
    if pgflow.is_held(call.run_id) then
      made_call := false;
    else
      made := made + 1;
      made_call := pgflow.make_call(call, wait => made = 1);
    end if;
    if not made_call then
      insert into pgflow.alarms (due_at, kind, run_id, step_slug)
      values (pgflow.now() + interval '50 milliseconds', 'sql', call.run_id, call.step_slug);
    end if;
  end loop;
  return called;
end
$$;
comment on function pgflow.call_functions is
  'Calls functions of SQL steps that are due and settles their tasks, each in a savepoint; answers how many. It begins none after 100 ms.';

-- The statements that check at once what is otherwise checked at commit: a constraint that is violated then would fail the transaction,
-- whose alarm would come back for ever. Constraints are as their definitions say after them.
create function pgflow.constraint_checks()
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array_remove(array(
    select 'set constraints ' || string_agg(format('%I.%I', n.nspname, c.conname), ', ') filter (where c.condeferred or mode = 'immediate') || ' ' || mode
    from pg_constraint c
    join pg_namespace n on n.oid = c.connamespace
    cross join unnest(array['immediate', 'deferred']) mode
    where c.condeferrable and n.nspname <> 'pgflow' and has_schema_privilege(n.oid, 'usage')
    group by mode
    order by mode desc
  ), null);
end
$$;

-- The settings of a session that a function may change for itself only. The search_path is an argument, since this function has its own.
create function pgflow.settings_of_calls(search_path text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array['search_path is ' || settings_of_calls.search_path] || array(
    select concat(name, ' is ', current_setting(name, true))
    from unnest(array[
      'role', 'statement_timeout', 'lock_timeout', 'timezone', 'plan_cache_mode', 'enable_seqscan', 'enable_indexscan',
      'enable_indexonlyscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_material', 'join_collapse_limit', 'jit'
    ]) name
  );
end
$$;

-- Sets the claims that auth.uid() and others read, and answers with those before. With `clear`, those before are not those of the
-- session either, in case that a function has set them there.
create function pgflow.exchange_claims(claims text[], clear boolean)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  names constant text[] := '{request.jwt.claims,request.jwt.claim.sub,request.jwt.claim.role}';
  before text[] := '{}';
begin
  for n in 1 .. 3 loop
    before := before || coalesce(current_setting(names[n], true), '');
    if clear and before[n] <> '' then
      perform set_config(names[n], '', false);
    end if;
    if claims[n] <> coalesce(current_setting(names[n], true), '') then
      perform set_config(names[n], claims[n], true);
    end if;
  end loop;
  return before;
end
$$;

-- Calls a function and settles its task. False where it has to be called again, since, without `wait`, another transaction has locked
-- its run. A task that is closed by now, or another one since its run was retried, is left as it is; what the function wrote is rolled back.
create function pgflow.make_call(call pgflow.sql_call, wait boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  longest constant interval := current_setting('statement_timeout')::interval;
  errors text[];
  settings constant text[] := pgflow.settings_of_calls(current_setting('search_path'));
  step constant pgflow.steps := (
    select s from pgflow.steps s where s.flow_slug = call.flow_slug and s.step_slug = call.step_slug
  );
  claims text[];
  outcome text := 'failed';
  output jsonb;
  message text;
  summary text;
  detail text;
  advice text;
  code text;
  context text;
begin
  begin
    claims := pgflow.exchange_claims(array['', '', ''], clear => false);
    output := pgflow.call_function(step.sql_function, (
      select i.input from pgflow.step_inputs i where i.run_id = call.run_id and i.step_slug = call.step_slug
    ));
    perform pgflow.exchange_claims(claims, clear => true);
    if pgflow.settings_of_calls(current_setting('search_path')) <> settings then
      raise exception using
        errcode = 'PT400',
        message = format('it has changed a setting of the session: %s', (
          select string_agg(s, ', ') from unnest(pgflow.settings_of_calls(current_setting('search_path'))) s where s <> all (settings)
        )),
        hint = 'Change it for the function alone: set local, set_config(…, true), or the function''s own clause SET.';
    end if;
    errors := case when step.output_schema is not null then pgflow.schema_errors(step.output_schema, coalesce(output, 'null')) end;
    if errors <> '{}' then
      raise exception using
        errcode = 'PT400',
        message = format('its output is not what its schema says: %s', errors[1]),
        detail = array_to_string(errors, '; '),
        hint = 'The step''s output_schema says what the function returns.';
    end if;
    outcome := pgflow.settle_call(call, wait, null, jsonb_build_array(jsonb_build_object('output', output)));
    if outcome <> 'settled' then
      raise sqlstate 'PT000'; -- what the function wrote is let go
    end if;
    return true;
  exception
    when others or query_canceled or assert_failure then
      get stacked diagnostics
        message = message_text, detail = pg_exception_detail, advice = pg_exception_hint, code = returned_sqlstate,
        context = pg_exception_context;
      if message = 'canceling statement due to user request' then
        raise; -- the alarm comes back with the transaction
      end if;
  end;
  if outcome = 'held' then
    return false;
  elsif outcome = 'stale' then
    -- Not where it was somebody else: the task is closed then.
    message := 'its function has closed its task, or ended its run';
    code := 'PT409';
    advice := 'Let it return the output, or raise an exception.';
  elsif code = '57014' and longest > interval '0' and clock_timestamp() - statement_timestamp() >= longest then
    summary := format('step "%s" timed out after %s s', call.step_slug, extract(epoch from longest)::float8);
    advice := 'Give the step a longer timeout, or the function less to do.';
  end if;
  summary := coalesce(summary, format('step "%s" failed: %s', call.step_slug, message));
  outcome := pgflow.settle_call(call, wait, summary, '[]');
  if outcome = 'settled' then
    update pgflow.step_tasks t
    set last_error = jsonb_strip_nulls(jsonb_build_object(
          'name', 'DatabaseError', 'message', left(message, 8000), 'code', code, 'detail', nullif(left(detail, 8000), ''),
          'hint', nullif(left(advice, 8000), ''), 'stack', nullif(left(context, 8000), '')
        ))
    where t.run_id = call.run_id and t.step_slug = call.step_slug and t.task_index = 0;
  end if;
  return outcome <> 'held';
end
$$;

-- Whether another transaction has locked a run that goes on. The lock that says so is let go.
create function pgflow.is_held(run_id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  held boolean;
begin
  held := pgflow.lock_runs(array[is_held.run_id], wait => false) = '{}'
    and exists (select from pgflow.runs r where r.run_id = is_held.run_id and r.status = 'started');
  raise sqlstate 'PT000';
exception
  when sqlstate 'PT000' then
    return held;
end
$$;

-- Locks a run: false where it has ended, null where another transaction has it. It waits for less than it takes to find a deadlock, so
-- that there is none, whatever the function of a call has locked.
create function pgflow.try_to_lock_run(run_id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
begin
  return pgflow.lock_runs(array[try_to_lock_run.run_id], wait => true) <> '{}';
exception
  when lock_not_available then
    return null;
end
$$;

-- Settles the task of a call, unless it is closed, or another one since its run was retried: settled, stale, or held by another transaction,
-- with `wait` for two seconds.
create function pgflow.settle_call(call pgflow.sql_call, wait boolean, error text, outputs jsonb)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked boolean;
begin
  for attempt in 1 .. case when settle_call.wait then 4 else 0 end loop
    locked := pgflow.try_to_lock_run(call.run_id);
    exit when locked is not null;
  end loop;
  if locked is null and pgflow.lock_runs(array[call.run_id], wait => false) = '{}' and exists (
    select from pgflow.runs r where r.run_id = call.run_id and r.status = 'started'
  ) then
    return 'held';
  end if;
  if not exists (
    select from pgflow.runs r where r.run_id = call.run_id and r.status = 'started'
  ) or not exists (
    select from pgflow.step_tasks t
    where t.run_id = call.run_id and t.step_slug = call.step_slug and t.task_index = 0
      and t.waits_for = 'sql' and t.queued_at = call.queued_at
  ) then
    return 'stale';
  end if;
  perform pgflow.settle(
    array[row(call.run_id, call.step_slug, 0, null, settle_call.error, null, null, null)::pgflow.task_result],
    outputs => settle_call.outputs
  );
  return 'settled';
end
$$;

-- Calls a function with the settings that it has anywhere else: the defaults of the session. The clauses SET are here since they bring back
-- what was set before; their values do not matter.
create function pgflow.call_function(name text, payload jsonb)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
set statement_timeout = 0
set lock_timeout = '3s'
set timezone = 'UTC'
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_indexscan = off
set enable_indexonlyscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  problem constant text := pgflow.function_problem(call_function.name);
  call constant text := format('select %s($1)', call_function.name);
  checks constant text[] := pgflow.constraint_checks();
  statement text;
  output jsonb;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT404',
      message = format('the function %s(jsonb) cannot be called: %s', call_function.name, problem),
      hint = format('Create it: create function %s(payload jsonb) returns jsonb …', call_function.name);
  end if;
  perform set_config(setting, null, true)
  from unnest(array[
    'statement_timeout', 'lock_timeout', 'timezone', 'plan_cache_mode', 'enable_seqscan', 'enable_indexscan', 'enable_indexonlyscan',
    'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_material', 'join_collapse_limit', 'jit'
  ]) setting;
  -- Temporary objects of the session last, since the function has the owner's rights.
  perform set_config('search_path', '"$user", public, extensions, pg_temp', true);
  execute call into output using payload;
  foreach statement in array checks loop
    execute statement;
  end loop;
  return output;
end
$$;

-- Milliseconds that the next call may take, which is the timeout of its step; null where no function is due. Nothing can limit a statement
-- from within: so set it in a statement before, of the same transaction, in which only calls with this timeout are made then.
--   select set_config('statement_timeout', pgflow.call_timeout()::text, true); select pgflow.tick();
create function pgflow.call_timeout()
returns int
language plpgsql
security definer -- workers with a secret key have no rights on the tables
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
  timeout int := (
    select coalesce(o.timeout, 1)
    from pgflow.alarms a
    left join pgflow.runs r using (run_id)
    left join pgflow.step_options o on o.flow_slug = r.flow_slug and o.step_slug = a.step_slug
    where a.kind = 'sql' and a.due_at <= pgflow.now()
    order by a.due_at, a.alarm_id
    limit 1
    for key share of a skip locked
  );
begin
  perform set_config('pgflow.call_timeout', coalesce(timeout, 0)::text, true);
  return least(2147483, timeout) * 1000;
end
$$;
comment on function pgflow.call_timeout is
  'Milliseconds that the next function of an SQL step may take, for the setting statement_timeout; null where none is due.';

-- In how many seconds a function is to be called, of those that nobody calls at the moment; null for none.
create function pgflow.next_call_in()
returns float8
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return (
    select extract(epoch from a.due_at - pgflow.now())
    from pgflow.alarms a
    where a.kind = 'sql'
    order by a.due_at, a.alarm_id
    limit 1
    for key share skip locked
  );
end
$$;
comment on function pgflow.next_call_in is
  'Seconds until the next function of an SQL step is to be called, of those that nobody calls at the moment; null for none.';

-- Lets functions be called whose tasks wait although their alarms are lost.
create function pgflow.recheck_calls()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgflow.alarms (due_at, kind, run_id, step_slug)
  select pgflow.now(), 'sql', t.run_id, t.step_slug
  from pgflow.step_tasks t
  where t.waits_for <> 'slot' and t.waits_for = 'sql'
    and not exists (
      select from pgflow.alarms a where a.kind = 'sql' and (a.run_id, a.step_slug) = (t.run_id, t.step_slug)
    );
end
$$;
