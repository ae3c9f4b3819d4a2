-- Chapter 36: waits as clients see them: who may decide, and what there is for them to decide.
--
-- The service role may decide all. A user may where the wait's completed_by says so: `owner` is the run's owner, or whom
-- pgflow.can_access_run lets `complete`; `authenticated` is every user; `assignees` are those it has named when it began.

-- Raises where the caller may not complete or reject a wait: PT404 where they may not see the run and are not asked, the same for
-- runs and waits that do not exist; PT403 where they may see it.
create function pgflow.assert_may_decide(run_id uuid, step_slug text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  caller uuid := pgflow.current_user_id();
  run pgflow.runs;
  step pgflow.steps;
  begun boolean;
  can_view boolean;
  is_asked boolean;
begin
  if pgflow.caller_is_service() then
    return;
  end if;
  select r.* into run from pgflow.runs r where r.run_id = assert_may_decide.run_id;
  select s.* into step from pgflow.steps s
  where s.flow_slug = run.flow_slug and s.step_slug = assert_may_decide.step_slug and s.step_type = 'wait';
  can_view := run.run_id is not null and (
    coalesce(run.owner_id = caller, false) or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'view') is true
  );
  if step.completed_by in ('authenticated', 'assignees') then
    begun := exists (
      select from pgflow.wait_assignees w
      where w.run_id = run.run_id and w.step_slug = step.step_slug
        and w.user_id in (caller, pgflow.everybody()) and not w.has_answered
    );
  end if;
  is_asked := case step.completed_by
    when 'owner' then
      coalesce(run.owner_id = caller, false)
      or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'complete') is true
    when 'authenticated' then caller is not null and (begun or can_view)
    when 'assignees' then caller is not null and begun
  end and not (step.not_by_owner and coalesce(run.owner_id = caller, false));
  if is_asked then
    return;
  elsif not can_view then
    raise exception using
      errcode = 'PT404',
      message = format('wait %s of run %s does not exist, or you are not asked',
        coalesce(to_json(left(assert_may_decide.step_slug, 140))::text, 'null'), coalesce(assert_may_decide.run_id::text, 'null')),
      hint = 'Sign in as a user who is asked, and check run_id and step_slug: pgflow_public.list_waits lists what you may decide.';
  elsif step.step_slug is not null then
    raise exception using
      errcode = 'PT403',
      message = format('you may not decide wait "%s" of run %s', step.step_slug, run.run_id),
      detail = format('it is completed by: %s%s', step.completed_by, case when step.not_by_owner then ', not by the owner' end),
      hint = 'The flow says who decides (completed_by, not_by_owner); of a wait for assignees, they are known when it begins.';
  end if;
end
$$;

create function pgflow.client_complete_wait(run_id uuid, step_slug text, output jsonb)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the wait says who decides
set search_path = pg_catalog, pg_temp
as $$
declare
  bytes int := octet_length(client_complete_wait.output::text);
  limit_of_flow int;
begin
  perform pgflow.assert_may_decide(client_complete_wait.run_id, client_complete_wait.step_slug);
  if bytes > 65536 and not pgflow.caller_is_service() then
    limit_of_flow := (
      select f.max_input_bytes from pgflow.runs r join pgflow.flows f using (flow_slug) where r.run_id = client_complete_wait.run_id
    );
    if bytes > limit_of_flow then
      raise exception using
        errcode = 'PT413',
        message = format('a value of %s bytes is too large for wait "%s"', bytes, client_complete_wait.step_slug),
        detail = format('max_input_bytes of the flow is %s', limit_of_flow),
        hint = 'Put large data into Supabase Storage, and its path into the value; or raise flows.max_input_bytes in SQL.';
    end if;
  end if;
  perform pgflow.complete_wait(client_complete_wait.run_id, client_complete_wait.step_slug, client_complete_wait.output);
  return pgflow.snapshot_for_caller(client_complete_wait.run_id);
end
$$;

create function pgflow.client_reject_wait(run_id uuid, step_slug text, reason text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; the wait says who decides
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_may_decide(client_reject_wait.run_id, client_reject_wait.step_slug);
  perform pgflow.reject_wait(client_reject_wait.run_id, client_reject_wait.step_slug, client_reject_wait.reason);
  return pgflow.snapshot_for_caller(client_reject_wait.run_id);
end
$$;

-- A run as its caller may see it; null for who may complete its wait, but not see it.
create function pgflow.snapshot_for_caller(run_id uuid)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  select r.* into run from pgflow.runs r where r.run_id = snapshot_for_caller.run_id;
  if pgflow.caller_is_service()
     or coalesce(run.owner_id = pgflow.current_user_id(), false)
     or pgflow.can_access_run(run.run_id, run.owner_id, run.group_id, 'view') then
    return pgflow.snapshot(run.run_id);
  end if;
  return null;
end
$$;

-- What the caller may decide, the oldest first: each wait with the payload of its step. Reads the waits that ask the caller by
-- their index, whatever else waits.
create function pgflow.client_list_waits(flow_slug text, quantity int, after jsonb, run_id uuid, watch text)
returns jsonb
language plpgsql
security definer -- clients have no rights on the tables; only waits that ask the caller are read
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
  caller uuid := pgflow.current_user_id();
  is_service boolean := pgflow.caller_is_service();
  page int := least(greatest(coalesce(client_list_waits.quantity, 50), 0), 1000);
  slugs text[] := array(
    select f.flow_slug from pgflow.flows f
    where client_list_waits.flow_slug is not null
      and (f.flow_slug = client_list_waits.flow_slug or f.alias = client_list_waits.flow_slug and exists (
        select from pgflow.flow_aliases a where a.alias = client_list_waits.flow_slug
      ))
  );
  last_at timestamptz := '-infinity';
  last_run uuid := pgflow.everybody();
  last_step text := '';
  found_keys pgflow.step_key[];
begin
  if client_list_waits.after is not null then
    if pgflow.is_readable(client_list_waits.after ->> 'started_at', 'timestamptz') is not true
       or pgflow.is_readable(client_list_waits.after ->> 'run_id', 'uuid') is not true
       or client_list_waits.after ->> 'step_slug' is null then
      raise exception using
        errcode = 'PT400',
        message = 'after is not an entry of the list',
        hint = 'Give the last entry of the page before, with its started_at, run_id and step_slug.';
    end if;
    last_at := (client_list_waits.after ->> 'started_at')::timestamptz;
    last_run := (client_list_waits.after ->> 'run_id')::uuid;
    last_step := client_list_waits.after ->> 'step_slug';
  end if;
  if is_service then
    found_keys := array(
      select row(w.run_id, w.step_slug)::pgflow.step_key
      from pgflow.flows f
      cross join lateral (
        select t.queued_at, t.run_id, t.step_slug
        from pgflow.step_tasks t
        where t.flow_slug = f.flow_slug and t.waits_for = 'signal'
          and (t.queued_at, t.run_id, t.step_slug) > (last_at, last_run, last_step)
          and (client_list_waits.run_id is null or t.run_id = client_list_waits.run_id)
        order by t.queued_at, t.run_id, t.step_slug
        limit page
      ) w
      where client_list_waits.flow_slug is null or f.flow_slug = any (slugs)
      order by w.queued_at, w.run_id, w.step_slug
      limit page
    );
  elsif caller is null then
    return '[]';
  else
    perform pgflow.watch_inbox(caller, pgflow.topic_of_caller(client_list_waits.watch));
    found_keys := array(
      select row(w.run_id, w.step_slug)::pgflow.step_key
      from unnest(array[caller, pgflow.everybody()]) asked (user_id)
      cross join lateral (
        select mine.started_at, mine.run_id, mine.step_slug
        from pgflow.wait_assignees mine
        join pgflow.runs r on r.run_id = mine.run_id
        where mine.user_id = asked.user_id and mine.is_open
          and (mine.started_at, mine.run_id, mine.step_slug) > (last_at, last_run, last_step)
          and (client_list_waits.run_id is null or mine.run_id = client_list_waits.run_id)
          and (client_list_waits.flow_slug is null or mine.flow_slug = any (slugs))
          and (r.owner_id is distinct from caller or not (
            select s.not_by_owner from pgflow.steps s where s.flow_slug = mine.flow_slug and s.step_slug = mine.step_slug
          ))
        order by mine.started_at, mine.run_id, mine.step_slug
        limit page
      ) w
      order by w.started_at, w.run_id, w.step_slug
      limit page
    );
  end if;
  return (
    select coalesce(jsonb_agg(measured.wait order by measured.n), '[]')
    from (
      select entry.n, entry.wait,
             sum(octet_length(entry.wait::text)) over (order by entry.n) - octet_length(entry.wait::text) as bytes_before
      from (
        select k.ordinality as n, jsonb_build_object(
          'run_id', k.run_id, 'flow_slug', t.flow_slug, 'step_slug', k.step_slug, 'started_at', t.queued_at, 'due_at', t.due_at,
          'input', (select i.input from pgflow.step_inputs i where i.run_id = k.run_id and i.step_slug = k.step_slug),
          'output_schema', (select s.output_schema from pgflow.steps s where s.flow_slug = t.flow_slug and s.step_slug = k.step_slug)
        ) as wait
        from unnest(found_keys) with ordinality k
        join pgflow.step_tasks t on t.run_id = k.run_id and t.step_slug = k.step_slug and t.task_index = 0
        where t.waits_for = 'signal'
        offset 0 -- else an entry is made anew wherever it is used
      ) entry
    ) measured
    where measured.bytes_before < 1000000
  );
end
$$;

-- Has news of the waits that ask a user sent to a topic for the next five minutes.
create function pgflow.watch_inbox(user_id uuid, topic text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if watch_inbox.topic is not null then
    insert into pgflow.inbox_watches as w (topic, user_id, watched_until)
    values (watch_inbox.topic, watch_inbox.user_id, as_of + interval '5 minutes')
    on conflict on constraint inbox_watches_pkey do update set watched_until = excluded.watched_until
    where w.watched_until < as_of + interval '4 minutes';
  end if;
end
$$;

-- Tells those who follow their list of waits what has been added to it or is over: one private message for each topic, `waits`. It
-- names up to 500 waits; the list itself has the others. A failure here must not fail the transition.
create function pgflow.send_inbox_news(changed pgflow.wait_assignees[])
returns void
language plpgsql
security definer -- row level security closes realtime.messages to whoever caused the transition
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if not exists (select from pgflow.inbox_watches w where w.watched_until > as_of)
     or to_regclass('realtime.messages') is null
  then
    return;
  end if;
  begin
    insert into realtime.messages (topic, event, payload, private, extension, inserted_at)
    select news.topic, 'waits', jsonb_build_object('waits', news.waits), true, 'broadcast',
           (select clock_timestamp() at time zone 'utc') + row_number() over (order by news.topic) * interval '1 microsecond'
    from (
      select one.topic, jsonb_agg(one.wait order by one.n) as waits
      from (
        select w.topic, row_number() over (partition by w.topic) as n, jsonb_build_object(
          'run_id', c.run_id, 'flow_slug', c.flow_slug, 'step_slug', c.step_slug, 'open', c.is_open
        ) as wait
        from unnest(changed) c
        join pgflow.inbox_watches w on w.user_id = c.user_id or c.user_id = pgflow.everybody()
        where w.watched_until > as_of and not c.has_answered
      ) one
      where one.n <= 500
      group by one.topic
    ) news;
  exception
    when others then
      raise warning 'pgflow could not broadcast: %', sqlerrm;
  end;
end
$$;

create function pgflow.tg_wait_assignees__after_insert()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.send_inbox_news(array(
    select row(n.run_id, n.step_slug, n.user_id, n.flow_slug, n.started_at, n.is_open, n.has_answered)::pgflow.wait_assignees
    from new_rows n
  ));
  return null;
end
$$;

create trigger _900_inbox_of_insert after insert on pgflow.wait_assignees
  referencing new table as new_rows
  for each statement execute function pgflow.tg_wait_assignees__after_insert();

create function pgflow.tg_wait_assignees__after_update()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.send_inbox_news(array(
    select row(n.run_id, n.step_slug, n.user_id, n.flow_slug, n.started_at, n.is_open, n.has_answered)::pgflow.wait_assignees
    from new_rows n
    full join old_rows o using (run_id, step_slug, user_id)
    where coalesce(n.is_open <> o.is_open, false)
  ));
  return null;
end
$$;

create trigger _900_inbox_of_update after update on pgflow.wait_assignees
  referencing old table as old_rows new table as new_rows
  for each statement execute function pgflow.tg_wait_assignees__after_update();
