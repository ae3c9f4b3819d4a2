-- Chapter 30: schedules: flows that start by themselves, at the times of a cron expression.
--
-- A row of pgflow.schedules is the whole state: next_at is the next time, computed from the nominal time before, never from the
-- clock. While paused_at is set, times pass without a run; so the row is the switch, for SQL by hand too. Whoever calls
-- start_due_schedules takes what is due and not taken by others. Each run has the idempotency key `schedule <slug> <time>`, so
-- that a time has one run, whatever clocks do.

-- A run that is due, as start_scheduled_runs takes it.
create type pgflow.scheduled_run as (
  schedule_id uuid,
  run_id uuid,
  nominal_at timestamptz,
  schedule_slug text,
  alias text,
  made_by text,
  input jsonb,
  owner_id uuid,
  group_id uuid
);

-- What becomes of a schedule whose time has come: the nominal times at which it starts a run, the last one that has passed, the next
-- one, the run that is still open, and why no run is started.
create type pgflow.schedule_turn as (
  schedule pgflow.schedules,
  starts timestamptz[],
  last_at timestamptz,
  next_at timestamptz,
  open_run_id uuid,
  problem text
);

-- Makes a schedule, or changes the one that has this slug; its pause stays. It starts the newest version of the flow.
--   select pgflow.schedule('nightly_report', 'report', '0 3 * * *', '{"days": 1}', time_zone => 'Europe/Berlin');
-- overlap says what happens at a time at which the run before is still open: `skip` starts none, `allow` starts one beside it,
-- `cancel` cancels the older one. catch_up says which times are made up for that passed without anybody who could start a run,
-- catch_up_window seconds ago at most: the `last` of them, `none`, or `all`. spread is the number of seconds over which the runs
-- of many schedules with the same time are distributed; each schedule has its own part of it.
create function pgflow.schedule(
  schedule_slug text,
  flow_slug text,
  cron text,
  input jsonb default 'null',
  time_zone text default 'UTC',
  overlap text default 'skip',
  catch_up text default 'last',
  catch_up_window int default 86400,
  spread int default 0,
  owner_id uuid default null,
  group_id uuid default null
)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wanted pgflow.schedules;
begin
  wanted.schedule_slug := schedule.schedule_slug;
  wanted.made_by := 'sql';
  wanted.cron := schedule.cron;
  wanted.input := schedule.input;
  wanted.time_zone := schedule.time_zone;
  wanted.overlap := schedule.overlap;
  wanted.catch_up := schedule.catch_up;
  wanted.catch_up_window := schedule.catch_up_window;
  wanted.spread := schedule.spread;
  wanted.owner_id := schedule.owner_id;
  wanted.group_id := schedule.group_id;
  return pgflow.put_schedule(wanted, schedule.flow_slug);
end
$$;
comment on function pgflow.schedule is
  'Makes a schedule, by which a flow starts at the times of a cron expression, or changes the one with this slug.';

-- Writes a schedule as it is wanted, unless it is like that already.
create function pgflow.put_schedule(wanted pgflow.schedules, flow_slug text)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  flow pgflow.flows := pgflow.lock_flow(put_schedule.flow_slug);
  existing pgflow.schedules;
begin
  select s.* into existing from pgflow.schedules s
  where s.schedule_slug = wanted.schedule_slug and s.owner_id is not distinct from wanted.owner_id
  for no key update;
  wanted.alias := flow.alias;
  perform pgflow.assert_can_schedule(wanted, existing, flow);
  if existing.time_zone is distinct from wanted.time_zone then
    wanted.time_zone := pgflow.checked_time_zone(wanted.time_zone);
  end if;
  wanted.schedule_id := coalesce(existing.schedule_id, (pgflow.new_run_ids())[1]);
  wanted.created_at := coalesce(existing.created_at, as_of);
  wanted.paused_at := existing.paused_at;
  wanted.last_at := existing.last_at;
  wanted.last_run_id := existing.last_run_id;
  wanted.last_problem := existing.last_problem;
  wanted.next_at := case
    when (existing.cron, existing.time_zone) = (wanted.cron, wanted.time_zone) then existing.next_at
    else (pgflow.cron_times(pgflow.parsed_cron(wanted.cron), wanted.time_zone, as_of, 'infinity', 1))[1]
  end;
  wanted.due_at := wanted.next_at + pgflow.spread_of(wanted);
  if wanted is distinct from existing then
    insert into pgflow.schedules as s select wanted.*
    on conflict on constraint slug_is_unique do update
    set made_by = excluded.made_by, cron = excluded.cron, time_zone = excluded.time_zone, input = excluded.input,
        overlap = excluded.overlap, catch_up = excluded.catch_up, catch_up_window = excluded.catch_up_window,
        spread = excluded.spread, group_id = excluded.group_id, next_at = excluded.next_at, due_at = excluded.due_at
    where s.alias = excluded.alias
    returning * into wanted;
  end if;
  return wanted;
exception
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('schedule "%s" has an invalid option', left(wanted.schedule_slug, 140)),
      detail = sqlerrm,
      hint = 'overlap is skip, allow or cancel; catch_up is last, none or all; catch_up_window is 0 seconds to a year, spread 0 seconds to a day; the input is any JSON value.';
end
$$;

-- Refuses a schedule that makes no sense, or that somebody else decides about.
create function pgflow.assert_can_schedule(wanted pgflow.schedules, existing pgflow.schedules, flow pgflow.flows)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_valid_slug(wanted.schedule_slug);
  if existing.alias <> flow.alias then
    raise exception using
      errcode = 'PT409',
      message = format('schedule "%s" is one of flow "%s", not of "%s"', existing.schedule_slug, existing.alias, flow.alias),
      hint = 'Give the schedule another slug, or remove the other one first: select pgflow.unschedule(…).';
  end if;
  if existing.made_by = 'flow' and wanted.made_by = 'sql' then
    raise exception using
      errcode = 'PT409',
      message = format('schedule "%s" belongs to the definition of flow "%s"', existing.schedule_slug, existing.alias),
      hint = 'Change it there, or pause it: select pgflow.pause_schedule(…).';
  end if;
  if existing.made_by = 'sql' and wanted.made_by = 'client' then
    raise exception using
      errcode = 'PT403',
      message = format('you may not change schedule "%s"', existing.schedule_slug),
      hint = 'The project has made it for you. Give yours another slug.';
  end if;
  if flow.input_schema is not null and (existing.input is distinct from wanted.input) then
    perform pgflow.assert_valid_inputs(flow, array[wanted.input]);
  end if;
end
$$;

-- The part of its spread that falls to a schedule, the same each time.
create function pgflow.spread_of(schedule pgflow.schedules)
returns interval
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when schedule.spread > 0 then make_interval(secs =>
      abs(hashtextextended(concat(schedule.schedule_slug, ' ', schedule.owner_id), 0) % (schedule.spread + 1))
    )
    else '0'
  end;
end
$$;

-- The schedule of this slug, locked; PT404 where there is none.
create function pgflow.locked_schedule(schedule_slug text, owner_id uuid)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules;
begin
  select s.* into schedule from pgflow.schedules s
  where s.schedule_slug = locked_schedule.schedule_slug and s.owner_id is not distinct from locked_schedule.owner_id
  for no key update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('schedule %s does not exist', coalesce(to_json(left(locked_schedule.schedule_slug, 140))::text, 'null')),
      hint = 'Check the slug, and for a schedule that belongs to a user the owner_id: select schedule_slug, owner_id from pgflow.schedules.';
  end if;
  return schedule;
end
$$;

-- Removes a schedule; runs that it has started go on. One that the definition of a flow declares comes back with it.
--   select pgflow.unschedule('nightly_report');
create function pgflow.unschedule(schedule_slug text, owner_id uuid default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(unschedule.schedule_slug, unschedule.owner_id);
begin
  delete from pgflow.schedules s where s.schedule_id = schedule.schedule_id;
end
$$;
comment on function pgflow.unschedule is 'Removes a schedule.';

-- Pauses a schedule: its times pass without a run.
--   select pgflow.pause_schedule('nightly_report');
create function pgflow.pause_schedule(schedule_slug text, owner_id uuid default null)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(pause_schedule.schedule_slug, pause_schedule.owner_id);
begin
  update pgflow.schedules s set paused_at = coalesce(s.paused_at, pgflow.now())
  where s.schedule_id = schedule.schedule_id
  returning s.* into schedule;
  return schedule;
end
$$;
comment on function pgflow.pause_schedule is 'Pauses a schedule: its times pass without a run.';

-- Resumes a schedule from its next time on: those that have passed in the pause are not made up for.
--   select pgflow.resume_schedule('nightly_report');
create function pgflow.resume_schedule(schedule_slug text, owner_id uuid default null)
returns pgflow.schedules
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(resume_schedule.schedule_slug, resume_schedule.owner_id);
begin
  if schedule.paused_at is not null then
    schedule.paused_at := null;
    schedule.next_at := (pgflow.cron_times(
      pgflow.parsed_cron(schedule.cron), schedule.time_zone, greatest(pgflow.now(), schedule.last_at), 'infinity', 1
    ))[1];
    schedule.due_at := schedule.next_at + pgflow.spread_of(schedule);
    update pgflow.schedules s set (paused_at, next_at, due_at) = (null, schedule.next_at, schedule.due_at)
    where s.schedule_id = schedule.schedule_id;
  end if;
  return schedule;
end
$$;
comment on function pgflow.resume_schedule is 'Resumes a paused schedule from its next time on.';

-- Starts a run of a schedule now, also while it is paused and whatever runs already.
--   select * from pgflow.run_schedule('nightly_report');
create function pgflow.run_schedule(schedule_slug text, owner_id uuid default null)
returns setof pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  schedule pgflow.schedules := pgflow.locked_schedule(run_schedule.schedule_slug, run_schedule.owner_id);
  new_id uuid := (pgflow.new_run_ids())[1];
begin
  perform pgflow.start_scheduled_runs(schedule.alias, array[pgflow.scheduled_run_of(schedule, new_id, pgflow.now())], false);
  update pgflow.schedules s set last_run_id = new_id
  where s.schedule_id = schedule.schedule_id and exists (select from pgflow.runs r where r.run_id = new_id);
  return query select r.* from pgflow.runs r where r.run_id = new_id;
end
$$;
comment on function pgflow.run_schedule is 'Starts a run of a schedule now, also while it is paused.';

-- The run of a schedule at a time.
create function pgflow.scheduled_run_of(schedule pgflow.schedules, run_id uuid, nominal_at timestamptz)
returns pgflow.scheduled_run
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select schedule.schedule_id, run_id, nominal_at, schedule.schedule_slug, schedule.alias, schedule.made_by, schedule.input,
         schedule.owner_id, schedule.group_id
$$;

-- Starts the runs of schedules that are due, up to `quantity` schedules; answers how many runs it has started, and when it has to be
-- called again: null where there is no schedule. Anybody may call it at any time, several at once too.
--   select * from pgflow.start_due_schedules();
-- A schedule whose run cannot be started keeps the reason in last_problem, and goes on with its next time.
create function pgflow.start_due_schedules(quantity int default 1000, out started int, out next_due_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  as_of timestamptz := pgflow.now();
  due pgflow.schedules[] := array(
    select s from pgflow.schedules s
    where s.due_at <= as_of
    order by s.due_at
    limit start_due_schedules.quantity
    for no key update skip locked
  );
begin
  started := case when due = '{}' then 0 else pgflow.take_turns(pgflow.turns_of(due, as_of), as_of) end;
  next_due_at := (select s.due_at from pgflow.schedules s where s.paused_at is null order by s.due_at limit 1);
end
$$;
comment on function pgflow.start_due_schedules is
  'Starts the runs of schedules that are due; answers how many, and when the next one is due.';

-- What becomes of schedules that are due. Runs that have to be cancelled are locked; the schedule of one that somebody else holds is
-- left out, and so stays due.
create function pgflow.turns_of(due pgflow.schedules[], as_of timestamptz)
returns pgflow.schedule_turn[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  to_cancel uuid[] := array(
    select r.run_id
    from pgflow.runs r
    where r.run_id in (select d.last_run_id from unnest(due) d where d.overlap = 'cancel' and d.paused_at is null) and r.status = 'started'
    order by r.run_id
    for no key update skip locked
  );
begin
  return array(
    select row(
      d::pgflow.schedules,
      case
        when d.overlap = 'skip' and open.run_id is not null then '{}'
        when d.overlap = 'skip' then passed.starts[:1]
        when d.overlap = 'cancel' then passed.starts[cardinality(passed.starts):]
        else passed.starts
      end,
      passed.last_at, passed.next_at, open.run_id,
      case
        when d.paused_at is not null then null
        when passed.starts = '{}' then format('nothing started it until %s, when it was too late', as_of)
        when d.overlap = 'skip' and open.run_id is not null then format('run %s was still open', open.run_id)
      end
    )::pgflow.schedule_turn
    from unnest(due) d
    cross join lateral pgflow.passed_times(d, as_of) passed
    left join lateral (
      select r.run_id from pgflow.runs r
      where r.run_id = d.last_run_id and r.status = 'started' and d.overlap in ('skip', 'cancel')
    ) open on true
    where d.overlap <> 'cancel' or d.paused_at is not null or open.run_id is null or open.run_id = any (to_cancel)
  );
end
$$;

-- The nominal times of a schedule for which runs are to be started, at most 100, oldest first; the last one that has passed; and
-- the next one. Of times that were missed that is what catch_up says; a time that is up to two minutes old is not missed.
create function pgflow.passed_times(
  schedule pgflow.schedules,
  as_of timestamptz,
  out starts timestamptz[],
  out last_at timestamptz,
  out next_at timestamptz
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  fields pgflow.cron_fields := pgflow.parsed_cron(schedule.cron);
  until timestamptz := as_of - pgflow.spread_of(schedule);
  oldest timestamptz := until - make_interval(secs => case when schedule.catch_up = 'none' then 120 else greatest(120, schedule.catch_up_window) end);
  since timestamptz := greatest(schedule.next_at, oldest) - interval '1 microsecond';
  latest timestamptz;
begin
  next_at := (pgflow.cron_times(fields, schedule.time_zone, schedule.next_at, 'infinity', 1))[1];
  if next_at > until then
    starts := case when schedule.next_at >= oldest then array[schedule.next_at] else '{}' end;
    last_at := schedule.next_at;
  else
    if schedule.catch_up = 'all' then
      starts := pgflow.cron_times(fields, schedule.time_zone, since, until, 100);
    else
      latest := pgflow.last_cron_time(fields, schedule.time_zone, since, until);
      starts := case when latest is null then '{}' else array[latest] end;
    end if;
    last_at := coalesce(starts[cardinality(starts)], schedule.next_at);
    next_at := (pgflow.cron_times(
      fields, schedule.time_zone, case when cardinality(starts) = 100 then last_at else until end, 'infinity', 1
    ))[1];
  end if;
  if schedule.paused_at is not null then
    starts := '{}';
    last_at := schedule.last_at;
  end if;
end
$$;

-- The last time of a cron expression after one time and not after another, no more than a year later; null where there is none.
create function pgflow.last_cron_time(fields pgflow.cron_fields, time_zone text, after timestamptz, until timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  span interval;
  times timestamptz[];
begin
  -- Longer spans only where the shorter ones have none, so that there are never many times.
  foreach span in array array['1 hour', '1 day', '32 days', '400 days']::interval[] loop
    times := pgflow.cron_times(fields, time_zone, greatest(after, until - span), until, 100000);
    exit when times <> '{}' or until - span <= after;
  end loop;
  return times[cardinality(times)];
end
$$;

-- Starts and cancels what is due, and notes it; answers how many runs were started. The schedules of a flow that somebody is
-- defining at the moment stay due, and so do those of one with singletons of which somebody else is starting or ending one.
create function pgflow.take_turns(turns pgflow.schedule_turn[], as_of timestamptz)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  runs pgflow.scheduled_run[];
  next_alias text;
  ids uuid[] := pgflow.new_run_ids((select coalesce(sum(cardinality(t.starts)), 0)::int from unnest(turns) t), as_of);
  problems jsonb := '{}';
  held text[] := '{}';
  started jsonb;
  quantity int;
begin
  select array_agg(pgflow.scheduled_run_of(n.schedule, ids[n.n], n.nominal_at) order by n.n) into runs
  from (
    select t.schedule, nominal_at, row_number() over (order by nominal_at, (t.schedule).schedule_id) as n
    from unnest(turns) t
    cross join unnest(t.starts) nominal_at
  ) n;

  for next_alias in select distinct r.alias from unnest(runs) r order by 1 loop
    perform from pgflow.flows f where f.flow_slug = pgflow.newest_version(next_alias) for key share skip locked;
    if not found and exists (select from pgflow.flows f where f.flow_slug = pgflow.newest_version(next_alias)) then
      held := held || next_alias;
    elsif not pgflow.try_to_lock_keys(next_alias, array(select r.input from unnest(runs) r where r.alias = next_alias)) then
      held := held || next_alias;
    else
      problems := problems || pgflow.try_scheduled_runs(
        next_alias, array(select r from unnest(runs) r where r.alias = next_alias order by r.run_id)
      );
    end if;
  end loop;

  select count(*), coalesce(jsonb_object_agg(x.schedule_id, x.run_id order by x.nominal_at), '{}') into quantity, started
  from unnest(runs) x
  join pgflow.runs r using (run_id); -- one that there is already, by its key, has none with this id
  perform pgflow.cancel_run(t.open_run_id, format('schedule "%s" started another run', (t.schedule).schedule_slug))
  from unnest(turns) t
  where (t.schedule).overlap = 'cancel' and t.open_run_id is not null and started ? (t.schedule).schedule_id::text
  order by t.open_run_id;
  update pgflow.schedules s
  set next_at = t.next_at,
      due_at = t.next_at + pgflow.spread_of(s),
      last_at = t.last_at,
      last_run_id = coalesce((started ->> s.schedule_id::text)::uuid, s.last_run_id),
      last_problem = case
        when s.paused_at is null then left(coalesce(problems ->> s.schedule_id::text, t.problem), 10000)
        else s.last_problem
      end
  from unnest(turns) t
  where s.schedule_id = (t.schedule).schedule_id and s.alias <> all (held);
  return quantity;
end
$$;

-- Starts runs of a flow, in a subtransaction. A run that cannot be started does not keep the others from it: the runs are halved
-- until it is found. Answers {schedule_id: reason}.
create function pgflow.try_scheduled_runs(alias text, runs pgflow.scheduled_run[])
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  half int := cardinality(runs) / 2;
begin
  begin
    perform pgflow.start_scheduled_runs(try_scheduled_runs.alias, runs);
    return '{}';
  exception
    when others then
      if left(sqlstate, 2) in ('40', '53', '55', '57', '58') then
        raise; -- not because of the run: the next call tries again
      elsif half = 0 then
        return jsonb_build_object(runs[1].schedule_id, sqlerrm);
      end if;
  end;
  return pgflow.try_scheduled_runs(try_scheduled_runs.alias, runs[:half])
      || pgflow.try_scheduled_runs(try_scheduled_runs.alias, runs[half + 1:]);
end
$$;

-- Starts runs of the newest version of a flow, each for its own owner. A run whose key there already is is left out.
create function pgflow.start_scheduled_runs(alias text, runs pgflow.scheduled_run[], with_keys boolean default true)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  flow pgflow.flows := pgflow.lock_flow(start_scheduled_runs.alias);
begin
  perform pgflow.assert_users_may_start(flow, array(select r.owner_id from unnest(runs) r where r.made_by = 'client'));
  perform from unnest(runs) r
  cross join lateral pgflow.start_runs(
    flow.flow_slug, array[r.run_id], array[r.input], case when with_keys then array[pgflow.key_of(r)] end, r.owner_id, r.group_id,
    jsonb_build_object(
      'schedule', r.schedule_slug, 'nominal_at', to_char(r.nominal_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    ), 0
  )
  where not with_keys or not exists (
    select from pgflow.run_keys k where k.owner_id = r.owner_id and k.alias = flow.alias and k.key = pgflow.key_of(r)
    union all
    select from pgflow.run_keys k
    where r.owner_id is null and k.owner_id is null and k.alias = flow.alias and k.key = pgflow.key_of(r)
  );
end
$$;

-- The idempotency key of a scheduled run.
create function pgflow.key_of(run pgflow.scheduled_run)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('schedule %s %s', run.schedule_slug, to_char(run.nominal_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
end
$$;

-- Raises PT403 where users' own schedules may not start a flow: the rules are those of a start, and hold at each time.
create function pgflow.assert_users_may_start(flow pgflow.flows, owner_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if owner_ids <> '{}' and (not flow.schedulable or flow.start_role = 'service_role') then
    raise exception using
      errcode = 'PT403',
      message = format('users may not schedule flow "%s"', flow.alias),
      detail = format('it is %s, and its start_role is %s', case when flow.schedulable then 'schedulable' else 'not schedulable' end, flow.start_role),
      hint = 'Define the flow with schedulable: true, and with a start_role of authenticated or anon.';
  end if;
  if exists (
    select from (select id, count(*)::int as runs from unnest(owner_ids) id group by id) owner
    where pgflow.may_start(flow.flow_slug, owner.id, owner.runs) is not true
  ) then
    raise exception using
      errcode = 'PT403',
      message = format('the owner may not start flow "%s" now', flow.flow_slug),
      hint = 'The project limits it in pgflow.may_start.';
  end if;
end
$$;

-- The schedules that the definition of a flow declares: made, changed, and removed where it declares them no more. A pause stays.
-- Of several versions the newest decides.
create function pgflow.update_schedules(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  declared pgflow.schedules;
begin
  if wanted.flow_slug <> pgflow.newest_version(wanted.alias) then
    return;
  end if;
  delete from pgflow.schedules s
  where s.alias = wanted.alias and s.made_by = 'flow' and not exists (
    select from jsonb_array_elements(wanted.schedules) d where d ->> 'schedule_slug' = s.schedule_slug
  );
  for declared in
    select * from jsonb_populate_recordset(null::pgflow.schedules, wanted.schedules)
  loop
    declared.made_by := 'flow';
    declared.time_zone := coalesce(declared.time_zone, 'UTC');
    declared.input := coalesce(declared.input, 'null');
    declared.overlap := coalesce(declared.overlap, 'skip');
    declared.catch_up := coalesce(declared.catch_up, 'last');
    declared.catch_up_window := coalesce(declared.catch_up_window, 86400);
    declared.spread := coalesce(declared.spread, 0);
    perform pgflow.put_schedule(declared, wanted.flow_slug);
  end loop;
end
$$;
