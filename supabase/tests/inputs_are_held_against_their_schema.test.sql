begin;
select plan(28);

-- The extension pg_jsonschema is not at hand here: this stand-in has the signature and the messages of its function, and
-- knows the keywords of the tests.
create function pg_temp.define_validator() returns void language sql as $define$
  create function extensions.jsonschema_validation_errors(schema json, instance json) returns text[]
  language plpgsql immutable strict as $$
  begin
    return extensions.stand_in_errors(schema::jsonb, instance::jsonb, schema::jsonb);
  end
  $$;
  create function extensions.stand_in_errors(schema jsonb, value jsonb, root jsonb) returns text[]
  language plpgsql immutable as $$
  declare
    errors text[] := '{}';
    k text;
    v jsonb;
  begin
    if schema = 'true' then return '{}'; end if;
    if schema ? '$ref' then
      return extensions.stand_in_errors(
        case schema ->> '$ref' when '#' then root else root #> string_to_array(substr(schema ->> '$ref', 3), '/') end, value, root
      );
    end if;
    if jsonb_typeof(value) <> schema ->> 'type' then
      errors := errors || format('%s is not of type "%s"', value, schema ->> 'type');
    end if;
    for k in select jsonb_array_elements_text(schema -> 'required') loop
      if not value ? k then errors := errors || format('"%s" is a required property', k); end if;
    end loop;
    if jsonb_typeof(value) = 'object' then
      for k, v in select * from jsonb_each(value) loop
        if schema -> 'properties' ? k then
          errors := errors || extensions.stand_in_errors(schema -> 'properties' -> k, v, root);
        elsif schema -> 'additionalProperties' = 'false' then
          errors := errors || format('Additional properties are not allowed (''%s'' was unexpected)', k);
        end if;
      end loop;
    elsif jsonb_typeof(value) = 'array' and schema ? 'items' then
      for v in select jsonb_array_elements(value) loop
        errors := errors || extensions.stand_in_errors(schema -> 'items', v, root);
      end loop;
    end if;
    return errors;
  end
  $$;
$define$;

create function pg_temp.flow(slug text, schema jsonb) returns text language sql as $$
  select flow_slug from pgflow.register_flow(jsonb_build_object(
    'flow_slug', slug, 'start_role', 'anon', 'input_schema', schema, 'steps', '[{"step_slug": "a"}]'::jsonb
  ))
$$;
select pg_temp.flow('page', '{
  "type": "object", "required": ["url"], "additionalProperties": false,
  "properties": {
    "url": {"type": "string"},
    "links": {"type": "array", "items": {"$ref": "#/definitions/link"}},
    "by": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
  },
  "definitions": {"link": {"type": "object", "properties": {"to": {"type": "string"}, "next": {"$ref": "#/definitions/link"}}}}
}');
select pg_temp.flow('tree', '{"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}');
select pg_temp.flow('list', '{"$ref": "#/$defs/names", "$defs": {"names": {"type": "array", "items": {"type": "string"}}}}');
select pg_temp.flow('free', null);

-- Without the extension
select is(to_regprocedure('extensions.jsonschema_validation_errors(json, json)'), null, 'the extension is not there');
select lives_ok($$ select pgflow.start_flow('page', '5') $$, 'without it nothing is validated');
select is(pgflow.schema_errors('{"type": "string"}', '5'), '{}', 'no value has errors');
delete from pgflow.runs;

-- With it
select pg_temp.define_validator();
create temp table bad (flow text, input jsonb, words text);
insert into bad values
  ('page', '5', '$: 5 is not of type "object"'),
  ('page', '{}', '$: "url" is a required property'),
  ('page', 'null', '$: null is not of type "object"'),
  ('page', '{"url": 5}', '$.url: 5 is not of type "string"'),
  ('page', '{"url": "", "x": 1}', '$: Additional properties are not allowed (''x'' was unexpected)'),
  ('page', '{"url": "", "by": {"name": null}}', '$.by.name: null is not of type "string"'),
  ('page', '{"url": "", "by": {}}', '$.by: "name" is a required property'),
  ('page', '{"url": "", "links": {}}', '$.links: {} is not of type "array"'),
  ('page', '{"url": "", "links": [{}, 7]}', '$.links[1]: 7 is not of type "object"'),
  ('page', '{"url": "", "links": [{"to": "a"}, {"next": {"next": {"to": 1}}}]}', '$.links[1].next.next.to: 1 is not of type "string"'),
  ('page', '{"links": [[]], "url": 5, "x": true}', '$: Additional properties are not allowed (''x'' was unexpected)'),
  ('list', '["a", 1]', '$[1]: 1 is not of type "string"'),
  ('tree', '{"left": {"right": 3}}', '$: 3 is not of type "object"');
select throws_ok(
  format('select pgflow.start_flow(%L, %L::jsonb)', flow, input),
  'PT400', format('the input is not what flow "%s" takes: %s', flow, words), format('%s: %s', flow, input)
) from bad order by ctid;
select is(
  pgflow.schema_errors((select input_schema from pgflow.flows where flow_slug = 'page'), '{"links": [[], {"to": 2}], "x": true}'),
  array[
    '$: "url" is a required property', '$: Additional properties are not allowed (''x'' was unexpected)',
    '$.links[0]: [] is not of type "object"', '$.links[1].to: 2 is not of type "string"'
  ],
  'all errors are found, each where it is'
);
select throws_ok(
  $$ select pgflow.start_flows('page', '[{"url": "a"}, {"url": 5}]') $$, 'PT400',
  'the input is not what flow "page" takes: $.url: 5 is not of type "string"', 'each input of a batch is looked at'
);
select is_empty('select from pgflow.runs', 'nothing is started then');

set local role anon;
select throws_ok(
  $$ select pgflow_public.start_flow('page', input => '{"url": 5}') $$, 'PT400',
  'the input is not what flow "page" takes: $.url: 5 is not of type "string"', 'clients hear of it too'
);
select is(pgflow_public.start_flow('page', input => '{"url": "a"}') ->> 'status', 'started', 'what matches is started');
reset role;
select lives_ok(format('select pgflow.start_flow(%L, %L::jsonb)', flow, input), format('%s: %s', flow, input))
from (values
  ('page', '{"url": "a", "links": [{"to": "b", "next": {}}], "by": {"name": "c"}}'),
  ('tree', '{"left": {"right": {}}}'), ('list', '[]'), ('list', '["a"]'), ('free', '5')
) good (flow, input);
select lives_ok($$ select pgflow.start_flows('page', '[]') $$, 'an empty batch');
select is((select count(*) from pgflow.runs), 6::bigint, 'all of them');

select * from finish();
rollback;
