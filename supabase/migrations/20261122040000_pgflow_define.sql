-- Chapter 4: definitions. Steps are added in topological order, which is what forbids cycles.
-- A repeated call changes nothing; a different shape for an existing slug is an error that says what differs.
--
-- Who defines waits for nobody without a bound: after three seconds an error names whom it waited for.

-- Lets one transaction at a time define the versions of a flow. Workers that start together define the same flow.
create function pgflow.lock_definition(alias text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_xact_lock(hashtextextended('pgflow.flow:' || lock_definition.alias, 0))
$$;

-- Keeps the shape of a flow for this transaction alone, to add a step or to delete: waits until no transaction that has started
-- the flow is open, for three seconds at most. It asks again and again, since starts would queue behind a lock that waits.
create function pgflow.lock_shape(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  patience timestamptz := clock_timestamp() + interval '3 seconds';
begin
  while not pg_try_advisory_xact_lock(hashtextextended('pgflow.shape:' || lock_shape.flow_slug, 0)) loop
    if clock_timestamp() > patience then
      perform pgflow.raise_blocked(lock_shape.flow_slug, lock_shape.flow_slug);
    end if;
    perform pg_sleep(0.01);
  end loop;
end
$$;

-- Raises PT409 where a definition has waited too long, and names the transactions that may be the reason: the oldest that
-- use the flows, have started this one, or define it.
create function pgflow.raise_blocked(flow_slug text, alias text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  keys bigint[] := array[
    hashtextextended('pgflow.flow:' || raise_blocked.alias, 0), hashtextextended('pgflow.shape:' || raise_blocked.flow_slug, 0)
  ];
  blockers text := (
    select string_agg(format(
             'pid %s (%s, %s), open for %s', b.pid, coalesce(nullif(a.application_name, ''), 'no application name'),
             coalesce(a.state, 'unknown'), date_trunc('second', clock_timestamp() - a.xact_start)
           ), '; ' order by a.xact_start)
    from (
      select distinct l.pid from pg_locks l
      where l.granted and l.pid <> pg_backend_pid() and (
        l.relation in ('pgflow.flows'::regclass, 'pgflow.steps'::regclass, 'pgflow.schedules'::regclass) and l.mode <> 'AccessShareLock'
        or l.locktype = 'advisory' and l.objsubid = 1 and (l.classid::bigint << 32 | l.objid::bigint) = any (keys)
      )
      order by l.pid
      limit 10
    ) b
    left join pg_stat_activity a on a.pid = b.pid
  );
begin
  raise exception using
    errcode = 'PT409',
    message = format('flow "%s" cannot be defined now: another transaction holds it', raise_blocked.flow_slug),
    detail = format('transactions that are open: %s', coalesce(blockers, 'none any more')),
    hint = 'Try again. If a transaction was forgotten, end it: select pg_terminate_backend(<pid>).';
end
$$;

-- Defines a flow, and its queue.
--   select pgflow.create_flow('analyze_document', max_attempts => 5, start_role => 'authenticated');
create function pgflow.create_flow(
  flow_slug text,
  max_attempts int default 3,
  base_delay numeric default 5,
  timeout int default 60,
  start_role text default 'service_role',
  broadcast text default 'watched'
)
returns pgflow.flows
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  flow pgflow.flows;
begin
  perform pgflow.assert_valid_slug(create_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if found then
    return flow;
  end if;
  perform pgflow.lock_definition(create_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if not found then
    insert into pgflow.flows (flow_slug, alias, queue_name, opt_max_attempts, opt_base_delay, opt_timeout, start_role, broadcast)
    values (
      create_flow.flow_slug, create_flow.flow_slug, pgflow.queue_name_for(create_flow.flow_slug),
      create_flow.max_attempts, create_flow.base_delay, create_flow.timeout, create_flow.start_role, create_flow.broadcast
    )
    returning * into flow;
    perform pgflow.make_queue(flow.queue_name);
  end if;
  return flow;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(create_flow.flow_slug, create_flow.flow_slug);
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" has an invalid option', create_flow.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts is at least 0, timeout 1 second to a year, base_delay 0 seconds to a year, start_role is service_role, authenticated or anon, broadcast is watched, always or never.';
end
$$;
comment on function pgflow.create_flow is 'Defines a flow with the defaults of its steps, in seconds; idempotent.';

-- Adds a step that waits for deps, all of them added before it.
--   select pgflow.add_step('analyze_document', 'report', deps_slugs => array['headings', 'links']);
--   select pgflow.add_step('analyze_document', 'pages', array['toc'], step_type => 'map', map_path => 'urls');
-- A map has a task for each item of an array: of its only dep's output (of the run's input where it has none), or of what
-- map_source names, at map_path (`a.b`) inside it. A step starts if its input {"run": …, "<dep>": …} contains run_if and
-- does not contain run_unless; when_unmet and when_exhausted say what becomes of it otherwise.
--   select pgflow.add_step('publish', 'approval', array['draft'], step_type => 'wait', completed_by => 'assignees',
--     assignees_path => 'draft.reviewers', timeout => 172800, when_timed_out => 'skip');
--   select pgflow.add_step('publish', 'pause', array['approval'], step_type => 'sleep', sleep_for => 3600);
-- A wait is completed by complete_wait, or after `timeout` seconds as when_timed_out says; paths are `run.a.b` or `<dep>.a.b`.
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  deps_slugs text[],
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null,
  step_type text default 'single',
  map_source text default null,
  map_path text default null,
  run_if jsonb default null,
  run_unless jsonb default null,
  when_unmet text default 'skip-cascade',
  when_exhausted text default 'fail',
  completed_by text default null,
  assignees_path text default null,
  not_by_owner boolean default null,
  when_timed_out text default null,
  timed_out_output jsonb default null,
  webhook text default null,
  sleep_for int default null,
  until_path text default null
)
returns pgflow.steps
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
#variable_conflict use_column
declare
  wanted pgflow.steps;
  wanted_deps text[] := (select coalesce(array_agg(dep order by dep), '{}') from unnest(add_step.deps_slugs) dep);
  step pgflow.steps;
begin
  perform pgflow.assert_valid_slug(add_step.step_slug);
  -- The shape cannot change under a run that is being started.
  perform pgflow.lock_shape(add_step.flow_slug);
  perform from pgflow.flows f where f.flow_slug = add_step.flow_slug for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', add_step.flow_slug),
      hint = 'Define it first: select pgflow.create_flow(…).';
  end if;

  wanted.flow_slug := add_step.flow_slug;
  wanted.step_slug := add_step.step_slug;
  wanted.step_type := add_step.step_type;
  wanted.map_source := case
    when add_step.step_type <> 'map' then add_step.map_source
    else coalesce(add_step.map_source, case cardinality(wanted_deps) when 0 then 'run' when 1 then wanted_deps[1] end)
  end;
  wanted.map_path := add_step.map_path;
  wanted.run_if := add_step.run_if;
  wanted.run_unless := add_step.run_unless;
  wanted.when_unmet := add_step.when_unmet;
  wanted.when_exhausted := add_step.when_exhausted;
  wanted.completed_by := coalesce(add_step.completed_by, case add_step.step_type when 'wait' then 'service_role' end);
  wanted.assignees_path := add_step.assignees_path;
  wanted.not_by_owner := coalesce(add_step.not_by_owner, case add_step.step_type when 'wait' then false end);
  wanted.when_timed_out := coalesce(add_step.when_timed_out, case add_step.step_type when 'wait' then 'fail' end);
  wanted.timed_out_output := add_step.timed_out_output;
  wanted.webhook := add_step.webhook;
  wanted.until_path := add_step.until_path;

  select s.* into step from pgflow.steps s
  where s.flow_slug = add_step.flow_slug and s.step_slug = add_step.step_slug;
  if found then
    perform pgflow.assert_same_step(step, wanted, wanted_deps);
    return step;
  end if;
  perform pgflow.assert_new_step(wanted, wanted_deps);

  insert into pgflow.steps (
    flow_slug, step_slug, step_index, step_type, deps_count,
    opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay,
    run_if, run_unless, when_unmet, when_exhausted, map_source, map_path,
    completed_by, assignees_path, not_by_owner, when_timed_out, timed_out_output, webhook, until_path, opt_sleep_for
  )
  select wanted.flow_slug, wanted.step_slug, count(*), wanted.step_type, cardinality(wanted_deps),
         add_step.max_attempts, add_step.base_delay, add_step.timeout, add_step.start_delay,
         wanted.run_if, wanted.run_unless, wanted.when_unmet, wanted.when_exhausted, wanted.map_source, wanted.map_path,
         wanted.completed_by, wanted.assignees_path, wanted.not_by_owner, wanted.when_timed_out, wanted.timed_out_output,
         wanted.webhook, wanted.until_path, add_step.sleep_for
  from pgflow.steps s where s.flow_slug = wanted.flow_slug
  returning * into step;
  insert into pgflow.deps (flow_slug, dep_slug, step_slug)
  select wanted.flow_slug, dep, wanted.step_slug from unnest(wanted_deps) dep;
  update pgflow.flows f set shape_hash = null where f.flow_slug = wanted.flow_slug and f.shape_hash is not null;
  return step;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(add_step.flow_slug, add_step.flow_slug);
  when check_violation or not_null_violation then
    raise exception using
      errcode = 'PT400',
      message = format('step "%s" of flow "%s" has an invalid option', add_step.step_slug, add_step.flow_slug),
      detail = sqlerrm,
      hint = 'max_attempts is at least 0, timeout 1 second to a year, base_delay and start_delay 0 seconds to a year; step_type is single, map, wait or sleep; when_unmet and when_exhausted are fail, skip or skip-cascade. completed_by (service_role, owner, authenticated, or assignees with an assignees_path), not_by_owner, when_timed_out (fail, skip, skip-cascade or complete, with timed_out_output) and webhook (plain, stripe, github, slack or standard) are for waits. A sleep has either sleep_for, 1 second to a year, or until_path. Neither has max_attempts, base_delay or start_delay.';
end
$$;
comment on function pgflow.add_step(
  text, text, text[], int, numeric, int, int, text, text, text, jsonb, jsonb, text, text,
  text, text, boolean, text, jsonb, text, int, text
) is 'Adds a step that waits for deps_slugs; options that are null are the flow''s; idempotent.';

-- Adds a root step.
--   select pgflow.add_step('analyze_document', 'read_file');
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null,
  step_type text default 'single',
  map_source text default null,
  map_path text default null,
  run_if jsonb default null,
  run_unless jsonb default null,
  when_unmet text default 'skip-cascade',
  when_exhausted text default 'fail',
  completed_by text default null,
  assignees_path text default null,
  not_by_owner boolean default null,
  when_timed_out text default null,
  timed_out_output jsonb default null,
  webhook text default null,
  sleep_for int default null,
  until_path text default null
)
returns pgflow.steps
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.add_step(
    flow_slug, step_slug, '{}'::text[], max_attempts, base_delay, timeout, start_delay,
    step_type, map_source, map_path, run_if, run_unless, when_unmet, when_exhausted,
    completed_by, assignees_path, not_by_owner, when_timed_out, timed_out_output, webhook, sleep_for, until_path
  )
$$;
comment on function pgflow.add_step(
  text, text, int, numeric, int, int, text, text, text, jsonb, jsonb, text, text,
  text, text, boolean, text, jsonb, text, int, text
) is 'Adds a step that waits for nothing; idempotent.';

-- Raises PT409 where a step exists in another shape, and says what differs.
create function pgflow.assert_same_step(existing pgflow.steps, wanted pgflow.steps, wanted_deps text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  difference text := (
    select format('%s is %s, not %s', s.part, coalesce(s.found, 'absent'), coalesce(s.wanted, 'absent'))
    from (
      values
        ('deps', (
          select array_agg(d.dep_slug order by d.dep_slug)::text from pgflow.deps d
          where d.flow_slug = existing.flow_slug and d.step_slug = existing.step_slug
        ), nullif(wanted_deps, '{}')::text),
        ('step_type', existing.step_type, wanted.step_type),
        ('map_source', existing.map_source, wanted.map_source),
        ('map_path', existing.map_path, wanted.map_path),
        ('run_if', existing.run_if::text, wanted.run_if::text),
        ('run_unless', existing.run_unless::text, wanted.run_unless::text),
        ('when_unmet', existing.when_unmet, wanted.when_unmet),
        ('when_exhausted', existing.when_exhausted, wanted.when_exhausted),
        ('completed_by', existing.completed_by, wanted.completed_by),
        ('assignees_path', existing.assignees_path, wanted.assignees_path),
        ('not_by_owner', existing.not_by_owner::text, wanted.not_by_owner::text),
        ('when_timed_out', existing.when_timed_out, wanted.when_timed_out),
        ('timed_out_output', existing.timed_out_output::text, wanted.timed_out_output::text),
        ('webhook', existing.webhook, wanted.webhook),
        ('until_path', existing.until_path, wanted.until_path)
    ) as s (part, found, wanted)
    where s.found is distinct from s.wanted
    limit 1
  );
begin
  if difference is not null then
    raise exception using
      errcode = 'PT409',
      message = format('the shape of flow "%s" differs: step "%s": %s', existing.flow_slug, existing.step_slug, difference),
      hint = 'A flow''s shape is immutable: register the changed flow as a new version, or under a new slug.';
  end if;
end
$$;

-- Raises where a step cannot be added to its flow.
create function pgflow.assert_new_step(wanted pgflow.steps, wanted_deps text[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := case
    when array_position(wanted_deps, null) is not null then 'has a dep that is null'
    when cardinality(wanted_deps) <> (select count(distinct dep) from unnest(wanted_deps) dep) then 'names a dep twice'
    when wanted.step_slug = any (wanted_deps) then 'depends on itself'
    when exists (
      select from unnest(wanted_deps) dep
      where not exists (select from pgflow.steps s where s.flow_slug = wanted.flow_slug and s.step_slug = dep)
    ) then (
      select format('depends on "%s", which is not a step of the flow', dep) from unnest(wanted_deps) dep
      where not exists (select from pgflow.steps s where s.flow_slug = wanted.flow_slug and s.step_slug = dep)
      limit 1
    )
    when wanted.step_type = 'map' and wanted.map_source is null then 'does not say which dep it maps'
    when wanted.step_type = 'map' and wanted.map_source <> 'run' and wanted.map_source <> all (wanted_deps)
      then format('maps "%s", which is not one of its deps', wanted.map_source)
    when wanted.map_path !~ '^[^.]+([.][^.]+)*$' then format('has the path "%s", which is not of the form a.b', wanted.map_path)
    when coalesce(wanted.assignees_path, wanted.until_path) !~ '^[^.]+([.][^.]+)*$'
      then format('has the path "%s", which is not of the form a.b', coalesce(wanted.assignees_path, wanted.until_path))
    when split_part(coalesce(wanted.assignees_path, wanted.until_path), '.', 1) <> all (array_prepend('run', wanted_deps)) then format(
      'has the path "%s", which begins neither with run nor with one of its deps',
      coalesce(wanted.assignees_path, wanted.until_path)
    )
  end;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('step "%s" of flow "%s" %s', wanted.step_slug, wanted.flow_slug, problem),
      hint = 'Add steps in topological order, each dep once and before the steps that wait for it; map_source is "run" or a dep.';
  end if;
  if exists (select from pgflow.runs r where r.flow_slug = wanted.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has runs: step "%s" cannot be added to it', wanted.flow_slug, wanted.step_slug),
      hint = 'A flow''s shape is immutable: register the changed flow as a new version, or under a new slug.';
  end if;
end
$$;
