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
    hashtextextended('pgflow.flow:' || raise_blocked.alias, 0), hashtextextended('pgflow.shape:' || raise_blocked.flow_slug, 0),
    hashtextextended('pgflow.limits', 0)
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
--   select pgflow.create_flow('crawl', options => '{"priority": "low", "limits": [{"by_path": "run.tenant", "running": 5}]}');
-- What has no argument of its own is one of the options: the keys that a flow has in a definition.
create function pgflow.create_flow(
  flow_slug text,
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_role text default null,
  broadcast text default null,
  options jsonb default null
)
returns pgflow.flows
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  definition jsonb;
  flow pgflow.flows;
begin
  perform pgflow.assert_valid_slug(create_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if found then
    return flow;
  end if;
  definition := pgflow.with_arguments(create_flow.options, jsonb_build_object(
    'flow_slug', create_flow.flow_slug, 'max_attempts', create_flow.max_attempts, 'base_delay', create_flow.base_delay,
    'timeout', create_flow.timeout, 'start_role', create_flow.start_role, 'broadcast', create_flow.broadcast
  ), '{flow_slug,alias,version,steps,schedules}');
  perform pgflow.assert_valid_definition(definition);
  perform pgflow.lock_definition(create_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  if not found then
    insert into pgflow.flows (flow_slug, alias, queue_name)
    values (create_flow.flow_slug, create_flow.flow_slug, pgflow.queue_name_for(create_flow.flow_slug))
    returning * into flow;
    perform pgflow.make_queue(flow.queue_name);
    perform pgflow.update_options(jsonb_populate_record(null::pgflow.flow_definition, definition));
    perform pgflow.update_limits(definition);
    select f.* into flow from pgflow.flows f where f.flow_slug = create_flow.flow_slug;
  end if;
  return flow;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(create_flow.flow_slug, create_flow.flow_slug);
end
$$;
comment on function pgflow.create_flow is
  'Defines a flow with the defaults of its steps, in seconds, and further options, as a definition has them; idempotent.';

-- Adds a step that waits for deps, all of them added before it.
--   select pgflow.add_step('analyze_document', 'report', deps_slugs => array['headings', 'links']);
--   select pgflow.add_step('analyze_document', 'pages', array['toc'], step_type => 'map', map_path => 'urls', options => '{"concurrency": 20}');
-- A map has a task for each item of an array: of its only dep's output (of the run's input where it has none), or of what
-- map_source names, at map_path (`a.b`) inside it. A step starts if its input {"run": …, "<dep>": …} contains run_if and
-- does not contain run_unless; when_unmet and when_exhausted say what becomes of it otherwise.
--   select pgflow.add_step('publish', 'approval', array['draft'], step_type => 'wait', completed_by => 'assignees',
--     assignees_path => 'draft.reviewers', timeout => 172800, when_timed_out => 'skip');
--   select pgflow.add_step('publish', 'pause', array['approval'], step_type => 'sleep', sleep_for => 3600);
--   select pgflow.add_step('import', 'lines', array['parse'], step_type => 'map', options => '{"child_flow": "import_line"}');
-- A wait is completed by complete_wait, or after `timeout` seconds as when_timed_out says; paths are `run.a.b` or `<dep>.a.b`.
-- What has no argument of its own is one of the options: the keys that a step has in a definition.
create function pgflow.add_step(
  flow_slug text,
  step_slug text,
  deps_slugs text[] default null,
  max_attempts int default null,
  base_delay numeric default null,
  timeout int default null,
  start_delay int default null,
  step_type text default null,
  map_source text default null,
  map_path text default null,
  run_if jsonb default null,
  run_unless jsonb default null,
  when_unmet text default null,
  when_exhausted text default null,
  completed_by text default null,
  assignees_path text default null,
  not_by_owner boolean default null,
  when_timed_out text default null,
  timed_out_output jsonb default null,
  webhook text default null,
  sleep_for int default null,
  until_path text default null,
  options jsonb default null
)
returns pgflow.steps
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  flow pgflow.flows;
  step pgflow.steps;
  wanted jsonb;
  definition jsonb;
  problem text;
begin
  perform pgflow.assert_valid_slug(add_step.step_slug);
  -- The shape cannot change under a run that is being started.
  perform pgflow.lock_shape(add_step.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = add_step.flow_slug for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', add_step.flow_slug),
      hint = 'Define it first: select pgflow.create_flow(…).';
  end if;
  wanted := pgflow.with_arguments(add_step.options, jsonb_build_object(
    'step_slug', add_step.step_slug, 'deps_slugs', add_step.deps_slugs, 'max_attempts', add_step.max_attempts,
    'base_delay', add_step.base_delay, 'timeout', add_step.timeout, 'start_delay', add_step.start_delay,
    'step_type', add_step.step_type, 'map_source', add_step.map_source, 'map_path', add_step.map_path,
    'run_if', add_step.run_if, 'run_unless', add_step.run_unless, 'when_unmet', add_step.when_unmet,
    'when_exhausted', add_step.when_exhausted, 'completed_by', add_step.completed_by, 'assignees_path', add_step.assignees_path,
    'not_by_owner', add_step.not_by_owner, 'when_timed_out', add_step.when_timed_out, 'timed_out_output', add_step.timed_out_output,
    'webhook', add_step.webhook, 'sleep_for', add_step.sleep_for, 'until_path', add_step.until_path
  ), '{step_slug,deps_slugs}');

  select s.* into step from pgflow.steps s where s.flow_slug = add_step.flow_slug and s.step_slug = add_step.step_slug;
  if found then
    problem := pgflow.key_problem(wanted, pgflow.step_keys());
    if problem is not null then
      perform pgflow.raise_invalid_definition(add_step.flow_slug, format('step "%s": %s', add_step.step_slug, problem));
    end if;
    perform pgflow.assert_same_shape(flow, pgflow.with_step(pgflow.flow_definition(flow.flow_slug), wanted));
    return step;
  end if;
  definition := pgflow.with_step(pgflow.earlier_steps(flow), wanted);
  perform pgflow.assert_valid_definition(definition);
  if exists (select from pgflow.runs r where r.flow_slug = add_step.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has runs: step "%s" cannot be added to it', add_step.flow_slug, add_step.step_slug),
      hint = 'A flow''s shape is immutable: register the changed flow as a new version, or under a new slug.';
  end if;
  perform pgflow.assert_sub_flows_fit(definition);
  perform pgflow.assert_functions(jsonb_build_object('steps', jsonb_build_array(wanted)));
  perform pgflow.insert_steps(definition);
  perform pgflow.update_limits(definition);
  update pgflow.flows f set shape_hash = null where f.flow_slug = add_step.flow_slug and f.shape_hash is not null;
  select s.* into step from pgflow.steps s where s.flow_slug = add_step.flow_slug and s.step_slug = add_step.step_slug;
  return step;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(add_step.flow_slug, add_step.flow_slug);
end
$$;
comment on function pgflow.add_step is
  'Adds a step that waits for deps_slugs, with further options as a definition has them; options that are null are the flow''s; idempotent.';

-- The part of a definition that arguments and further options say; raises PT400 where an option is not one.
create function pgflow.with_arguments(options jsonb, arguments jsonb, not_options text[])
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := case
    when jsonb_typeof(options) not in ('object', 'null') then format('they are %s, not an object', left(options::text, 100))
    else (
      select format('"%s" is %s', key, case when key = any (not_options) then 'not one of them' else 'an argument, too' end)
      from jsonb_each(nullif(options, 'null'))
      where key = any (not_options) or arguments -> key <> 'null'
      order by key collate "C"
      limit 1
    )
  end;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('the options are invalid: %s', problem),
      hint = 'Give as options what has no argument of its own: {"limits": [{"running": 5}]}.';
  end if;
  return coalesce(nullif(options, 'null'), '{}') || pgflow.without_nulls(arguments);
end
$$;

-- The definition of a flow, of whose steps it has what the next one depends on: their slugs, and their limits with the deps that these name. (With all of them, adding
-- a step would check all that were added before it.)
create function pgflow.earlier_steps(flow pgflow.flows)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_build_object(
    'flow_slug', flow.flow_slug, 'alias', flow.alias, 'version', flow.version, 'limits', pgflow.limits_used_by(flow.flow_slug, '*'),
    'steps', coalesce((
      select jsonb_agg(jsonb_build_object('step_slug', s.step_slug) || case
          when s.is_limited then jsonb_build_object(
            'limits', pgflow.limits_used_by(s.flow_slug, s.step_slug),
            'deps_slugs', array(select d.dep_slug from pgflow.deps d where d.flow_slug = s.flow_slug and d.step_slug = s.step_slug)
          )
          else '{}'
        end order by s.step_index)
      from pgflow.steps s where s.flow_slug = flow.flow_slug
    ), '[]')
  );
end
$$;

-- A definition with a step: in the place of the one that has its slug, or at the end.
create function pgflow.with_step(definition jsonb, step jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select definition || jsonb_build_object('steps', coalesce(jsonb_agg(case when is_same then step else value end order by n), '[]') || case
      when coalesce(bool_or(is_same), false) then '[]' else jsonb_build_array(step)
    end)
  from jsonb_array_elements(definition -> 'steps') with ordinality as s (value, n)
  cross join lateral (select value -> 'step_slug' = step -> 'step_slug') same (is_same)
$$;
