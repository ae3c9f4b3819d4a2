-- Chapter 9: what a step may run as a sub-flow: a flow that exists, without a singleton, whose input_schema can fit.

-- Raises PT404 where a flow that a step of a definition runs does not exist, PT400 where it cannot be a sub-flow or its input_schema cannot fit what the step gives it. A flow may
-- run itself.
create function pgflow.assert_sub_flows_fit(definition jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  own pgflow.flows;
  step record;
  given record;
  problem text;
begin
  if not jsonb_path_exists(definition, '$.steps[*].child_flow ? (@ != null)') then
    return;
  end if;
  select f.* into own from pgflow.flows f where f.flow_slug = definition ->> 'flow_slug';
  for step in
    select d.step_slug, d.step_type, d.child_flow, d.map_path, child.flow_slug, child.singleton_when_busy,
           case when is_own then coalesce(nullif(definition -> 'input_schema', 'null'), own.input_schema) else child.input_schema end as wanted,
           source.slug as source, case source.slug
             when 'run' then coalesce(nullif(definition -> 'input_schema', 'null'), own.input_schema)
             else coalesce(
               (select nullif(dep -> 'output_schema', 'null') from jsonb_array_elements(definition -> 'steps') dep where dep ->> 'step_slug' = source.slug),
               (select s.output_schema from pgflow.steps s where s.flow_slug = definition ->> 'flow_slug' and s.step_slug = source.slug)
             )
           end as given
    from jsonb_populate_recordset(null::pgflow.step_definition, definition -> 'steps') d
    cross join lateral (select d.child_flow in (definition ->> 'alias', definition ->> 'flow_slug')) own_flow (is_own)
    cross join lateral (select coalesce(d.map_source, d.deps_slugs[1], 'run')) source (slug)
    left join pgflow.flows child on child.flow_slug = case when is_own then definition ->> 'flow_slug' else pgflow.newest_version(d.child_flow) end
    where d.child_flow is not null
  loop
    if step.flow_slug is null then
      raise exception using
        errcode = 'PT404',
        message = format('step "%s" of flow "%s" runs flow "%s", which does not exist', step.step_slug, definition ->> 'flow_slug', step.child_flow),
        hint = 'Register the flows that sub-flows run first.';
    elsif step.singleton_when_busy is not null or step.flow_slug = definition ->> 'flow_slug' and definition ->> 'singleton_when_busy' is not null then
      problem := format('flow "%s" has one run at a time (singleton), and cannot be a sub-flow', step.child_flow);
    elsif step.given is not null and step.wanted is not null then
      given := pgflow.schema_at(step.given, string_to_array(step.map_path, '.'), step.step_type = 'map', step.source);
      problem := coalesce(given.problem, pgflow.schema_conflict(given.schema, step.wanted, step.given, step.wanted, given.name));
      problem := format('flow "%s" cannot have this input: %s', step.child_flow, problem) where problem is not null;
    end if;
    problem := coalesce(problem, pgflow.shared_slots_problem(definition, step.step_slug, step.flow_slug));
    if problem is not null then
      perform pgflow.raise_invalid_definition(definition ->> 'flow_slug', format('step "%s": %s', step.step_slug, problem));
    end if;
  end loop;
end
$$;

-- A schema in whose place `$ref` names another one of the same document; {} where that is not there, or not an object.
create function pgflow.schema_of_ref(schema jsonb, root jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(schema) = 'object' and schema ? '$ref' then
    schema := case
      when schema ->> '$ref' = '#' then root
      when schema ->> '$ref' ~ '^#/(definitions|[$]defs)/[^/]+$' then root #> string_to_array(substr(schema ->> '$ref', 3), '/')
    end;
  end if;
  return case when jsonb_typeof(schema) = 'object' and not schema ? '$ref' then schema else '{}' end;
end
$$;

-- The types of the values that a schema allows; null where it does not say.
create function pgflow.schema_types(schema jsonb, root jsonb)
returns text[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  types text[];
begin
  if schema ? 'type' then
    return array(select jsonb_array_elements_text(case jsonb_typeof(schema -> 'type') when 'array' then schema -> 'type' else jsonb_build_array(schema -> 'type') end));
  elsif schema ? 'const' then
    return array[jsonb_typeof(schema -> 'const')];
  elsif jsonb_typeof(schema -> 'enum') = 'array' then
    return array(select distinct jsonb_typeof(e) from jsonb_array_elements(schema -> 'enum') e);
  elsif jsonb_typeof(coalesce(schema -> 'anyOf', schema -> 'oneOf')) = 'array' then
    select case when bool_and(part.types is not null) then array_agg(distinct t.type) end into types
    from jsonb_array_elements(coalesce(schema -> 'anyOf', schema -> 'oneOf')) s (schema)
    cross join lateral (
      select case when not s.schema ? '$ref' then pgflow.schema_types(s.schema, root) end
    ) part (types)
    left join lateral unnest(part.types) t (type) on true;
  end if;
  return types;
end
$$;

-- The part of a schema that describes the value at a path, or with `is_map` an item of it, and its name; or a problem, where there cannot be
-- such a value. The schema is {} where nothing is known.
create function pgflow.schema_at(root jsonb, path text[], is_map boolean, source text, out schema jsonb, out name text, out problem text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  key text;
  types text[];
begin
  schema := pgflow.schema_of_ref(root, root);
  name := source;
  foreach key in array coalesce(path, '{}') loop
    types := pgflow.schema_types(schema, root);
    if not 'object' = any (types) and not 'array' = any (types) then
      problem := format('%s is of type %s, and has no %s', name, array_to_string(types, ' or '), key);
      return;
    elsif not coalesce(schema -> 'properties' ? key, false) and schema -> 'additionalProperties' = 'false' then
      problem := format('%s has no %s', name, key);
      return;
    end if;
    schema := pgflow.schema_of_ref(schema -> 'properties' -> key, root);
    name := concat(name, '.', key);
  end loop;
  if is_map then
    types := pgflow.schema_types(schema, root);
    if not 'array' = any (types) then
      problem := format('%s is of type %s, not an array', name, array_to_string(types, ' or '));
      return;
    end if;
    schema := pgflow.schema_of_ref(schema -> 'items', root);
    name := format('each of %s', name);
  end if;
end
$$;

-- Why no value of one schema can be one of another: types, or keys that are required; null where one can.
create function pgflow.schema_conflict(given jsonb, wanted jsonb, given_root jsonb, wanted_root jsonb, name text, depth int default 0)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  given_types text[];
  wanted_types text[];
begin
  given := pgflow.schema_of_ref(given, given_root);
  wanted := pgflow.schema_of_ref(wanted, wanted_root);
  given_types := pgflow.schema_types(given, given_root);
  wanted_types := pgflow.schema_types(wanted, wanted_root);
  -- integers are numbers
  if not array_replace(given_types, 'integer', 'number') && array_replace(wanted_types, 'integer', 'number') then
    return format('%s is of type %s, not %s', name, array_to_string(given_types, ' or '), array_to_string(wanted_types, ' or '));
  end if;
  if depth > 10 or given ?| '{anyOf,oneOf,allOf}' or wanted ?| '{anyOf,oneOf,allOf}' then
    return null;
  end if;
  if given_types = '{object}' and wanted_types = '{object}' then
    return coalesce(
      (
        select format('%s has no %s', name, key)
        from jsonb_array_elements_text(case when jsonb_typeof(wanted -> 'required') = 'array' then wanted -> 'required' end) key
        where given -> 'additionalProperties' = 'false' and not given ? 'patternProperties' and not coalesce(given -> 'properties' ? key, false)
        order by key
        limit 1
      ),
      (
        select min(conflict)
        from jsonb_each(case when jsonb_typeof(wanted -> 'properties') = 'object' then wanted -> 'properties' end) p
        cross join lateral pgflow.schema_conflict(
          given -> 'properties' -> p.key, p.value, given_root, wanted_root, concat(name, '.', p.key), depth + 1
        ) conflict
        where given -> 'properties' ? p.key and (wanted -> 'required' ? p.key or given -> 'required' ? p.key)
      )
    );
  elsif given_types = '{array}' and wanted_types = '{array}' and given ? 'items' and wanted ? 'items' then
    return pgflow.schema_conflict(given -> 'items', wanted -> 'items', given_root, wanted_root, format('each of %s', name), depth + 1);
  end if;
  return null;
end
$$;

-- What is wrong where a step would hold a slot of a limit while it waits for a flow that needs one, too, or runs others that do: once
-- parents have all slots, none goes on. Null where nothing is. Rates are not held.
create function pgflow.shared_slots_problem(definition jsonb, step_slug text, child_slug text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return (
    with recursive
      below (flow_slug) as (
        select shared_slots_problem.child_slug
        union
        select pgflow.newest_version(s.child_flow)
        from below b join pgflow.steps s using (flow_slug)
        where s.child_flow is not null
      ),
      declared as (
        select d.step_slug, d.limit_slug from pgflow.declared_limits(shared_slots_problem.definition) d where d.running is not null
      ),
      needed (flow_slug, limit_slug) as (
        select b.flow_slug, u.limit_slug
        from below b
        join pgflow.limit_uses u using (flow_slug)
        join pgflow.limits l using (limit_slug)
        where l.running is not null
        union all
        select b.flow_slug, d.limit_slug from below b cross join declared d where b.flow_slug = shared_slots_problem.definition ->> 'flow_slug'
      )
    select format('it would hold a slot of the limit "%s" while it waits for flow "%s", which needs one, too', n.limit_slug, n.flow_slug)
    from needed n
    join declared d using (limit_slug)
    where d.step_slug in ('*', shared_slots_problem.step_slug)
    order by n.limit_slug, n.flow_slug
    limit 1
  );
end
$$;
