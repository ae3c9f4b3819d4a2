-- Chapter 17: steps that no worker runs. A wait is completed by somebody, a sleep by the time.
--
-- Their task has no message: it is `waiting`, for a signal or for a time, until complete_wait, reject_wait or tick settles it, with
-- the events, locks and rules of any other task. Nothing is held meanwhile.
--
-- Who is asked is decided when a wait begins, and kept in wait_assignees, so that a list of what somebody may decide reads an index.

-- The times of sleeps: an ISO date, with a time or without, in UTC unless it names its zone; or seconds since 1970. Null for
-- anything else, milliseconds included, which would be a year with five digits.
--   select pgflow.time_of('"2030-01-31T08:00:00+01:00"');
create function pgflow.time_of(value jsonb)
returns timestamptz
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  text text := value #>> '{}';
begin
  if jsonb_typeof(value) = 'number' then
    return case when abs(text::numeric) < 253402300800 then to_timestamp(text::float8) end;
  elsif jsonb_typeof(value) = 'string' and text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
    return (text || 'T00:00Z')::timestamptz;
  elsif jsonb_typeof(value) = 'string' and text ~ (
    '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?$'
  ) then
    return (text || case when text ~ '(Z|[+-][0-9]{2}(:?[0-9]{2})?)$' and length(text) > 16 then '' else 'Z' end)::timestamptz;
  end if;
  return null;
exception
  when data_exception then
    return null; -- the 30th of February
end
$$;

-- The ids of users that a value names: one, or an array of 1 to 1,000. Null for anything else.
create function pgflow.user_ids_of(value jsonb)
returns uuid[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if jsonb_typeof(value) = 'string' then
    value := jsonb_build_array(value);
  end if;
  if jsonb_typeof(value) is distinct from 'array' or jsonb_array_length(value) not between 1 and 1000 or exists (
    select from jsonb_array_elements(value) e (id)
    where jsonb_typeof(e.id) <> 'string' or e.id #>> '{}' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
      or (e.id #>> '{}')::uuid = pgflow.everybody()
  ) then
    return null;
  end if;
  return array(select distinct id::uuid from jsonb_array_elements_text(value) id);
end
$$;

-- What stands in wait_assignees for everybody who is signed in.
create function pgflow.everybody()
returns uuid
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '00000000-0000-0000-0000-000000000000'::uuid
$$;

-- Whom a wait asks, of a run with such an owner; null where the value at its path names no users, or only the owner, who may
-- not decide. Empty where it asks the service role alone.
create function pgflow.asked_users(step pgflow.steps, owner_id uuid, value jsonb)
returns uuid[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case step.completed_by
    when 'assignees' then nullif(
      case when step.not_by_owner then array_remove(pgflow.user_ids_of(value), owner_id) else pgflow.user_ids_of(value) end, '{}'
    )
    when 'authenticated' then array[pgflow.everybody()]
    when 'owner' then case when owner_id is null or step.not_by_owner then '{}'::uuid[] else array[owner_id] end
    else '{}'
  end;
end
$$;

-- Of what was decided about steps, the waits and sleeps: they start, or fail where a value at a path is not what it has to be. A
-- sleep until a time in the past completes at once. Delays count from `delay` seconds after `as_of`.
create function pgflow.begin_waits(changes pgflow.step_change[], as_of timestamptz, delay int)
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(select c from unnest(changes) c where c.change <> 'waiting') || array(
    with
      wait as (
        select c.run_id, s as step, s.flow_slug, s.step_slug, s.step_type, coalesce(s.assignees_path, s.until_path) as path, (
                 select i.input #> string_to_array(coalesce(s.assignees_path, s.until_path), '.')
                 from pgflow.step_inputs i
                 where i.run_id = c.run_id and i.step_slug = c.step_slug and coalesce(s.assignees_path, s.until_path) is not null
               ) as value, (
                 select r.owner_id from pgflow.runs r where r.run_id = c.run_id
               ) as owner_id
        from unnest(changes) c
        join pgflow.steps s on s.flow_slug = c.flow_slug and s.step_slug = c.step_slug
        where c.change = 'waiting'
      ),
      timed as (
        select w.*, case
            when (w.step).until_path is not null then pgflow.time_of(w.value)
            else as_of + make_interval(secs => begin_waits.delay::float8 + coalesce((w.step).opt_sleep_for, (w.step).opt_timeout))
          end as due_at, case
            when w.step_type = 'wait' then pgflow.asked_users(w.step, w.owner_id, w.value)
          end as asked
        from wait w
      )
    select row(begun.*)::pgflow.step_change
    from timed w
    cross join lateral (
      select case
        when w.step_type = 'sleep' and w.due_at is null then
          format('step "%s" cannot sleep until %s: it is %s, not an ISO date or seconds since 1970',
            w.step_slug, w.path, coalesce(left(w.value::text, 100), 'missing'))
        when w.step_type = 'wait' and w.asked is null then
          format('step "%s" cannot ask %s: it %s', w.step_slug, w.path, case
            when pgflow.user_ids_of(w.value) is not null then 'names only the owner of the run, who may not decide'
            else format('is %s, not the id of a user or an array of them', coalesce(left(w.value::text, 100), 'missing'))
          end)
      end
    ) as problem (error)
    cross join lateral (
      select case
        when problem.error is not null then 'failed'
        when w.step_type = 'sleep' and w.due_at <= as_of then 'completed'
        else 'started'
      end
    ) as next (change)
    cross join lateral (
      select w.run_id, w.flow_slug, w.step_slug, next.change,
             null::bigint as result_n,
             problem.error,
             null as skip_reason,
             null::boolean as cascade,
             case next.change when 'started' then 1 when 'completed' then 0 end as tasks,
             case next.change when 'started' then 1 when 'completed' then 0 end as items,
             0 as retries,
             null::timestamptz as retry_at,
             case when next.change = 'started' then case w.step_type when 'wait' then 'signal' else 'time' end end as waits_for,
             case next.change when 'started' then w.due_at end as due_at
    ) begun
  );
end
$$;

-- The tasks of waits and sleeps that have started, and whom they ask.
create function pgflow.create_waiting_tasks(steps pgflow.step_key[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  waits pgflow.step_key[];
begin
  with task as (
    insert into pgflow.step_tasks as old (run_id, step_slug, task_index, flow_slug, status, waits_for, due_at, queued_at)
    select ss.run_id, ss.step_slug, 0, ss.flow_slug, 'waiting', ss.waits_for, ss.due_at, create_waiting_tasks.as_of
    from unnest(create_waiting_tasks.steps) k
    join pgflow.step_states ss using (run_id, step_slug)
    where ss.status = 'started' and ss.waits_for in ('signal', 'time')
    on conflict (run_id, step_slug, task_index) do update
    set status = 'waiting',
        waits_for = excluded.waits_for,
        due_at = excluded.due_at,
        attempts_before = old.attempts_count,
        error_message = null,
        queued_at = excluded.queued_at,
        failed_at = null
    returning run_id, step_slug, waits_for
  )
  select array_agg(row(t.run_id, t.step_slug)::pgflow.step_key) filter (where t.waits_for = 'signal') into waits from task t;
  if waits is null then
    return;
  end if;
  delete from pgflow.wait_assignees w using unnest(waits) k where (w.run_id, w.step_slug) = (k.run_id, k.step_slug);
  insert into pgflow.wait_assignees (run_id, step_slug, user_id, flow_slug, started_at)
  select k.run_id, k.step_slug, asked.user_id, r.flow_slug, create_waiting_tasks.as_of
  from unnest(waits) k
  join pgflow.runs r using (run_id)
  join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = k.step_slug
  cross join lateral unnest(pgflow.asked_users(s, r.owner_id, (
    select i.input #> string_to_array(s.assignees_path, '.')
    from pgflow.step_inputs i
    where s.completed_by = 'assignees' and i.run_id = k.run_id and i.step_slug = k.step_slug
  ))) asked (user_id)
  where s.completed_by <> 'service_role';
end
$$;

-- Notes that waits are over, for those who were asked. The caller holds the runs; what is locked all the same is being deleted by
-- forget_owner, which could wait for this transaction.
create function pgflow.close_waits(waits pgflow.step_key[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.wait_assignees w set is_open = false
  from (
    select asked.run_id, asked.step_slug, asked.user_id
    from unnest(close_waits.waits) k
    join pgflow.wait_assignees asked using (run_id, step_slug)
    where asked.is_open
    for no key update of asked skip locked
  ) open
  where (w.run_id, w.step_slug, w.user_id) = (open.run_id, open.step_slug, open.user_id);
end
$$;

-- Who completed a wait before it began.
create function pgflow.early_answer_by(run_id uuid, step_slug text)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (
    select w.user_id from pgflow.wait_assignees w
    where w.run_id = early_answer_by.run_id and w.step_slug = early_answer_by.step_slug and w.has_answered
    limit 1
  );
end
$$;

-- Completes a wait. The first value counts: the same one again is a success, another one is an error. Before the wait begins the
-- value is kept. The service role and SQL may complete any; for clients, pgflow_public.complete_wait looks at who they are.
--   select pgflow.complete_wait('…', 'approval', '{"approved": true}');
create function pgflow.complete_wait(run_id uuid, step_slug text, output jsonb default 'null')
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
#variable_conflict use_column
declare
  value jsonb := coalesce(complete_wait.output, 'null');
  run pgflow.runs := pgflow.locked_run(complete_wait.run_id);
  state pgflow.step_states := pgflow.state_of_wait(run, complete_wait.step_slug);
  kept jsonb := state.output;
begin
  if state.status = 'created' then
    kept := (
      select t.output from pgflow.step_tasks t
      where t.run_id = run.run_id and t.step_slug = state.step_slug and t.task_index = 0 and t.status = 'completed'
    );
  end if;
  if kept = value then
    return;
  elsif kept is not null then
    raise exception using
      errcode = 'PT409',
      message = format('wait "%s" of run %s was completed with another value', state.step_slug, run.run_id),
      hint = 'The first value counts.';
  elsif state.status not in ('created', 'started') then
    raise exception using
      errcode = 'PT409',
      message = format('wait "%s" of run %s cannot be completed: it has %s', state.step_slug, run.run_id,
        case state.status when 'failed' then 'failed' else 'been ' || state.status end),
      hint = 'A wait that was rejected, has timed out or was cancelled begins again when its run is retried.';
  end if;
  perform pgflow.assert_valid_answer(state, value);
  if state.status = 'started' then
    perform pgflow.settle(
      array[row(run.run_id, state.step_slug, 0, null, null, null, null, null)::pgflow.task_result],
      outputs => jsonb_build_array(jsonb_build_object('output', value))
    );
    return;
  end if;
  insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, status, output, queued_at, completed_at)
  values (run.run_id, state.step_slug, 0, run.flow_slug, 'completed', value, pgflow.now(), pgflow.now())
  on conflict (run_id, step_slug, task_index) do update
  set status = 'completed', output = excluded.output, error_message = null, failed_at = null, completed_at = excluded.completed_at;
  insert into pgflow.wait_assignees (run_id, step_slug, user_id, flow_slug, started_at, is_open, has_answered)
  select run.run_id, state.step_slug, pgflow.current_user_id(), run.flow_slug, pgflow.now(), false, true
  where pgflow.current_user_id() is not null
  on conflict (run_id, step_slug, user_id) do update set is_open = false, has_answered = true;
end
$$;
comment on function pgflow.complete_wait is
  'Completes a wait with a value, also before it begins; the first value counts, and the same one again is a success.';

-- Rejects a wait: its step fails for good, with the reason as its error, and when_exhausted says what becomes of the run.
--   select pgflow.reject_wait('…', 'approval', 'the budget is used up');
create function pgflow.reject_wait(run_id uuid, step_slug text, reason text)
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
  run pgflow.runs := pgflow.locked_run(reject_wait.run_id);
  state pgflow.step_states := pgflow.state_of_wait(run, reject_wait.step_slug);
begin
  if coalesce(reject_wait.reason, '') = '' then
    raise exception using
      errcode = 'PT400', message = 'the reason is missing', hint = 'Say why: it becomes the error of the step.';
  elsif length(reject_wait.reason) > 10000 then
    raise exception using
      errcode = 'PT413',
      message = format('a reason of %s characters is too long', length(reject_wait.reason)),
      hint = 'Give a reason of 10,000 characters at most.';
  elsif state.status in ('failed', 'skipped') and state.error = reject_wait.reason then
    return;
  elsif state.status <> 'started' then
    raise exception using
      errcode = 'PT409',
      message = format('wait "%s" of run %s cannot be rejected: it has %s', state.step_slug, run.run_id, case state.status
        when 'created' then 'not begun'
        when 'completed' then 'completed'
        when 'failed' then 'failed'
        else 'been ' || state.status
      end),
      hint = 'A wait can be rejected from when it begins until it is completed, rejected or has timed out.';
  end if;
  perform pgflow.settle(
    array[row(run.run_id, state.step_slug, 0, null, reject_wait.reason, null, true, null)::pgflow.task_result]
  );
end
$$;
comment on function pgflow.reject_wait is 'Rejects a wait: its step fails for good, with the reason as its error.';

-- The state of a wait of a run; PT404 where the run has no such wait.
create function pgflow.state_of_wait(run pgflow.runs, step_slug text)
returns pgflow.step_states
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  state pgflow.step_states;
begin
  select ss.* into state
  from pgflow.step_states ss
  join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
  where ss.run_id = run.run_id and ss.step_slug = state_of_wait.step_slug and s.step_type = 'wait';
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('run %s has no wait %s', run.run_id, coalesce(to_json(left(state_of_wait.step_slug, 140))::text, 'null')),
      hint = format('The waits of its flow: select step_slug from pgflow.steps where flow_slug = %L and step_type = ''wait''.', run.flow_slug);
  end if;
  return state;
end
$$;

-- Raises PT400 where a value is not what a wait is to be completed with; says where and why.
create function pgflow.assert_valid_answer(state pgflow.step_states, value jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  schema jsonb := (
    select s.output_schema from pgflow.steps s where s.flow_slug = state.flow_slug and s.step_slug = state.step_slug
  );
  errors text[] := case when schema is null then '{}' else pgflow.schema_errors(schema, value) end;
begin
  if errors <> '{}' then
    raise exception using
      errcode = 'PT400',
      message = format('the value is not what wait "%s" takes: %s', state.step_slug, errors[1]),
      detail = array_to_string(errors, '; '),
      hint = 'The step''s output_schema says what it takes.';
  end if;
end
$$;
