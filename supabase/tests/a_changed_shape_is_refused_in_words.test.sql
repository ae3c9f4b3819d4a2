begin;
select plan(25);

create function pg_temp.flow() returns jsonb language sql as $$
  select '{"flow_slug": "x", "input_schema": {"type": "object"}, "steps": [
    {"step_slug": "a"}, {"step_slug": "b"}, {"step_slug": "s", "deps_slugs": ["a"]},
    {"step_slug": "m", "deps_slugs": ["a", "b"], "step_type": "map", "map_source": "a", "input_schema": {"type": "string"}}
  ]}'::jsonb
$$;
-- The flow with one of its steps changed.
create function pg_temp.with_step(slug text, change jsonb) returns jsonb language sql as $$
  select jsonb_set(pg_temp.flow(), '{steps}', (
    select jsonb_agg(case when step ->> 'step_slug' = slug then step || change else step end order by n)
    from jsonb_array_elements(pg_temp.flow() -> 'steps') with ordinality as s (step, n)
  ))
$$;
select pgflow.register_flow(pg_temp.flow());
create temp table before as select pgflow.flow_definition('x') as definition;

create temp table changes (definition jsonb, words text);
insert into changes values
  (pg_temp.with_step('s', '{"deps_slugs": ["a", "b"]}'), 'step "s" now depends on "b"'),
  (pg_temp.with_step('s', '{"deps_slugs": []}'), 'step "s" no longer depends on "a"'),
  (pg_temp.with_step('s', '{"deps_slugs": ["b"]}'), 'step "s" no longer depends on "a"; step "s" now depends on "b"'),
  (jsonb_insert(pg_temp.flow(), '{steps,-1}', '{"step_slug": "c"}'), 'step "c" is new'),
  (pg_temp.flow() #- '{steps,2}', 'step "s" is gone'),
  (pg_temp.with_step('s', '{"step_slug": "t"}'), 'step "s" is gone; step "t" is new'),
  (pg_temp.with_step('a', '{"step_type": "map"}'), 'map_source of step "a" is run, not absent; step_type of step "a" is map, not single; when_item_fails of step "a" is fail, not absent'),
  (pg_temp.with_step('m', '{"map_source": "b"}'), 'map_source of step "m" is b, not a'),
  (pg_temp.with_step('m', '{"when_item_fails": "collect"}'), 'when_item_fails of step "m" is collect, not fail'),
  (pg_temp.with_step('m', '{"map_path": "x"}'), 'map_path of step "m" is x, not absent'),
  (pg_temp.with_step('s', '{"run_if": {"run": 1}}'), 'run_if of step "s" is {"run": 1}, not absent'),
  (pg_temp.with_step('s', '{"run_unless": {"run": 1}}'), 'run_unless of step "s" is {"run": 1}, not absent'),
  (pg_temp.with_step('s', '{"when_unmet": "fail"}'), 'when_unmet of step "s" is fail, not skip-cascade'),
  (pg_temp.with_step('s', '{"when_exhausted": "skip"}'), 'when_exhausted of step "s" is skip, not fail'),
  (pg_temp.flow() || '{"input_schema": {"type": "string"}}', 'the input schema is another'),
  (pg_temp.with_step('m', '{"input_schema": true}'), 'the input schema of step "m" is another'),
  (jsonb_insert(pg_temp.with_step('s', '{"deps_slugs": ["b"]}'), '{steps,0}', '{"step_slug": "c"}') || '{"input_schema": true}',
   'the input schema is another; step "c" is new; step "s" no longer depends on "a"; step "s" now depends on "b"');
select throws_ok(
  format('select pgflow.register_flow(%L)', definition || '{"timeout": 1}'),
  'PT409', 'the shape of "x" changed: ' || words, words
) from changes order by ctid;
select is(pgflow.flow_definition('x'), (select definition from before), 'nothing is changed then, options neither');

-- The same shape
select lives_ok(
  $$ select pgflow.register_flow(pg_temp.with_step('m', '{"deps_slugs": ["b", "a"]}')) $$, 'the order of deps is no part of the shape'
);
select lives_ok(
  $$ select pgflow.register_flow('{"flow_slug": "x", "steps": [
       {"step_slug": "b", "when_unmet": "skip-cascade", "step_type": "single"}, {"step_slug": "a", "when_exhausted": "fail"},
       {"step_slug": "m", "deps_slugs": ["a", "b"], "step_type": "map", "map_source": "a"}, {"step_slug": "s", "deps_slugs": ["a"]}
     ]}') $$,
  'nor is that of steps, a default that is written out, or a schema that is left out'
);
select is(
  pgflow.flow_shape('{"flow_slug": "f", "timeout": 3, "steps": [{"step_slug": "a"}, {"step_slug": "B", "step_type": "map", "deps_slugs": ["a"], "max_attempts": 1}]}'),
  '{"flow_slug": "f", "steps": [
    {"step_slug": "B", "step_type": "map", "deps_slugs": ["a"], "map_source": "a", "when_unmet": "skip-cascade", "when_exhausted": "fail",
     "when_item_fails": "fail"},
    {"step_slug": "a", "step_type": "single", "deps_slugs": [], "when_unmet": "skip-cascade", "when_exhausted": "fail"}
  ]}'::jsonb,
  'a shape is canonical: steps and deps in order, defaults written out, no options'
);

-- The hint
create function pg_temp.hint_of(statement text) returns text language plpgsql as $$
declare
  hint text;
begin
  execute statement;
  return null;
exception when others then
  get stacked diagnostics hint = pg_exception_hint;
  return hint;
end
$$;
select is(
  pg_temp.hint_of($$ select pgflow.register_flow('{"flow_slug": "x", "steps": [{"step_slug": "a"}]}') $$),
  'Runs of it go on in the shape they have: give the changed flow a new version (version: 2).', 'says what to do'
);
select pgflow.register_flow('{"flow_slug": "x_v2", "alias": "x", "version": 2, "steps": [{"step_slug": "a"}]}');
select is(
  pg_temp.hint_of($$ select pgflow.register_flow('{"flow_slug": "x", "steps": [{"step_slug": "a"}]}') $$),
  'Runs of it go on in the shape they have: give the changed flow a new version (version: 3).', 'with the version that is free'
);
select throws_ok(
  $$ select pgflow.register_flow('{"flow_slug": "x_v2", "alias": "x", "version": 2, "steps": [{"step_slug": "b"}]}') $$,
  'PT409', 'the shape of "x_v2" changed: step "a" is gone; step "b" is new', 'a version is immutable too'
);
select is(pgflow.flow_definition('nope'), null, 'a flow that is not there has no definition');

select * from finish();
rollback;
