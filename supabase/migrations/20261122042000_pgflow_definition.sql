-- Chapter 5: a definition: a whole flow as one JSON value. It has the arguments of create_flow, and under `steps`, in
-- topological order, those of add_step. What it leaves out has its default.
--
-- Its shape is what a run depends on: steps, deps, maps, conditions, schemas. All the rest are options.

create type pgflow.flow_definition as (
  flow_slug text,
  alias text,
  version int,
  max_attempts int,
  base_delay numeric,
  timeout int,
  start_role text,
  broadcast text,
  input_schema jsonb,
  output_schema jsonb,
  steps jsonb,
  schedulable boolean,
  schedules jsonb
);

create type pgflow.step_definition as (
  step_slug text,
  deps_slugs text[],
  step_type text,
  map_source text,
  map_path text,
  run_if jsonb,
  run_unless jsonb,
  when_unmet text,
  when_exhausted text,
  max_attempts int,
  base_delay numeric,
  timeout int,
  start_delay int,
  input_schema jsonb,
  output_schema jsonb,
  completed_by text,
  assignees_path text,
  not_by_owner boolean,
  when_timed_out text,
  timed_out_output jsonb,
  webhook text,
  sleep_for int,
  until_path text
);

-- An object without those of its keys whose value is null.
create function pgflow.without_nulls(object jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(key, value) from jsonb_each(object) where value <> 'null'
$$;

-- The definition of a flow as it is in the database: what register_flow would make it from.
--   select jsonb_pretty(pgflow.flow_definition('analyze_document'));
create function pgflow.flow_definition(flow_slug text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.without_nulls(to_jsonb(row(
    f.flow_slug, f.alias, f.version, f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast,
    f.input_schema, f.output_schema, (
      select coalesce(jsonb_agg(pgflow.without_nulls(to_jsonb(row(
        s.step_slug, array(
          select d.dep_slug from pgflow.deps d
          where d.flow_slug = s.flow_slug and d.step_slug = s.step_slug
          order by d.dep_slug collate "C"
        ),
        s.step_type, s.map_source, s.map_path, s.run_if, s.run_unless, s.when_unmet, s.when_exhausted,
        s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay, s.input_schema, s.output_schema,
        s.completed_by, s.assignees_path, s.not_by_owner, s.when_timed_out, s.timed_out_output, s.webhook, s.opt_sleep_for,
        s.until_path
      )::pgflow.step_definition)) order by s.step_index), '[]')
      from pgflow.steps s where s.flow_slug = f.flow_slug
    ), f.schedulable, (
      select jsonb_agg(jsonb_build_object(
        'schedule_slug', s.schedule_slug, 'cron', s.cron, 'time_zone', s.time_zone, 'input', s.input, 'overlap', s.overlap,
        'catch_up', s.catch_up, 'catch_up_window', s.catch_up_window, 'spread', s.spread
      ) order by s.schedule_slug collate "C")
      from pgflow.schedules s
      where s.alias = f.alias and s.made_by = 'flow' and not exists (
        select from pgflow.flow_aliases a where a.alias = f.alias and a.flow_slug <> f.flow_slug
      )
    )
  )::pgflow.flow_definition))
  from pgflow.flows f
  where f.flow_slug = flow_definition.flow_slug
$$;
comment on function pgflow.flow_definition is 'The definition of a flow, with every default written out.';

-- The shape of a definition in its canonical form: equal shapes are equal values. Options are no part of it.
create function pgflow.flow_shape(definition jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select pgflow.without_nulls(jsonb_build_object(
    'flow_slug', definition -> 'flow_slug',
    'input_schema', nullif(definition -> 'input_schema', 'null'),
    'output_schema', nullif(definition -> 'output_schema', 'null'),
    'steps', (
      select jsonb_agg(pgflow.without_nulls(jsonb_build_object(
        'step_slug', s.step_slug,
        'deps_slugs', d.deps,
        'step_type', coalesce(s.step_type, 'single'),
        'map_source', case
          when s.step_type = 'map'
          then coalesce(s.map_source, case cardinality(d.deps) when 0 then 'run' when 1 then d.deps[1] end)
          else s.map_source
        end,
        'map_path', s.map_path,
        'run_if', s.run_if,
        'run_unless', s.run_unless,
        'when_unmet', coalesce(s.when_unmet, 'skip-cascade'),
        'when_exhausted', coalesce(s.when_exhausted, 'fail'),
        'input_schema', s.input_schema,
        'output_schema', s.output_schema,
        'completed_by', coalesce(s.completed_by, case s.step_type when 'wait' then 'service_role' end),
        'assignees_path', s.assignees_path,
        'not_by_owner', coalesce(s.not_by_owner, case s.step_type when 'wait' then false end),
        'when_timed_out', coalesce(s.when_timed_out, case s.step_type when 'wait' then 'fail' end),
        'timed_out_output', s.timed_out_output,
        'webhook', s.webhook,
        'until_path', s.until_path
      )) order by s.step_slug collate "C")
      from jsonb_populate_recordset(null::pgflow.step_definition, definition -> 'steps') s
      cross join lateral (
        select array(select dep from unnest(s.deps_slugs) dep order by dep collate "C") as deps
      ) d
    )
  ))
$$;

-- What has changed from one shape to another, in words; null where nothing has. A schema that only one of them has is no
-- change.
--   select pgflow.shape_changes(pgflow.flow_shape(pgflow.flow_definition('greet')), pgflow.flow_shape('{…}'));
create function pgflow.shape_changes(before jsonb, after jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with
    step as (
      select coalesce(b ->> 'step_slug', a ->> 'step_slug') as slug, b as before, a as after
      from jsonb_array_elements(shape_changes.before -> 'steps') b
      full join jsonb_array_elements(shape_changes.after -> 'steps') a on a ->> 'step_slug' = b ->> 'step_slug'
    ),
    change (slug, nth, words) as (
      select '', 0, format('the %s schema is another', k.kind)
      from (values ('input'), ('output')) k (kind)
      where shape_changes.before -> (kind || '_schema') <> shape_changes.after -> (kind || '_schema')
      union all
      select slug, 1, format('step "%s" is %s', slug, case when before is null then 'new' else 'gone' end)
      from step where before is null or after is null
      union all
      select slug, 2, format('step "%s" %s "%s"', slug, d.verb, d.dep)
      from step
      cross join lateral (
        select 'now depends on', dep from jsonb_array_elements_text(after -> 'deps_slugs') dep where not before -> 'deps_slugs' ? dep
        union all
        select 'no longer depends on', dep from jsonb_array_elements_text(before -> 'deps_slugs') dep where not after -> 'deps_slugs' ? dep
      ) d (verb, dep)
      where before is not null and after is not null
      union all
      select slug, 3, format('%s of step "%s" is %s, not %s', key, slug, coalesce(after ->> key, 'absent'), coalesce(before ->> key, 'absent'))
      from step
      cross join unnest(array[
        'step_type', 'map_source', 'map_path', 'run_if', 'run_unless', 'when_unmet', 'when_exhausted', 'completed_by',
        'assignees_path', 'not_by_owner', 'when_timed_out', 'timed_out_output', 'webhook', 'until_path'
      ]) key
      where before is not null and after is not null and before -> key is distinct from after -> key
      union all
      select slug, 4, format('the %s schema of step "%s" is another', k.kind, slug)
      from step
      cross join (values ('input'), ('output')) k (kind)
      where before -> (kind || '_schema') <> after -> (kind || '_schema')
    )
  select string_agg(words, '; ' order by slug collate "C", nth, words collate "C") from change
$$;

-- The first key of an object that is not among the known ones, or whose value is not of its kind; null where all are.
create function pgflow.key_problem(object jsonb, kinds jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
      when kind is null
      then format('it has the unknown key "%s": the keys are %s', key, (select string_agg(k, ', ') from jsonb_object_keys(kinds) k))
      else format('%s is %s, not %s', key, left(value::text, 100), kind)
    end
  from jsonb_each(object)
  cross join lateral (select kinds ->> key, jsonb_typeof(value)) k (kind, type)
  where kind is null or not coalesce(value = 'null' or case kind
      when 'a text' then type = 'string'
      when 'a number' then type = 'number'
      when 'a whole number'
      then case when type = 'number' then value::numeric % 1 = 0 and abs(value::numeric) <= 2147483647 end
      when 'an array of texts'
      then type = 'array' and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")')
      when 'an array of objects'
      then type = 'array' and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "object")')
      when 'an object' then type = 'object'
      when 'true or false' then type = 'boolean'
      when 'any JSON' then true
      when 'a JSON Schema' then type in ('object', 'boolean')
    end, false)
  order by key collate "C"
  limit 1
$$;

-- What is wrong with the steps of a definition, the first thing only; null where nothing is.
create function pgflow.steps_problem(steps jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with
    step as (
      select n, value, value ->> 'step_slug' as slug from jsonb_array_elements(steps) with ordinality as s (value, n)
    ),
    key_problem as (
      select n, pgflow.key_problem(value, '{
        "step_slug": "a text", "deps_slugs": "an array of texts", "step_type": "a text", "map_source": "a text",
        "map_path": "a text", "run_if": "an object", "run_unless": "an object", "when_unmet": "a text",
        "when_exhausted": "a text", "max_attempts": "a whole number", "base_delay": "a number",
        "timeout": "a whole number", "start_delay": "a whole number", "input_schema": "a JSON Schema",
        "output_schema": "a JSON Schema", "completed_by": "a text", "assignees_path": "a text",
        "not_by_owner": "true or false", "when_timed_out": "a text", "timed_out_output": "any JSON", "webhook": "a text",
        "sleep_for": "a whole number", "until_path": "a text"
      }') as words
      from step
    ),
    dep as (
      select step.n, dep.slug, count(*) as times, (select min(d.n) from step d where d.slug = dep.slug) as at
      from step
      cross join jsonb_array_elements_text(case when jsonb_typeof(value -> 'deps_slugs') = 'array' then value -> 'deps_slugs' end) dep (slug)
      group by step.n, dep.slug
    ),
    problem as (
      select n, 0 as nth, words from key_problem where words is not null
      union all
      select n, 1, 'step_slug is missing' from step where slug is null
      union all
      select n, 2, 'an earlier step has the same slug'
      from step where exists (select from step other where other.slug = step.slug and other.n < step.n)
      union all
      select n, 3, case
          when at is null then format('it depends on "%s", which is not a step of the flow', slug)
          when at = n then 'it depends on itself'
          when at > n then format('it depends on "%s", which comes after it: put each step after its deps; a cycle has no such order', slug)
          else format('it names its dep "%s" twice', slug)
        end
      from dep where at is null or at >= n or times > 1
    )
  select format('step %s: %s', coalesce('"' || step.slug || '"', step.n::text), problem.words)
  from problem join step using (n)
  order by n, nth, words collate "C"
  limit 1
$$;

-- What is wrong with the schedules of a definition, the first thing only; null where nothing is.
create function pgflow.schedules_problem(schedules jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with
    schedule as (
      select n, value, value ->> 'schedule_slug' as slug
      from jsonb_array_elements(nullif(schedules, 'null')) with ordinality as s (value, n)
    ),
    problem as (
      select n, slug, coalesce(
        pgflow.key_problem(value, '{
          "schedule_slug": "a text", "cron": "a text", "time_zone": "a text", "input": "any JSON", "overlap": "a text",
          "catch_up": "a text", "catch_up_window": "a whole number", "spread": "a whole number"
        }'),
        case
          when slug is null then 'schedule_slug is missing'
          when value ->> 'cron' is null then 'cron is missing'
          when exists (select from schedule other where other.slug = schedule.slug and other.n < schedule.n)
          then 'an earlier schedule has the same slug'
        end
      ) as words
      from schedule
    )
  select format('schedule %s: %s', coalesce('"' || slug || '"', n::text), words)
  from problem
  where words is not null
  order by n
  limit 1
$$;

-- Raises PT400 where a value cannot define a flow, and says where and why.
create function pgflow.assert_valid_definition(definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  problem text := case
    when jsonb_typeof(definition) is distinct from 'object' then 'it is not an object'
    else coalesce(
      pgflow.key_problem(definition, '{
        "flow_slug": "a text", "alias": "a text", "version": "a whole number", "max_attempts": "a whole number",
        "base_delay": "a number", "timeout": "a whole number", "start_role": "a text", "broadcast": "a text",
        "input_schema": "a JSON Schema", "output_schema": "a JSON Schema", "steps": "an array of objects",
        "schedulable": "true or false", "schedules": "an array of objects"
      }'),
      case
        when jsonb_typeof(definition -> 'flow_slug') is distinct from 'string' then 'flow_slug is missing'
        when jsonb_array_length(coalesce(nullif(definition -> 'steps', 'null'), '[]')) = 0 then 'it has no steps'
      end,
      pgflow.steps_problem(definition -> 'steps'),
      pgflow.schedules_problem(definition -> 'schedules')
    )
  end;
begin
  if problem is not null then
    raise exception using
      errcode = 'PT400',
      message = format('the definition%s is invalid: %s', ' of flow "' || (definition ->> 'flow_slug') || '"', problem),
      hint = 'A definition has the arguments of create_flow, under steps those of add_step, each step after its deps, and under schedules those of schedule.';
  end if;
  perform pgflow.assert_valid_slug(definition ->> 'flow_slug');
  perform pgflow.assert_valid_slug(step ->> 'step_slug') from jsonb_array_elements(definition -> 'steps') step;
end
$$;
