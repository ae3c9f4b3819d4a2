begin;
select plan(52);

create function pg_temp.everything() returns jsonb language sql as $$
  select '{
    "flow_slug": "all_of_it", "max_attempts": 5, "base_delay": 0.5, "timeout": 7, "start_role": "anon", "broadcast": "never",
    "input_schema": {"type": "object"}, "output_schema": true,
    "steps": [
      {"step_slug": "b", "max_attempts": 1, "base_delay": 0, "timeout": 2, "start_delay": 3, "output_schema": {"type": "array"}},
      {"step_slug": "a", "deps_slugs": []},
      {"step_slug": "m", "deps_slugs": ["b", "a"], "step_type": "map", "map_source": "b", "map_path": "x.y"},
      {"step_slug": "c", "deps_slugs": ["m", "a"], "run_if": {"run": {"x": null}}, "run_unless": {"a": 1},
       "when_unmet": "skip", "when_exhausted": "skip-cascade", "input_schema": {"type": "string"}}
    ]
  }'::jsonb
$$;

-- The first call
select is(
  (select (f.flow_slug, f.alias, f.version, f.queue_name, f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast)::text
   from pgflow.register_flow(pg_temp.everything()) f),
  '(all_of_it,all_of_it,1,all_of_it,5,0.5,7,anon,never)',
  'answers with the flow'
);
select results_eq(
  $$ select input_schema, output_schema from pgflow.flows where flow_slug = 'all_of_it' $$,
  $$ values ('{"type": "object"}'::jsonb, 'true'::jsonb) $$, 'keeps its schemas'
);
select results_eq(
  $$ select step_slug, step_index, step_type, deps_count, opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay,
            map_source, map_path, run_if, run_unless, when_unmet, when_exhausted, input_schema, output_schema
     from pgflow.steps where flow_slug = 'all_of_it' order by step_index $$,
  $$ values
    ('b', 0, 'single', 0, 1, 0::numeric, 2, 3, null, null, null::jsonb, null::jsonb, 'skip-cascade', 'fail', null::jsonb, '{"type": "array"}'::jsonb),
    ('a', 1, 'single', 0, null, null, null, null, null, null, null, null, 'skip-cascade', 'fail', null, null),
    ('m', 2, 'map', 2, null, null, null, null, 'b', 'x.y', null, null, 'skip-cascade', 'fail', null, null),
    ('c', 3, 'single', 2, null, null, null, null, null, null, '{"run": {"x": null}}', '{"a": 1}', 'skip', 'skip-cascade', '{"type": "string"}', null) $$,
  'makes the steps, in their order'
);
select set_eq(
  $$ select dep_slug, step_slug from pgflow.deps where flow_slug = 'all_of_it' $$,
  $$ values ('b', 'm'), ('a', 'm'), ('m', 'c'), ('a', 'c') $$, 'and the deps'
);
select is((select count(*) from pgmq.list_queues() where queue_name = 'all_of_it'), 1::bigint, 'and the queue');
select is(
  (select (f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast)::text
   from pgflow.register_flow('{"flow_slug": "plain", "steps": [{"step_slug": "a"}]}') f),
  '(3,5,60,service_role,watched)', 'what is left out has its default'
);
select lives_ok(
  $$ select pgflow.register_flow('{"flow_slug": "plain", "timeout": null, "input_schema": null, "steps": [{"step_slug": "a", "run_if": null}]}') $$,
  'null is left out too'
);
select is((select shape_hash ~ '^[0-9a-f]{32}$' from pgflow.flows where flow_slug = 'plain'), true, 'the shape has a hash');

-- The definition of a flow that is there
create temp table before as
select f.xmin as flow_xmin, f.*, s.xmin as step_xmin, s.step_slug, s.opt_max_attempts as step_max_attempts
from pgflow.flows f join pgflow.steps s using (flow_slug);
select is(
  pgflow.flow_definition('all_of_it'),
  jsonb_set(pg_temp.everything(), '{steps}', (
    select jsonb_agg(
      '{"step_type": "single", "deps_slugs": [], "when_unmet": "skip-cascade", "when_exhausted": "fail"}'
      || case step ->> 'step_type' when 'map' then '{"when_item_fails": "fail"}' else '{}' end::jsonb
      || step || jsonb_build_object('deps_slugs', array(select jsonb_array_elements_text(step -> 'deps_slugs') order by 1)) order by n
    )
    from jsonb_array_elements(pg_temp.everything() -> 'steps') with ordinality as s (step, n)
  )) || '{"alias": "all_of_it", "version": 1, "schedulable": false, "priority": "normal"}',
  'flow_definition gives it back, with its defaults'
);
select lives_ok(
  $$ select pgflow.register_flow(pgflow.flow_definition(flow_slug)) from pgflow.flows $$, 'which is the same flow again'
);
select lives_ok($$ select pgflow.register_flow(pg_temp.everything()) $$, 'and so is the first definition');
select results_eq(
  $$ select f.xmin, f.*, s.xmin, s.step_slug, s.opt_max_attempts from pgflow.flows f join pgflow.steps s using (flow_slug) order by f.flow_slug, s.step_slug $$,
  'select * from before order by flow_slug, step_slug', 'nothing is written for the same definition'
);
select pgflow.create_flow('by_hand', timeout => 9);
select pgflow.add_step('by_hand', 'a'), pgflow.add_step('by_hand', 'm', array['a'], step_type => 'map');
select is((select shape_hash from pgflow.flows where flow_slug = 'by_hand'), null, 'a flow that was made by hand has no hash');
select lives_ok(
  $$ select pgflow.register_flow('{"flow_slug": "by_hand", "steps": [{"step_slug": "a"}, {"step_slug": "m", "deps_slugs": ["a"], "step_type": "map"}]}') $$,
  'but can be registered'
);
select isnt((select shape_hash from pgflow.flows where flow_slug = 'by_hand'), null, 'and has one then');
select pgflow.add_step('by_hand', 'b');
select is((select shape_hash from pgflow.flows where flow_slug = 'by_hand'), null, 'until a step is added by hand');

-- Other options
select pgflow.start_flow('plain', '{}');
select is(
  (select (f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, f.start_role, f.broadcast)::text from pgflow.register_flow('{
    "flow_slug": "plain", "max_attempts": 1, "base_delay": 2, "timeout": 3, "start_role": "authenticated", "broadcast": "always",
    "steps": [{"step_slug": "a", "max_attempts": 4, "base_delay": 5, "timeout": 6, "start_delay": 7}]
  }') f),
  '(1,2,3,authenticated,always)', 'options are updated in place, with runs too'
);
select results_eq(
  $$ select opt_max_attempts, opt_base_delay, opt_timeout, opt_start_delay from pgflow.steps where flow_slug = 'plain' $$,
  $$ values (4, 5::numeric, 6, 7) $$, 'those of steps too'
);
select is(
  (select shape_hash from pgflow.flows where flow_slug = 'plain'), (select shape_hash from before where flow_slug = 'plain'),
  'they are no part of the shape'
);
select pgflow.register_flow('{"flow_slug": "plain", "steps": [{"step_slug": "a"}]}');
select results_eq(
  $$ select f.opt_timeout, f.start_role, s.opt_timeout from pgflow.flows f join pgflow.steps s using (flow_slug) where flow_slug = 'plain' $$,
  $$ values (60, 'service_role', null::int) $$, 'what is left out is the default again'
);
select is(
  (select f.input_schema from pgflow.register_flow('{"flow_slug": "plain", "input_schema": {"type": "object"}, "steps": [{"step_slug": "a"}]}') f),
  '{"type": "object"}'::jsonb, 'a schema may be added'
);
select is(
  (select f.input_schema from pgflow.register_flow('{"flow_slug": "plain", "steps": [{"step_slug": "a"}]}') f),
  '{"type": "object"}'::jsonb, 'and stays where a definition has none'
);
select isnt(
  (select shape_hash from pgflow.flows where flow_slug = 'plain'), (select shape_hash from before where flow_slug = 'plain'),
  'it is part of the shape'
);

-- Bad definitions
create temp table bad (definition jsonb, message text);
insert into bad values
  ('[]', 'the definition is invalid: it is not an object'),
  ('{}', 'the definition is invalid: flow_slug is missing'),
  ('{"flow_slug": "x"}', 'the definition of flow "x" is invalid: it has no steps'),
  ('{"flow_slug": "x", "steps": []}', 'the definition of flow "x" is invalid: it has no steps'),
  ('{"flow_slug": "x", "steps": {"a": {}}}', 'the definition of flow "x" is invalid: steps is {"a": {}}, not an array of objects'),
  ('{"flow_slug": "x", "steps": [["a"]]}', 'the definition of flow "x" is invalid: steps is [["a"]], not an array of objects'),
  ('{"flow_slug": "x", "timeout": 1.5, "steps": []}', 'the definition of flow "x" is invalid: timeout is 1.5, not a whole number of seconds from 1 to 31536000'),
  ('{"flow_slug": "x", "version": 3000000000, "steps": []}', 'the definition of flow "x" is invalid: version is 3000000000, not a whole number'),
  ('{"flow_slug": "x", "input_schema": "string", "steps": []}', 'the definition of flow "x" is invalid: input_schema is "string", not a JSON Schema'),
  ('{"flow_slug": "x", "steps": [{}]}', 'the definition of flow "x" is invalid: step 1: step_slug is missing'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "deps_slugs": "b"}]}', 'the definition of flow "x" is invalid: step "a": deps_slugs is "b", not an array of texts'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "run_if": "b"}]}', 'the definition of flow "x" is invalid: step "a": run_if is "b", not an object'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a"}, {"step_slug": "a"}]}', 'the definition of flow "x" is invalid: step "a": an earlier step has the same slug'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "deps_slugs": ["nope"]}]}', 'the definition of flow "x" is invalid: step "a": it depends on "nope", which is not a step of the flow'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "deps_slugs": ["a"]}]}', 'the definition of flow "x" is invalid: step "a": it depends on itself'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "deps_slugs": ["b"]}, {"step_slug": "b", "deps_slugs": ["a"]}]}',
   'the definition of flow "x" is invalid: step "a": it depends on "b", which comes after it: put each step after its deps; a cycle has no such order'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a"}, {"step_slug": "b", "deps_slugs": ["a", "a"]}]}', 'the definition of flow "x" is invalid: step "b": it names its dep "a" twice'),
  ('{"flow_slug": "x-y", "steps": [{"step_slug": "a"}]}', '"x-y" is not a valid slug'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "run"}]}', '"run" is not a valid slug'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a"}, {"step_slug": "m", "step_type": "map", "map_source": "a"}]}', 'the definition of flow "x" is invalid: step "m": it maps "a", which is not one of its deps'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "when_unmet": "explode"}]}', 'the definition of flow "x" is invalid: step "a": when_unmet is "explode", not one of fail, skip, skip-cascade'),
  ('{"flow_slug": "x", "timeout": 0, "steps": [{"step_slug": "a"}]}', 'the definition of flow "x" is invalid: timeout is 0, not a whole number of seconds from 1 to 31536000'),
  ('{"flow_slug": "x", "steps": [{"step_slug": "a", "start_delay": -1}]}', 'the definition of flow "x" is invalid: step "a": start_delay is -1, not a whole number of seconds from 0 to 31536000');
select throws_ok(format('select pgflow.register_flow(%L)', definition), 'PT400', message, message) from bad order by ctid;
select throws_ok(
  $$ select pgflow.register_flow('{"flow_slug": "x", "timeouts": 1, "steps": [{"step_slug": "a"}]}') $$, 'PT400',
  'the definition of flow "x" is invalid: it has the unknown key "timeouts": the keys are alias, steps, limits, timeout, version, deadline, priority, broadcast, flow_slug, schedules, undo_flow, base_delay, start_role, schedulable, input_schema, max_attempts, output_schema, singleton_path, singleton_wait, singleton_when_busy',
  'an unknown key'
);
select throws_like(
  $$ select pgflow.register_flow('{"flow_slug": "x", "steps": [{"step_slug": "a", "depends_on": null}]}') $$,
  'the definition of flow "x" is invalid: step "a": it has the unknown key "depends_on": the keys are %', 'of a step too'
);
select is_empty($$ select from pgflow.flows where flow_slug like 'x%' $$, 'a refused flow does not exist');
select is_empty($$ select from pgflow.steps where flow_slug like 'x%' $$, 'nor its steps');
select is_empty($$ select from pgmq.list_queues() where queue_name like 'x%' $$, 'nor its queue');
select throws_ok($$ select pgflow.register_flow(null) $$, 'PT400', 'the definition is invalid: it is not an object', 'null is no definition');

select * from finish();
rollback;
