begin;
select plan(29);

create function pg_temp.register(input_schema text, steps text, options text default '{}') returns text language plpgsql as $$
begin
  perform pgflow.register_flow(
    '{"flow_slug": "parent"}' || coalesce(jsonb_build_object('input_schema', input_schema::jsonb), '{}') || options::jsonb
    || jsonb_build_object('steps', steps::jsonb)
  );
  perform pgflow.delete_flow('parent');
  return 'fits';
exception
  when others then return concat(sqlstate, ' ', sqlerrm);
end
$$;
create function pg_temp.sub(rest text default '') returns text language sql as $$ select format('[{"step_slug": "sub", "child_flow": "child"%s}]', rest) $$;
create function pg_temp.refusal(words text) returns text language sql as $$
  select 'PT400 the definition of flow "parent" is invalid: step "sub": ' || words
$$;

select is(
  pg_temp.register(null, pg_temp.sub()), 'PT404 step "sub" of flow "parent" runs flow "child", which does not exist', 'the flow has to be there'
);
select pgflow.create_flow('parent');
select throws_ok(
  $$ select pgflow.add_step('parent', 'sub', options => '{"child_flow": "child"}') $$, 'PT404', null, 'for add_step, too'
);
select pgflow.delete_flow('parent');
select pgflow.register_flow('{"flow_slug": "child", "steps": [{"step_slug": "a"}]}');
select is(pg_temp.register(null, pg_temp.sub()), 'fits', 'it may have no schema');
select is(
  pg_temp.register(null, '[{"step_slug": "sub", "child_flow": "parent"}]'), 'fits', 'a flow may run itself'
);
select is(
  pg_temp.register(null, '[{"step_slug": "sub", "child_flow": "parent"}]', '{"singleton_when_busy": "return"}'),
  pg_temp.refusal('flow "parent" has one run at a time (singleton), and cannot be a sub-flow'), 'unless it has one run at a time'
);
select pgflow.register_flow('{"flow_slug": "alone", "singleton_when_busy": "after", "steps": [{"step_slug": "a"}]}');
select is(
  pg_temp.register(null, '[{"step_slug": "sub", "child_flow": "alone"}]'),
  pg_temp.refusal('flow "alone" has one run at a time (singleton), and cannot be a sub-flow'), 'no more may others that have'
);

-- Schemas
update pgflow.flows set input_schema = '{
  "type": "object", "required": ["path"], "properties": {"path": {"type": "string"}, "size": {"type": "number"}, "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}}},
  "$defs": {"tag": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}
}' where flow_slug = 'child';
select is(pg_temp.register(null, pg_temp.sub()), 'fits', 'what is not known may fit');
select is(
  pg_temp.register('{"type": "string"}', pg_temp.sub()),
  pg_temp.refusal('flow "child" cannot have this input: run is of type string, not object'), 'another type cannot'
);
select is(pg_temp.register('{"type": ["null", "object"]}', pg_temp.sub()), 'fits', 'one of several types may');
select is(
  pg_temp.register('{"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false}', pg_temp.sub()),
  pg_temp.refusal('flow "child" cannot have this input: run has no path'), 'a required key cannot be missing'
);
select is(pg_temp.register('{"type": "object", "properties": {"name": {"type": "string"}}}', pg_temp.sub()), 'fits', 'unless there may be others');
select is(
  pg_temp.register('{"type": "object", "properties": {"path": {"type": "integer"}}}', pg_temp.sub()),
  pg_temp.refusal('flow "child" cannot have this input: run.path is of type integer, not string'), 'nor have another type'
);
select is(
  pg_temp.register('{"type": "object", "properties": {"path": {"enum": ["a", "b"]}, "size": {"type": "integer"}}, "required": ["path", "size"]}', pg_temp.sub()),
  'fits', 'an integer is a number, and a value has a type'
);
select is(
  pg_temp.register('{"type": "object", "properties": {"path": {}, "size": {"type": "string"}}}', pg_temp.sub()), 'fits', 'what may be left out may be of another type'
);
select is(
  pg_temp.register('{"type": "object", "required": ["tags"], "properties": {"tags": {"type": "array", "items": {"type": "object", "properties": {"name": {"const": 5}}}}}}', pg_temp.sub()),
  pg_temp.refusal('flow "child" cannot have this input: each of run.tags.name is of type number, not string'), 'parts are looked at, through references'
);
select is(
  pg_temp.register('{"type": "object", "properties": {"file": {"$ref": "#/$defs/file"}}, "$defs": {"file": {"type": "boolean"}}}', pg_temp.sub(', "map_path": "file"')),
  pg_temp.refusal('flow "child" cannot have this input: run.file is of type boolean, not object'), 'the value at the path counts'
);
select is(
  pg_temp.register('{"type": "object", "properties": {"file": {"type": "string"}}, "additionalProperties": false}', pg_temp.sub(', "map_path": "files"')),
  pg_temp.refusal('flow "child" cannot have this input: run has no files'), 'which has to be there'
);
select is(
  pg_temp.register('{"type": "array", "items": {"type": "number"}}', pg_temp.sub(', "step_type": "map"')),
  pg_temp.refusal('flow "child" cannot have this input: each of run is of type number, not object'), 'of a map each item'
);
select is(
  pg_temp.register('{"type": "object"}', pg_temp.sub(', "step_type": "map"')),
  pg_temp.refusal('flow "child" cannot have this input: run is of type object, not an array'), 'which takes an array'
);
select is(
  pg_temp.register(null, '[{"step_slug": "a", "output_schema": {"type": "null"}}, {"step_slug": "sub", "deps_slugs": ["a"], "child_flow": "child"}]'),
  pg_temp.refusal('flow "child" cannot have this input: a is of type null, not object'), 'and what a dep answers with'
);
select pgflow.create_flow('parent', options => '{"input_schema": {"type": "string"}}');
select throws_ok(
  $$ select pgflow.add_step('parent', 'sub', options => '{"child_flow": "child"}') $$, 'PT400',
  substr(pg_temp.refusal('flow "child" cannot have this input: run is of type string, not object'), 7), 'add_step knows the schemas that there are'
);

-- A slot that parent and child both need
select pgflow.delete_flow('parent');
select pgflow.register_flow('{"flow_slug": "child_v3", "alias": "child", "version": 3, "steps": [{"step_slug": "b", "limits": [{"limit_slug": "api", "running": 1}]}]}');
select is(
  pg_temp.register(null, pg_temp.sub(', "limits": [{"limit_slug": "api", "running": 1}]')),
  pg_temp.refusal('it would hold a slot of the limit "api" while it waits for flow "child_v3", which needs one, too'), 'parents could have all slots'
);
select pgflow.register_flow('{"flow_slug": "between", "steps": [{"step_slug": "b", "child_flow": "child"}]}');
select is(
  pg_temp.register(null, '[{"step_slug": "sub", "child_flow": "between"}]', '{"limits": [{"limit_slug": "api", "running": 1}]}'),
  pg_temp.refusal('it would hold a slot of the limit "api" while it waits for flow "child_v3", which needs one, too'), 'a flow''s own limit, and children of children'
);
select is(
  pg_temp.register(null, '[{"step_slug": "sub", "child_flow": "parent"}]', '{"limits": [{"running": 1}]}'),
  pg_temp.refusal('it would hold a slot of the limit "parent" while it waits for flow "parent", which needs one, too'), 'one that calls itself'
);
select is(pg_temp.register(null, pg_temp.sub(', "limits": [{"limit_slug": "other", "running": 1}]')), 'fits', 'limits of their own are none of another''s');
select pgflow.set_limit('api', rate_count => 10, rate_period => 1);
select is(pg_temp.register(null, pg_temp.sub(', "limits": [{"limit_slug": "api", "rate_count": 10, "rate_period": 1}]')), 'fits', 'a rate is not held');
select pgflow.delete_flow('between');
delete from pgflow.flow_aliases where alias = 'child' and flow_slug = 'child_v3';
select pgflow.delete_flow('child_v3');

-- A flow that others run
select pgflow.create_flow('parent');
select pgflow.add_step('parent', 'first'), pgflow.add_step('parent', 'sub', array['first'], options => '{"child_flow": "child"}');
select throws_ok(
  $$ select pgflow.delete_flow('child') $$, 'PT409', 'flow "child" is run by step "sub" of flow "parent"', 'a flow that another one runs cannot be deleted'
);
select pgflow.register_flow('{"flow_slug": "child_v2", "alias": "child", "version": 2, "steps": [{"step_slug": "b"}]}');
select lives_ok($$ select pgflow.delete_flow('child') $$, 'unless there is a newer version');
select pgflow.delete_flow('parent');
select lives_ok($$ select pgflow.delete_flow('child_v2') $$, 'after that one is deleted, it can');

select * from finish();
rollback;
