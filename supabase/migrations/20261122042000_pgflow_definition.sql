-- Chapter 5: a definition: a whole flow as one JSON value. It has the arguments of create_flow, and under `steps`, in
-- topological order, those of add_step. What it leaves out has its default.
--
-- Its shape is what a run depends on: steps, deps, maps, conditions, schemas. All the rest are options. What can be wrong with a
-- definition is said here once: create_flow and add_step make a definition of their arguments.

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
  schedules jsonb,
  priority text,
  deadline int,
  singleton_path text,
  singleton_when_busy text,
  singleton_wait int,
  limits jsonb,
  undo_flow text
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
  until_path text,
  concurrency int,
  deadline int,
  when_item_fails text,
  tolerate_count int,
  tolerate_share numeric,
  limits jsonb,
  child_flow text,
  when_parent_ends text,
  loop_until jsonb,
  loop_max int,
  when_exceeded text,
  sql_function text
);

-- An object without those of its keys whose value is null.
create function pgflow.without_nulls(object jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    select jsonb_object_agg(key, value) from jsonb_each(object) where value <> 'null'
  );
end
$$;

-- The limits of a step as a definition has them, or for `*` those of the flow; null where there are none.
create function pgflow.limits_used_by(flow_slug text, step_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    select jsonb_agg(pgflow.without_nulls(jsonb_build_object(
      'limit_slug', u.limit_slug, 'by_path', u.by_path, 'running', l.running, 'rate_count', l.rate_count, 'rate_period', l.rate_period
    )) order by u.limit_slug collate "C")
    from pgflow.limit_uses u
    join pgflow.limits l using (limit_slug)
    where u.flow_slug = limits_used_by.flow_slug and u.step_slug = limits_used_by.step_slug
  );
end
$$;

-- The definition of a flow as it is in the database: what register_flow would make it from.
--   select jsonb_pretty(pgflow.flow_definition('analyze_document'));
create function pgflow.flow_definition(flow_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
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
          s.until_path, s.opt_concurrency, s.opt_deadline, case s.step_type when 'map' then s.when_item_fails end,
          s.tolerate_count, s.tolerate_share, pgflow.limits_used_by(s.flow_slug, s.step_slug),
          s.child_flow, s.when_parent_ends, s.loop_until, s.loop_max, s.when_exceeded, s.sql_function
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
      ),
      f.priority, f.opt_deadline, f.singleton_path, f.singleton_when_busy, f.singleton_wait, pgflow.limits_used_by(f.flow_slug, '*'),
      f.undo_flow
    )::pgflow.flow_definition))
    from pgflow.flows f
    where f.flow_slug = flow_definition.flow_slug
  );
end
$$;
comment on function pgflow.flow_definition is 'The definition of a flow, with every default written out.';

-- The shape of a definition in its canonical form: equal shapes are equal values. Options are no part of it.
create function pgflow.flow_shape(definition jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
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
            when s.step_type in ('map', 'loop') or s.child_flow is not null
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
          'until_path', s.until_path,
          'when_item_fails', coalesce(s.when_item_fails, case s.step_type when 'map' then 'fail' end),
          'child_flow', s.child_flow,
          'loop_until', s.loop_until,
          'when_exceeded', coalesce(s.when_exceeded, case s.step_type when 'loop' then 'fail' end),
          'sql_function', s.sql_function
        )) order by s.step_slug collate "C")
        from jsonb_populate_recordset(null::pgflow.step_definition, definition -> 'steps') s
        cross join lateral (
          select array(select dep from unnest(s.deps_slugs) dep order by dep collate "C") as deps
        ) d
      )
    ))
  );
end
$$;

-- What has changed from one shape to another, in words; null where nothing has. A schema that only one of them has is no
-- change.
--   select pgflow.shape_changes(pgflow.flow_shape(pgflow.flow_definition('greet')), pgflow.flow_shape('{…}'));
create function pgflow.shape_changes(before jsonb, after jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
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
          'assignees_path', 'not_by_owner', 'when_timed_out', 'timed_out_output', 'webhook', 'until_path', 'when_item_fails',
          'child_flow', 'loop_until', 'when_exceeded', 'sql_function'
        ]) key
        where before is not null and after is not null and before -> key is distinct from after -> key
        union all
        select slug, 4, format('the %s schema of step "%s" is another', k.kind, slug)
        from step
        cross join (values ('input'), ('output')) k (kind)
        where before -> (kind || '_schema') <> after -> (kind || '_schema')
      )
    select string_agg(words, '; ' order by slug collate "C", nth, words collate "C") from change
  );
end
$$;

-- The first key of an object that is not among the known ones, or whose value is not of its kind; null where all are. A kind is
-- the words in which an error names it: numbers are `from` and `to` something, texts may be `one of` some.
create function pgflow.key_problem(object jsonb, kinds jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    select case
        when kind is null
        then format('it has the unknown key "%s": the keys are %s', key, (select string_agg(k, ', ') from jsonb_object_keys(kinds) k))
        else format('%s is %s, not %s', key, left(value::text, 100), kind)
      end
    from jsonb_each(object)
    cross join lateral (select kinds ->> key, jsonb_typeof(value), value #>> '{}') k (kind, type, content)
    where kind is null or not coalesce(value = 'null' or case
        when kind = 'any JSON' then true
        when kind = 'true or false' then type = 'boolean'
        when kind = 'an object' then type = 'object'
        when kind = 'a JSON Schema' then type in ('object', 'boolean')
        when kind = 'an array of texts'
        then type = 'array' and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")')
        when kind = 'an array of objects'
        then type = 'array' and not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "object")')
        when type = 'number'
        then (kind like 'a number%' or kind like 'a whole number%' and content::numeric % 1 = 0)
          and content::numeric >= coalesce(substring(kind, ' from (\d+)')::numeric, -2147483647)
          and content::numeric <= coalesce(substring(kind, ' to (\d+)')::numeric, 2147483647)
        when type = 'string'
        then case
            when kind = 'a text' then true
            when kind = 'a path of the form a.b' then content ~ '^[^.]+([.][^.]+)*$' and length(content) <= 1000
            when kind = 'a name of 1 to 255 characters without a colon' then content ~ '^[^:]{1,255}$'
            when kind like 'one of %' then content = any (string_to_array(substr(kind, 8), ', '))
          end
      end, false)
    order by key collate "C"
    limit 1
  );
end
$$;

-- The keys of a step in a definition.
create function pgflow.step_keys()
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select '{
    "step_slug": "a text", "deps_slugs": "an array of texts", "step_type": "one of single, map, wait, sleep, loop, sql",
    "map_source": "a text", "map_path": "a path of the form a.b", "run_if": "an object", "run_unless": "an object",
    "when_unmet": "one of fail, skip, skip-cascade", "when_exhausted": "one of fail, skip, skip-cascade",
    "max_attempts": "a whole number from 0", "base_delay": "a number of seconds from 0 to 31536000",
    "timeout": "a whole number of seconds from 1 to 31536000", "start_delay": "a whole number of seconds from 0 to 31536000",
    "input_schema": "a JSON Schema", "output_schema": "a JSON Schema",
    "completed_by": "one of service_role, owner, authenticated, assignees", "assignees_path": "a path of the form a.b",
    "not_by_owner": "true or false", "when_timed_out": "one of fail, skip, skip-cascade, complete", "timed_out_output": "any JSON",
    "webhook": "one of plain, stripe, github, slack, standard",
    "sleep_for": "a whole number of seconds from 1 to 31536000", "until_path": "a path of the form a.b",
    "concurrency": "a whole number from 1", "deadline": "a whole number of seconds from 1 to 31536000",
    "when_item_fails": "one of fail, collect", "tolerate_count": "a whole number from 0",
    "tolerate_share": "a number from 0 to 1", "limits": "an array of objects",
    "child_flow": "a text", "when_parent_ends": "one of cancel, leave",
    "loop_until": "any JSON", "loop_max": "a whole number from 1 to 10000", "when_exceeded": "one of fail, complete",
    "sql_function": "a text"
  }'::jsonb
$$;

-- What is wrong with a list of limits, the first thing only; null where nothing is. A path begins with one of the sources.
create function pgflow.limits_problem(limits jsonb, sources text[])
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    with
      declared as (
        select n, value, coalesce(
          pgflow.key_problem(value, '{
            "limit_slug": "a name of 1 to 255 characters without a colon", "by_path": "a path of the form a.b",
            "running": "a whole number from 1", "rate_count": "a whole number from 1",
            "rate_period": "a whole number of seconds from 1 to 31536000"
          }'),
          case
            when (value ->> 'rate_count' is null) <> (value ->> 'rate_period' is null) then 'a rate has rate_count and rate_period'
            when coalesce(value ->> 'running', value ->> 'rate_count') is null then 'it has neither running nor a rate'
            when split_part(value ->> 'by_path', '.', 1) <> all (sources)
            then format(
              'by_path is "%s", which %s', value ->> 'by_path',
              case when sources = '{run}' then 'does not begin with run' else 'begins neither with run nor with one of its deps' end
            )
          end
        ) as words
        from jsonb_array_elements(nullif(limits, 'null')) with ordinality as l (value, n)
      )
    select format('limit %s: %s', coalesce('"' || (value ->> 'limit_slug') || '"', n::text), words)
    from declared
    where words is not null
    order by n
    limit 1
  );
end
$$;

-- What is wrong with a step by itself, whose keys are known and have values of their kinds; null where nothing is.
create function pgflow.step_problem(step jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    with
      own as (
        select coalesce(d.step_type, 'single') as type, case
                 when d.child_flow is null or d.step_type not in ('single', 'map') then coalesce(d.step_type, 'single')
                 when d.step_type = 'map' then 'map of sub-flows'
                 else 'sub-flow'
               end as kind,
               array_prepend('run', d.deps_slugs) as sources, d.*
        from jsonb_populate_record(null::pgflow.step_definition, step) d
      ),
      -- What only steps of some kinds have.
      special (keys, kinds) as (
        values
          ('{concurrency,when_item_fails,tolerate_count,tolerate_share}'::text[], '{map,map of sub-flows}'::text[]),
          ('{map_source,map_path}', '{map,loop,sub-flow,map of sub-flows}'),
          ('{max_attempts,base_delay}', '{single,map,loop,sql}'),
          ('{start_delay,deadline}', '{single,map,loop,sql,sub-flow,map of sub-flows}'),
          ('{limits}', '{single,map,loop,sub-flow,map of sub-flows}'),
          ('{timeout}', '{single,map,wait,loop,sql}'),
          ('{child_flow,when_parent_ends}', '{sub-flow,map of sub-flows}'),
          ('{loop_until,loop_max,when_exceeded}', '{loop}'),
          ('{sql_function}', '{sql}'),
          ('{completed_by,assignees_path,not_by_owner,when_timed_out,timed_out_output,webhook}', '{wait}'),
          ('{sleep_for,until_path}', '{sleep}')
      )
    select coalesce(
      (
        select format(case own.kind when own.type then 'its step_type is %s, which has no %s' else 'it is a %s, which has no %s' end, own.kind, key)
        from special
        cross join unnest(keys) key
        where own.kind <> all (kinds) and step -> key <> 'null'
        order by key collate "C"
        limit 1
      ),
      case
        when (type in ('map', 'loop') or child_flow is not null) and map_source is null and cardinality(deps_slugs) > 1
        then format('it has several deps: map_source says which one it %s', case type when 'map' then 'maps' else 'begins with' end)
        when map_source <> all (sources)
        then format('it %s "%s", which is not one of its deps', case type when 'map' then 'maps' else 'begins with' end, map_source)
        when type = 'loop' and loop_until is null and when_exceeded is distinct from 'complete'
        then 'it has neither loop_until nor when_exceeded = complete'
        when type = 'sql' and sql_function is null then 'sql_function is missing'
        when sql_function !~ '^("([^"]|""){1,63}"|[a-z_][a-z0-9_$]{0,62})[.]("([^"]|""){1,63}"|[a-z_][a-z0-9_$]{0,62})$'
        then format('sql_function is %s, not a name with its schema, such as public.save_embeddings', to_json(left(sql_function, 200)))
        when split_part(coalesce(assignees_path, until_path), '.', 1) <> all (sources)
        then format('the path "%s" begins neither with run nor with one of its deps', coalesce(assignees_path, until_path))
        when completed_by is not distinct from 'assignees' and assignees_path is null then 'assignees_path is missing'
        when completed_by is distinct from 'assignees' and assignees_path is not null
        then 'it has assignees_path, but completed_by is not assignees'
        when timed_out_output is not null and when_timed_out is distinct from 'complete'
        then 'it has timed_out_output, but when_timed_out is not complete'
        when type = 'sleep' and num_nonnulls(sleep_for, until_path) <> 1 then 'it has not one of sleep_for and until_path'
        when num_nonnulls(tolerate_count, tolerate_share) > 0 and when_item_fails is distinct from 'collect'
        then 'failed items are tolerated only where when_item_fails is collect'
        when num_nonnulls(tolerate_count, tolerate_share) > 1 then 'it has both tolerate_count and tolerate_share'
      end,
      pgflow.limits_problem(limits, sources)
    )
    from own
  );
end
$$;

-- What is wrong with the steps of a definition, the first thing only; null where nothing is.
create function pgflow.steps_problem(steps jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    with
      step as (
        select n, value, value ->> 'step_slug' as slug, pgflow.key_problem(value, pgflow.step_keys()) as key_problem
        from jsonb_array_elements(nullif(steps, 'null')) with ordinality as s (value, n)
      ),
      dep as (
        select step.n, dep.slug, count(*) as times, (select min(d.n) from step d where d.slug = dep.slug) as at
        from step
        cross join jsonb_array_elements_text(case when jsonb_typeof(value -> 'deps_slugs') = 'array' then value -> 'deps_slugs' end) dep (slug)
        group by step.n, dep.slug
      ),
      problem as (
        select n, 0 as nth, key_problem as words from step where key_problem is not null
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
        union all
        select n, 4, own.problem
        from step
        cross join lateral (select case when key_problem is null then pgflow.step_problem(value) end) own (problem)
        where own.problem is not null
      )
    select format('step %s: %s', coalesce('"' || step.slug || '"', step.n::text), problem.words)
    from problem join step using (n)
    order by n, nth, words collate "C"
    limit 1
  );
end
$$;

-- The limits that a definition declares, of a step or (`*`) the flow. One without a name has that of its flow, which all
-- versions share, or of its step: `crawl`, `crawl#2`, `crawl.pages`.
create function pgflow.declared_limits(definition jsonb)
returns table (step_slug text, limit_slug text, by_path text, running int, rate_count int, rate_period int)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
    with
      owner (step_slug, name, limits) as (
        select '*', coalesce(definition ->> 'alias', definition ->> 'flow_slug'), definition -> 'limits'
        union all
        select s ->> 'step_slug', concat(coalesce(definition ->> 'alias', definition ->> 'flow_slug'), '.', s ->> 'step_slug'), s -> 'limits'
        from jsonb_array_elements(nullif(definition -> 'steps', 'null')) s
      ),
      declared as (
        select o.step_slug, case when length(o.name) > 240 then left(o.name, 200) || md5(o.name) else o.name end as name,
               row_number() over (partition by o.step_slug, d.value ->> 'limit_slug' is null order by d.n) as nth, d.value
        from owner o
        cross join jsonb_array_elements(nullif(o.limits, 'null')) with ordinality as d (value, n)
      )
    select d.step_slug, coalesce(l.limit_slug, d.name || case when d.nth > 1 then '#' || d.nth else '' end),
           l.by_path, l.running, l.rate_count, l.rate_period
    from declared d
    cross join jsonb_to_record(d.value) as l (limit_slug text, by_path text, running int, rate_count int, rate_period int);
end
$$;

-- What is wrong with the limits of a definition taken together, the first thing only; null where nothing is.
create function pgflow.declared_limits_problem(definition jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    with
      declared as (
        select * from pgflow.declared_limits(definition)
      ),
      flow as (
        select count(*) as limits, array_agg(limit_slug) as slugs from declared where step_slug = '*'
      ),
      step as (
        select s ->> 'step_slug' as slug, case when s ->> 'concurrency' is null then 0 else 1 end as maps,
               (select count(*) from declared d where d.step_slug = s ->> 'step_slug') as limits
        from jsonb_array_elements(nullif(definition -> 'steps', 'null')) s
        where coalesce(s ->> 'step_type', 'single') in ('single', 'map', 'loop')
      ),
      problem (nth, words) as (
        select 1, format('it declares the limit "%s" twice, with different numbers', limit_slug)
        from declared group by limit_slug having count(distinct row(running, rate_count, rate_period)) > 1
        union all
        select 2, case d.step_slug when '*' then '' else format('step "%s": ', d.step_slug) end || format('it has the limit "%s" twice', d.limit_slug)
        from declared d cross join flow
        group by d.step_slug, d.limit_slug, flow.slugs
        having count(*) > 1 or d.step_slug <> '*' and d.limit_slug = any (flow.slugs)
        union all
        select 3, format(
          'step "%s": it has %s limits, with those of the flow and its concurrency, but 3 at most', step.slug,
          flow.limits + step.limits + step.maps
        )
        from step cross join flow where flow.limits + step.limits + step.maps > 3
        union all
        select 4, format('it has %s limits, but 3 at most', flow.limits) from flow where flow.limits > 3
      )
    select words from problem order by nth, words collate "C" limit 1
  );
end
$$;

-- What is wrong with the schedules of a definition, the first thing only; null where nothing is.
create function pgflow.schedules_problem(schedules jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
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
  );
end
$$;

-- Raises PT400 where a value cannot define a flow, and says where and why.
create function pgflow.assert_valid_definition(definition jsonb, needs_steps boolean default false)
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
        "flow_slug": "a text", "alias": "a text", "version": "a whole number", "max_attempts": "a whole number from 0",
        "base_delay": "a number of seconds from 0 to 31536000", "timeout": "a whole number of seconds from 1 to 31536000",
        "start_role": "one of service_role, authenticated, anon", "broadcast": "one of watched, always, never",
        "input_schema": "a JSON Schema", "output_schema": "a JSON Schema", "steps": "an array of objects",
        "schedulable": "true or false", "schedules": "an array of objects", "priority": "one of high, normal, low",
        "deadline": "a whole number of seconds from 1 to 31536000", "singleton_path": "a path of the form a.b",
        "singleton_when_busy": "one of return, reject, replace, after",
        "singleton_wait": "a whole number of seconds from 1 to 31536000", "limits": "an array of objects",
        "undo_flow": "a text"
      }'),
      case
        when definition ->> 'flow_slug' is null then 'flow_slug is missing'
        when needs_steps and jsonb_array_length(coalesce(nullif(definition -> 'steps', 'null'), '[]')) = 0 then 'it has no steps'
        when definition ->> 'singleton_when_busy' is null
          and coalesce(definition ->> 'singleton_path', definition ->> 'singleton_wait') is not null
        then 'singleton_when_busy is missing'
        when definition ->> 'singleton_wait' is not null and definition ->> 'singleton_when_busy' <> 'after'
        then 'it has singleton_wait, but singleton_when_busy is not after'
        when split_part(definition ->> 'singleton_path', '.', 1) <> 'run'
        then format('singleton_path is "%s", which does not begin with run', definition ->> 'singleton_path')
      end,
      pgflow.limits_problem(definition -> 'limits', '{run}'),
      pgflow.steps_problem(definition -> 'steps'),
      pgflow.declared_limits_problem(definition),
      pgflow.schedules_problem(definition -> 'schedules')
    )
  end;
begin
  if problem is not null then
    perform pgflow.raise_invalid_definition(definition ->> 'flow_slug', problem);
  end if;
  perform pgflow.assert_valid_slug(definition ->> 'flow_slug');
  perform pgflow.assert_valid_slug(step ->> 'step_slug') from jsonb_array_elements(nullif(definition -> 'steps', 'null')) step;
end
$$;

-- Raises PT400 with what is wrong with the definition of a flow.
create function pgflow.raise_invalid_definition(flow_slug text, problem text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT400',
    message = format('the definition%s is invalid: %s', ' of flow "' || raise_invalid_definition.flow_slug || '"', problem),
    hint = 'A definition has the arguments and options of create_flow, under steps those of add_step, each step after its deps, and under schedules those of schedule.';
end
$$;
