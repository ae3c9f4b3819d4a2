begin;
select plan(30);
select pgflow.create_flow('f');

select is(
  (select (s.flow_slug, s.step_slug, s.step_index, s.step_type, s.deps_count)::text from pgflow.add_step('f', 'a') s),
  '(f,a,0,single,0)',
  'answers with the step'
);
select is(
  (select (s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay)::text from pgflow.add_step('f', 'b') s),
  '(,,,)',
  'options that are not given are the flow''s'
);
select is(
  (select (s.step_index, s.deps_count, s.opt_max_attempts, s.opt_base_delay, s.opt_timeout, s.opt_start_delay)::text
   from pgflow.add_step(
     flow_slug => 'f', step_slug => 'c', deps_slugs => array['b', 'a'],
     max_attempts => 1, base_delay => 0, timeout => 2, start_delay => 3
   ) s),
  '(2,2,1,0,2,3)',
  'takes deps and options by name'
);
select is(
  (select (s.step_index, s.deps_count, s.opt_timeout)::text
   from pgflow.add_step(flow_slug => 'f', step_slug => 'd', timeout => 9) s),
  '(3,0,9)',
  'and options without deps'
);
select set_eq(
  $$ select dep_slug, step_slug from pgflow.deps where flow_slug = 'f' $$,
  $$ values ('a', 'c'), ('b', 'c') $$,
  'each dep is an edge'
);
select lives_ok($$ select pgflow.add_step('f', 'e', deps_slugs => '{}') $$, 'no deps');
select lives_ok($$ select pgflow.add_step('f', 'g', deps_slugs => null) $$, 'nor is null a dep');

-- The second call
create temp table steps_before as select * from pgflow.steps where flow_slug = 'f';
select is(
  (select (s.step_index, s.opt_max_attempts)::text
   from pgflow.add_step('f', 'c', deps_slugs => array['a', 'b'], max_attempts => 8) s),
  '(2,1)',
  'a second call, deps in another order, answers with the step as it is'
);
select results_eq(
  $$ select * from pgflow.steps where flow_slug = 'f' order by step_index $$,
  $$ select * from steps_before order by step_index $$,
  'and changes nothing, options included'
);
select throws_ok(
  $$ select pgflow.add_step('f', 'c', deps_slugs => array['a']) $$,
  'PT409', 'the shape of "f" changed: step "c" no longer depends on "b"', 'fewer deps differ'
);
select throws_ok(
  $$ select pgflow.add_step('f', 'c', deps_slugs => array['a', 'b', 'd']) $$,
  'PT409', 'the shape of "f" changed: step "c" now depends on "d"', 'more deps differ'
);
select throws_ok($$ select pgflow.add_step('f', 'c') $$, 'PT409', null, 'no deps differ');
select throws_ok($$ select pgflow.add_step('f', 'a', deps_slugs => array['b']) $$, 'PT409', null, 'a root step stays one');
select is((select count(*) from pgflow.deps where flow_slug = 'f'), 2::bigint, 'the edges are as they were');

-- Bad deps
select throws_ok(
  $$ select pgflow.add_step('f', 'x', deps_slugs => array['a', 'a']) $$,
  'PT400', 'the definition of flow "f" is invalid: step "x": it names its dep "a" twice', 'a dep is named once'
);
select throws_ok(
  $$ select pgflow.add_step('f', 'x', deps_slugs => array['nope']) $$,
  'PT400', 'the definition of flow "f" is invalid: step "x": it depends on "nope", which is not a step of the flow', 'deps are there before'
);
select throws_ok(
  $$ select pgflow.add_step('f', 'x', deps_slugs => array['x']) $$,
  'PT400', 'the definition of flow "f" is invalid: step "x": it depends on itself', 'a step does not wait for itself'
);
select throws_ok(
  $$ select pgflow.add_step('f', 'x', deps_slugs => array['a', null]) $$,
  'PT400', 'the definition of flow "f" is invalid: step "x": deps_slugs is ["a", null], not an array of texts', 'a dep is not null'
);

-- Bad options
select throws_ok(
  $$ select pgflow.add_step('f', 'x', max_attempts => -1) $$,
  'PT400', 'the definition of flow "f" is invalid: step "x": max_attempts is -1, not a whole number from 0', 'max_attempts'
);
select throws_ok($$ select pgflow.add_step('f', 'x', base_delay => -0.1) $$, 'PT400', null, 'base_delay');
select throws_ok($$ select pgflow.add_step('f', 'x', timeout => 0) $$, 'PT400', null, 'timeout');
select throws_ok($$ select pgflow.add_step('f', 'x', start_delay => -1) $$, 'PT400', null, 'start_delay');
select throws_ok(
  format($$ select pgflow.add_step('f', 'x', %s => 31536001) $$, option), 'PT400', null, option || ' of more than a year'
) from unnest(array['base_delay', 'timeout', 'start_delay']) option;
select is_empty($$ select * from pgflow.steps where step_slug = 'x' $$, 'a refused step does not exist');

select throws_ok(
  $$ select pgflow.add_step('nope', 'a') $$, 'PT404', 'flow "nope" does not exist', 'the flow is there before'
);

-- Runs pin the shape
select pgflow.start_flow('f', '{}');
select throws_ok(
  $$ select pgflow.add_step('f', 'x') $$,
  'PT409', 'flow "f" has runs: step "x" cannot be added to it', 'a flow that has runs gets no new steps'
);
select lives_ok(
  $$ select pgflow.add_step('f', 'a'), pgflow.add_step('f', 'c', deps_slugs => array['a', 'b']) $$,
  'but the same definition may run again'
);
select throws_ok(
  $$ insert into pgflow.deps values ('f', 'a', 'a') $$, '23514', null, 'the table forbids a step that waits for itself'
);

select * from finish();
rollback;
