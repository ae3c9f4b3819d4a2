-- Chapter 6: a whole flow in one call, what workers and migrations use; versions.
--
-- Of a flow that exists a definition may change the options. Its shape cannot change: a difference is an error that says
-- it in words, and nothing is deleted. A changed flow is a new version: a flow with a slug of its own, which shares the
-- alias that clients keep using. flow_aliases points to the newest; runs of older versions go on.

-- Creates a flow, updates its options where its shape is the same, or says what differs and changes nothing. Where all is
-- as it should be, it takes no lock; a new version waits for no start.
--   select pgflow.register_flow('{"flow_slug": "greet", "steps": [{"step_slug": "text"}, {"step_slug": "mail", "deps_slugs": ["text"]}]}');
--   select pgflow.register_flow('{"flow_slug": "greet_v2", "alias": "greet", "version": 2, "steps": [{"step_slug": "text"}]}');
-- A schema that the definition leaves out stays as it is; one where none was is added. The flows that sub-flows run come first.
create function pgflow.register_flow(definition jsonb)
returns pgflow.flows
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  wanted pgflow.flow_definition;
  flow pgflow.flows;
begin
  perform pgflow.assert_valid_definition(definition, needs_steps => true);
  wanted := jsonb_populate_record(null::pgflow.flow_definition, definition);
  wanted.version := coalesce(wanted.version, 1);
  wanted.alias := coalesce(wanted.alias, wanted.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = wanted.flow_slug;
  if not found then
    perform pgflow.lock_definition(wanted.alias);
    select f.* into flow from pgflow.flows f where f.flow_slug = wanted.flow_slug;
  end if;
  if found then
    perform pgflow.assert_same_version(flow, wanted);
    perform pgflow.assert_same_shape(flow, definition);
    if to_regclass(format('pgmq.%I', 'q_' || flow.queue_name)) is null then
      perform pgflow.create_queue(flow.queue_name);
    end if;
  else
    perform pgflow.create_version(wanted);
    perform pgflow.assert_sub_flows_fit(definition);
    perform pgflow.insert_steps(definition);
  end if;
  perform pgflow.assert_undo_flow(wanted);
  perform pgflow.assert_functions(definition);
  perform pgflow.update_options(wanted);
  perform pgflow.update_limits(definition);
  perform pgflow.update_schedules(wanted);
  update pgflow.flows f
  set shape_hash = md5(pgflow.flow_shape(pgflow.flow_definition(f.flow_slug))::text)
  where f.flow_slug = wanted.flow_slug
    and f.shape_hash is distinct from md5(pgflow.flow_shape(pgflow.flow_definition(f.flow_slug))::text);
  select f.* into flow from pgflow.flows f where f.flow_slug = wanted.flow_slug;
  return flow;
exception
  when lock_not_available then
    perform pgflow.raise_blocked(wanted.flow_slug, wanted.alias);
end
$$;
comment on function pgflow.register_flow is
  'Creates a flow from its definition, updates its options where its shape is the same, or says what differs.';

-- Raises PT409 where a flow exists in another shape, and says what has changed.
create function pgflow.assert_same_shape(flow pgflow.flows, definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  changes text := pgflow.shape_changes(
    pgflow.flow_shape(pgflow.flow_definition(flow.flow_slug)), pgflow.flow_shape(definition)
  );
begin
  if changes is not null then
    raise exception using
      errcode = 'PT409',
      message = format('the shape of "%s" changed: %s', flow.flow_slug, changes),
      hint = format(
        'Runs of it go on in the shape they have: give the changed flow a new version (version: %s).',
        (select max(f.version) + 1 from pgflow.flows f where f.alias = flow.alias)
      );
  end if;
end
$$;

-- A new flow without steps; the options are left to update_options.
create function pgflow.create_version(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.assert_new_version(wanted);
  perform pgflow.create_flow(wanted.flow_slug);
  perform pgflow.lock_shape(wanted.flow_slug);
  if wanted.version > 1 then
    update pgflow.flows f set alias = wanted.alias, version = wanted.version where f.flow_slug = wanted.flow_slug;
    perform pgflow.move_alias(wanted.alias, wanted.flow_slug);
  end if;
end
$$;

-- Raises PT404 where there is no undo flow of this name, which is kept from being deleted until the transaction ends.
create function pgflow.assert_undo_flow(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if wanted.undo_flow is null or exists (
    select from pgflow.flows f where f.flow_slug = wanted.flow_slug and f.undo_flow = wanted.undo_flow
  ) then
    return;
  end if;
  perform pg_advisory_xact_lock_shared(hashtextextended('pgflow.shape:' || wanted.undo_flow, 0));
  if not exists (select from pgflow.flows f where f.flow_slug = wanted.undo_flow) then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" cannot be undone by "%s", which does not exist', wanted.flow_slug, wanted.undo_flow),
      hint = 'Register the undo flow first. undo_flow is the slug of a version, not an alias.';
  end if;
end
$$;

-- Inserts the steps of a definition that its flow does not have yet, and their deps.
create function pgflow.insert_steps(definition jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with
    step as (
      select definition ->> 'flow_slug' as flow_slug, d.n - 1 as step_index, shape, option
      from jsonb_array_elements(definition -> 'steps') with ordinality as d (value, n)
      cross join jsonb_populate_record(null::pgflow.step_definition, d.value) option
      join jsonb_populate_recordset(null::pgflow.step_definition, pgflow.flow_shape(definition) -> 'steps') shape
        on shape.step_slug = option.step_slug
      where not exists (
        select from pgflow.steps s where s.flow_slug = definition ->> 'flow_slug' and s.step_slug = option.step_slug
      )
    ),
    inserted as (
      insert into pgflow.steps (
        flow_slug, step_slug, step_index, step_type, deps_count,
        opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay,
        run_if, run_unless, when_unmet, when_exhausted, map_source, map_path, input_schema, output_schema,
        completed_by, assignees_path, not_by_owner, when_timed_out, timed_out_output, webhook, until_path, opt_sleep_for,
        is_limited, opt_concurrency, opt_deadline, when_item_fails, tolerate_count, tolerate_share,
        child_flow, when_parent_ends, loop_until, loop_max, when_exceeded, sql_function
      )
      select s.flow_slug, (s.shape).step_slug, s.step_index, (s.shape).step_type, cardinality((s.shape).deps_slugs),
             (s.option).max_attempts, (s.option).base_delay, (s.option).timeout, (s.option).start_delay,
             (s.shape).run_if, (s.shape).run_unless, (s.shape).when_unmet, (s.shape).when_exhausted, (s.shape).map_source,
             (s.shape).map_path, (s.shape).input_schema, (s.shape).output_schema,
             (s.shape).completed_by, (s.shape).assignees_path, (s.shape).not_by_owner, (s.shape).when_timed_out,
             (s.shape).timed_out_output, (s.shape).webhook, (s.shape).until_path, (s.option).sleep_for,
             (s.option).concurrency is not null, (s.option).concurrency, (s.option).deadline,
             coalesce((s.shape).when_item_fails, 'fail'), (s.option).tolerate_count, (s.option).tolerate_share,
             (s.shape).child_flow, case when (s.shape).child_flow is not null then coalesce((s.option).when_parent_ends, 'cancel') end,
             (s.shape).loop_until, case (s.shape).step_type when 'loop' then coalesce((s.option).loop_max, 100) end,
             (s.shape).when_exceeded, (s.shape).sql_function
      from step s
    )
  insert into pgflow.deps (flow_slug, dep_slug, step_slug)
  select s.flow_slug, dep, (s.shape).step_slug from step s cross join unnest((s.shape).deps_slugs) dep;
end
$$;

-- The options of a flow and its steps, as their definition says; what is as it should be is not written again.
create function pgflow.update_options(wanted pgflow.flow_definition)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.flows f
  set opt_max_attempts = d.max_attempts,
      opt_base_delay = d.base_delay,
      opt_timeout = d.timeout,
      start_role = d.start_role,
      broadcast = d.broadcast,
      schedulable = d.schedulable,
      input_schema = d.input_schema,
      output_schema = d.output_schema,
      priority = d.priority,
      opt_deadline = d.deadline,
      singleton_path = d.singleton_path,
      singleton_when_busy = d.singleton_when_busy,
      singleton_wait = d.singleton_wait,
      undo_flow = d.undo_flow
  from (
    select coalesce(wanted.max_attempts, 3), coalesce(wanted.base_delay, 5), coalesce(wanted.timeout, 60),
           coalesce(wanted.start_role, 'service_role'), coalesce(wanted.broadcast, 'watched'), coalesce(wanted.schedulable, false),
           coalesce(wanted.input_schema, f.input_schema), coalesce(wanted.output_schema, f.output_schema),
           coalesce(wanted.priority, 'normal'), wanted.deadline,
           wanted.singleton_path, wanted.singleton_when_busy, wanted.singleton_wait, wanted.undo_flow
    from pgflow.flows f where f.flow_slug = wanted.flow_slug
  ) d (max_attempts, base_delay, timeout, start_role, broadcast, schedulable, input_schema, output_schema, priority, deadline,
       singleton_path, singleton_when_busy, singleton_wait, undo_flow)
  where f.flow_slug = wanted.flow_slug
    and (f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast, f.schedulable, f.input_schema, f.output_schema,
         f.priority, f.opt_deadline, f.singleton_path, f.singleton_when_busy, f.singleton_wait, f.undo_flow)
        is distinct from
        (d.max_attempts, d.base_delay, d.timeout, d.start_role, d.broadcast, d.schedulable, d.input_schema, d.output_schema,
         d.priority, d.deadline, d.singleton_path, d.singleton_when_busy, d.singleton_wait, d.undo_flow);

  if exists (
    select from jsonb_populate_recordset(null::pgflow.step_definition, wanted.steps) d
    join pgflow.steps s using (step_slug)
    where s.flow_slug = wanted.flow_slug and s.opt_concurrency <> coalesce(d.concurrency, 0)
  ) then
    perform pgflow.recheck_limit(''); -- the keys of maps
  end if;
  update pgflow.steps s
  set opt_max_attempts = d.max_attempts,
      opt_base_delay = d.base_delay,
      opt_timeout = d.timeout,
      opt_start_delay = d.start_delay,
      opt_sleep_for = d.sleep_for,
      input_schema = coalesce(d.input_schema, s.input_schema),
      output_schema = coalesce(d.output_schema, s.output_schema),
      is_limited = s.is_limited or d.concurrency is not null, -- update_limits says exactly
      opt_concurrency = d.concurrency,
      opt_deadline = d.deadline,
      tolerate_count = d.tolerate_count,
      tolerate_share = d.tolerate_share,
      when_parent_ends = case when s.child_flow is not null then coalesce(d.when_parent_ends, 'cancel') end,
      loop_max = case s.step_type when 'loop' then coalesce(d.loop_max, 100) end
  from jsonb_populate_recordset(null::pgflow.step_definition, wanted.steps) d
  where s.flow_slug = wanted.flow_slug and s.step_slug = d.step_slug
    and (s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay, s.opt_sleep_for, s.input_schema,
         s.output_schema, s.opt_concurrency, s.opt_deadline, s.tolerate_count, s.tolerate_share, s.when_parent_ends, s.loop_max)
        is distinct from
        (d.max_attempts, d.base_delay, d.timeout, d.start_delay, d.sleep_for,
         coalesce(d.input_schema, s.input_schema), coalesce(d.output_schema, s.output_schema),
         d.concurrency, d.deadline, d.tolerate_count, d.tolerate_share,
         case when s.child_flow is not null then coalesce(d.when_parent_ends, 'cancel') end,
         case s.step_type when 'loop' then coalesce(d.loop_max, 100) end);
end
$$;

-- The slug that a name stands for: of an alias its newest version, else the name itself.
--   select pgflow.newest_version('greet');  -- greet_v2
create function pgflow.newest_version(name text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select a.flow_slug from pgflow.flow_aliases a where a.alias = newest_version.name), newest_version.name)
$$;
comment on function pgflow.newest_version is 'The slug of the newest version of an alias; another name stands for itself.';

-- Points an alias to a new version, unless it points to a newer one. A start that has resolved the alias before starts the
-- older version, and nobody waits for it.
create function pgflow.move_alias(alias text, flow_slug text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.flow_aliases as a (alias, flow_slug)
  values (move_alias.alias, move_alias.flow_slug)
  on conflict on constraint flow_aliases_pkey do update set flow_slug = excluded.flow_slug
  where (select f.version from pgflow.flows f where f.flow_slug = a.flow_slug)
      < (select f.version from pgflow.flows f where f.flow_slug = excluded.flow_slug)
$$;

-- Raises PT409 where the flow of this slug is there as something else.
create function pgflow.assert_same_version(flow pgflow.flows, wanted pgflow.flow_definition)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (flow.alias, flow.version) <> (wanted.alias, wanted.version) then
    raise exception using
      errcode = 'PT409',
      message = format(
        'flow "%s" is version %s of "%s", not version %s of "%s"',
        flow.flow_slug, flow.version, flow.alias, wanted.version, wanted.alias
      ),
      hint = 'Register the version under another slug.';
  end if;
end
$$;

-- Raises where a flow that does not exist yet cannot be this version.
create function pgflow.assert_new_version(wanted pgflow.flow_definition)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  other text := (
    select f.flow_slug from pgflow.flows f where f.alias = wanted.alias and f.version = wanted.version
  );
begin
  perform pgflow.assert_valid_slug(wanted.alias);
  if wanted.version < 1 or (wanted.version = 1) <> (wanted.flow_slug = wanted.alias) then
    raise exception using
      errcode = 'PT400',
      message = format('flow "%s" cannot be version %s of "%s"', wanted.flow_slug, wanted.version, wanted.alias),
      hint = 'Versions are 1, 2, 3 …; version 1 has the alias as its slug, the others have slugs of their own.';
  end if;
  if other is not null then
    raise exception using
      errcode = 'PT409',
      message = format('version %s of "%s" is flow "%s", not "%s"', wanted.version, wanted.alias, other, wanted.flow_slug),
      hint = 'Give the flow the next version.';
  end if;
end
$$;

-- Each flow, its version, and what still runs of it: an old one is drained when running_runs is 0. workers counts those
-- that were heard of in the last minute.
--   select * from pgflow.flow_versions where alias = 'greet' order by version;
create view pgflow.flow_versions
with (security_invoker = true)
as
select f.alias, f.version, f.flow_slug, f.flow_slug = pgflow.newest_version(f.alias) as is_newest,
       r.running_runs, r.oldest_started_at, (
         select count(*) from pgflow.workers w
         where f.flow_slug = any (w.flow_slugs)
           and w.stopped_at is null
           and w.last_heartbeat_at > pgflow.now() - interval '1 minute'
       ) as workers,
       f.created_at, (
         select count(distinct t.run_id) from pgflow.step_tasks t where t.flow_slug = f.flow_slug and t.waits_for in ('signal', 'time')
       ) as waiting_runs
from pgflow.flows f
cross join lateral (
  select count(*) as running_runs, min(r.started_at) as oldest_started_at
  from pgflow.runs r
  where r.flow_slug = f.flow_slug and r.status = 'started'
) r;
comment on view pgflow.flow_versions is
  'Each flow with its version, how many of its runs go on, since when, how many workers have it, and how many runs wait for somebody or a time.';

-- Deletes a flow that has no runs, and its queue; refuses otherwise, and for what an alias points to or another flow runs.
--   select pgflow.delete_flow('greet');
create function pgflow.delete_flow(flow_slug text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
  flow pgflow.flows;
  running bigint;
  ended bigint;
  used_by text;
begin
  perform pgflow.lock_shape(delete_flow.flow_slug);
  select f.* into flow from pgflow.flows f where f.flow_slug = delete_flow.flow_slug for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('flow "%s" does not exist', delete_flow.flow_slug),
      hint = 'Check the slug: an alias is not a flow. The view pgflow.flow_versions lists them all.';
  end if;
  select count(*) filter (where r.status = 'started'), count(*) filter (where r.status <> 'started') into running, ended
  from pgflow.runs r where r.flow_slug = delete_flow.flow_slug;
  if running + ended > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has %s runs that go on and %s that have ended', flow.flow_slug, running, ended),
      hint = 'Wait for those that go on, or cancel them; then delete its rows in pgflow.runs, if nobody needs them any more.';
  end if;
  select format('step "%s" of flow "%s"', s.step_slug, s.flow_slug) into used_by
  from pgflow.steps s
  join pgflow.flows f using (flow_slug)
  where s.child_flow in (flow.alias, flow.flow_slug) and f.alias <> flow.alias and pgflow.newest_version(s.child_flow) = flow.flow_slug
  order by s.flow_slug, s.step_index
  limit 1;
  if used_by is not null then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" is run by %s', flow.flow_slug, used_by),
      hint = 'Delete that flow first.';
  end if;
  if exists (select from pgflow.flow_aliases a where a.flow_slug = delete_flow.flow_slug)
     and exists (select from pgflow.flows f where f.alias = flow.alias and f.flow_slug <> flow.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" is what "%s" starts', flow.flow_slug, flow.alias),
      hint = 'Point the row of the alias in pgflow.flow_aliases to another version first.';
  end if;
  if exists (select from pgflow.flows f where f.undo_flow = delete_flow.flow_slug and f.flow_slug <> flow.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" undoes flow "%s"', flow.flow_slug, (
        select min(f.flow_slug) from pgflow.flows f where f.undo_flow = delete_flow.flow_slug and f.flow_slug <> flow.flow_slug
      )),
      hint = 'Delete that flow first, or register it without undo_flow.';
  end if;
  perform pgflow.update_limits(jsonb_build_object('flow_slug', flow.flow_slug));
  delete from pgflow.flow_aliases a where a.flow_slug = delete_flow.flow_slug;
  delete from pgflow.deps d where d.flow_slug = delete_flow.flow_slug;
  delete from pgflow.steps s where s.flow_slug = delete_flow.flow_slug;
  delete from pgflow.flows f where f.flow_slug = delete_flow.flow_slug;
  if not exists (select from pgflow.flows f where f.alias = flow.alias) then
    -- Without waiting: who starts them has locked them, and waits for the flow.
    perform from pgflow.schedules s where s.alias = flow.alias for update nowait;
    delete from pgflow.schedules s where s.alias = flow.alias;
  end if;
  perform pgmq.drop_queue(flow.queue_name);
exception
  when lock_not_available then
    perform pgflow.raise_blocked(delete_flow.flow_slug, coalesce(flow.alias, delete_flow.flow_slug));
end
$$;
comment on function pgflow.delete_flow is 'Deletes a flow that has no runs, and its queue.';

-- Keeps the definition of a flow that has runs, whoever deletes it or changes its keys. It takes the place of foreign keys from
-- runs and step_states, which every start would check by locking the same few rows.
create function pgflow.tg_definitions__before_delete()
returns trigger
language plpgsql
security definer -- whoever may delete a definition may not see all runs
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'TRUNCATE' then
    if exists (select from pgflow.runs) then
      raise exception using
        errcode = 'PT409',
        message = format('pgflow.%s cannot be emptied: there are runs', tg_table_name),
        hint = 'Delete the rows in pgflow.runs first, if nobody needs them any more.';
    end if;
    return null;
  end if;
  -- Another one would not see a run that was started after its snapshot.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'PT409',
      message = format('the definition of flow "%s" cannot be deleted at this isolation level', old.flow_slug),
      hint = 'Delete it in a transaction that is READ COMMITTED.';
  end if;
  perform pgflow.lock_shape(old.flow_slug);
  if exists (select from pgflow.runs r where r.flow_slug = old.flow_slug) then
    raise exception using
      errcode = 'PT409',
      message = format('flow "%s" has runs: its definition cannot be deleted', old.flow_slug),
      hint = 'Delete its rows in pgflow.runs first, if nobody needs them any more; then select pgflow.delete_flow(…).';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;

create trigger _100_keep before delete or update of flow_slug on pgflow.flows
  for each row execute function pgflow.tg_definitions__before_delete();
create trigger _100_keep_all after truncate on pgflow.flows
  for each statement execute function pgflow.tg_definitions__before_delete();
create trigger _100_keep before delete or update of flow_slug, step_slug on pgflow.steps
  for each row execute function pgflow.tg_definitions__before_delete();
create trigger _100_keep_all after truncate on pgflow.steps
  for each statement execute function pgflow.tg_definitions__before_delete();
