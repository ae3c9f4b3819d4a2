-- Chapter 8: JSON Schema. A run's input is held against its flow's input_schema where the extension pg_jsonschema (0.3 or
-- newer) is installed; where it is not, nothing is validated here. Steps' schemas are the workers' business.

-- What is wrong with a value, as `path: reason`; empty where nothing is, or where pg_jsonschema is not installed.
--   select pgflow.schema_errors('{"properties": {"path": {"type": "string"}}}', '{"path": 5}');
--   -- {"$.path: 5 is not of type \"string\""}
create function pgflow.schema_errors(schema jsonb, value jsonb)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  validator regprocedure := to_regprocedure(format('%s.jsonschema_validation_errors(json, json)', coalesce(
    (select e.extnamespace::regnamespace::text from pg_extension e where e.extname = 'pg_jsonschema'), 'extensions'
  )));
  errors text[];
begin
  if validator is not null then
    execute format('select %s($1::json, $2::json)', validator::regproc) into errors using schema, value;
    if errors <> '{}' then
      return pgflow.located_schema_errors(validator, schema, value, schema, '$');
    end if;
  end if;
  return '{}';
end
$$;

-- The extension gives reasons without paths. So a value that does not match is taken apart along `properties`, `items` and
-- `$ref`: what is wrong with itself, and what with its parts. `root` has the definitions that parts refer to.
create function pgflow.located_schema_errors(validator regprocedure, schema jsonb, value jsonb, root jsonb, path text)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  definitions constant jsonb := jsonb_strip_nulls(jsonb_build_object('definitions', root -> 'definitions', '$defs', root -> '$defs'));
  part record;
  own text[];
  found text[] := '{}';
begin
  if schema ->> '$ref' ~ '^#/(definitions|[$]defs)/[^/]+$' then
    schema := root #> string_to_array(substr(schema ->> '$ref', 3), '/');
  end if;
  if jsonb_typeof(schema) = 'object' then
    schema := schema || definitions;
  end if;
  for part in
    select format('%s.%s', path, p.key) as path, p.value as schema, value -> p.key as value
    from jsonb_each(case when jsonb_typeof(value) = 'object' and jsonb_typeof(schema -> 'properties') = 'object' then schema -> 'properties' end) p
    where value ? p.key
    union all
    select format('%s[%s]', path, i.n - 1), schema -> 'items', i.value
    from jsonb_array_elements(case when jsonb_typeof(value) = 'array' and jsonb_typeof(schema -> 'items') = 'object' then value end)
      with ordinality as i (value, n)
  loop
    exit when root::text like '%"$ref": "#"%'; -- refers to the whole: a part cannot be judged on its own
    execute format('select %s($1::json, $2::json)', validator::regproc) into own
    using case when jsonb_typeof(part.schema) = 'object' then part.schema || definitions else part.schema end, part.value;
    if own <> '{}' then
      found := found || pgflow.located_schema_errors(validator, part.schema, part.value, root, part.path);
    end if;
  end loop;
  execute format('select %s($1::json, $2::json)', validator::regproc) into own
  using case when found = '{}' then schema else pgflow.schema_of_itself(schema) end, value;
  return array(select format('%s: %s', path, reason) from unnest(own) reason) || found;
end
$$;

-- A schema that says nothing of the parts of a value, which are judged on their own.
create function pgflow.schema_of_itself(schema jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select schema - 'items' || jsonb_build_object('properties', (
    select coalesce(jsonb_object_agg(key, true), '{}')
    from jsonb_object_keys(case when jsonb_typeof(schema -> 'properties') = 'object' then schema -> 'properties' end) key
  ))
$$;

-- Raises PT400 where an input of a run is not what its flow takes; says where and why.
create function pgflow.assert_valid_inputs(flow pgflow.flows, inputs jsonb[])
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  input jsonb;
  errors text[];
begin
  foreach input in array case when flow.input_schema is null then '{}' else inputs end loop
    errors := pgflow.schema_errors(flow.input_schema, input);
    if errors <> '{}' then
      raise exception using
        errcode = 'PT400',
        message = format('the input is not what flow "%s" takes: %s', flow.flow_slug, errors[1]),
        detail = array_to_string(errors, '; '),
        hint = 'The flow''s input_schema says what it takes.';
    end if;
  end loop;
end
$$;
