begin;
select plan(43);

select pgflow.create_flow('f');
select pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b'), pgflow.add_step('f', 'c', array['a']);

-- Defaults
select results_eq(
  $$ select step_type, map_source, map_path, run_if, run_unless, when_unmet, when_exhausted, is_plain from pgflow.steps where step_slug = 'a' $$,
  $$ values ('single', null, null, null::jsonb, null::jsonb, 'skip-cascade', 'fail', true) $$, 'a step that says nothing'
);
select is((select map_source from pgflow.add_step('f', 'm_root', step_type => 'map')), 'run', 'a root map is over the run''s input');
select is((select map_source from pgflow.add_step('f', 'm_dep', array['a'], step_type => 'map')), 'a', 'a map with one dep is over that');
select is(
  (select map_source from pgflow.add_step('f', 'm_two', array['a', 'b'], step_type => 'map', map_source => 'b')), 'b', 'with several it says which'
);
select is(
  (select map_source from pgflow.add_step('f', 'm_run', array['a', 'b'], step_type => 'map', map_source => 'run')), 'run', 'or that it is the run''s input'
);
select results_eq(
  $$ select step_type, map_path, run_if, run_unless, when_unmet, when_exhausted, is_plain from pgflow.add_step(
       flow_slug => 'f', step_slug => 'm_all', deps_slugs => array['a'], step_type => 'map', map_source => 'a', map_path => 'x.y',
       run_if => '{"run": 1}', run_unless => '{"a": 2}', when_unmet => 'fail', when_exhausted => 'skip'
     ) $$,
  $$ values ('map', 'x.y', '{"run": 1}'::jsonb, '{"a": 2}'::jsonb, 'fail', 'skip', false) $$, 'all options by name'
);
select results_eq(
  $$ select map_source, map_path, run_if, run_unless, when_unmet, when_exhausted from pgflow.add_step(
       flow_slug => 'f', step_slug => 'm_all_root', step_type => 'map', map_source => 'run', map_path => 'x', run_if => '{"run": 1}',
       run_unless => '{"run": 2}', when_unmet => 'skip', when_exhausted => 'skip-cascade'
     ) $$,
  $$ values ('run', 'x', '{"run": 1}'::jsonb, '{"run": 2}'::jsonb, 'skip', 'skip-cascade') $$, 'also without deps'
);
select is((select is_plain from pgflow.add_step('f', 'cond', run_if => '{}')), false, 'a step with a condition is not plain');
select is((select is_plain from pgflow.steps where step_slug = 'm_root'), false, 'nor is a map');

-- Bad options
create temp table bad (options text, message text, title text);
insert into bad values
  ($$array['a', 'b'], step_type => 'map'$$, 'it has several deps: map_source says which one it maps', 'a map over one of several deps says which'),
  ($$array['a'], step_type => 'map', map_source => 'b'$$, 'it maps "b", which is not one of its deps', 'the source is a dep'),
  ($$step_type => 'map', map_source => 'a'$$, 'it maps "a", which is not one of its deps', 'also of a root map'),
  ($$array['a'], step_type => 'map', map_source => 'x'$$, 'it maps "x", which is not one of its deps', 'not the step itself'),
  ($$step_type => 'map', map_path => ''$$, 'map_path is "", not a path of the form a.b', 'an empty path'),
  ($$step_type => 'map', map_path => '.a'$$, 'map_path is ".a", not a path of the form a.b', 'a path that begins with a dot'),
  ($$step_type => 'map', map_path => 'a.'$$, 'map_path is "a.", not a path of the form a.b', 'or ends with one'),
  ($$step_type => 'map', map_path => 'a..b'$$, 'map_path is "a..b", not a path of the form a.b', 'or has an empty part'),
  ($$array['a'], map_source => 'a'$$, 'its step_type is single, which has no map_source', 'only maps have a source'),
  ($$array['a'], map_path => 'a'$$, 'its step_type is single, which has no map_path', 'only maps have a path'),
  ($$step_type => 'spin'$$, 'step_type is "spin", not one of single, map, wait, sleep, loop, sql', 'an unknown type'),
  ($$when_unmet => 'explode'$$, 'when_unmet is "explode", not one of fail, skip, skip-cascade', 'an unknown when_unmet'),
  ($$when_exhausted => 'retry'$$, 'when_exhausted is "retry", not one of fail, skip, skip-cascade', 'an unknown when_exhausted');
select throws_ok(
  format('select pgflow.add_step(%L, %L, %s)', 'f', 'x', options), 'PT400', format('the definition of flow "f" is invalid: step "x": %s', message), title
) from bad order by ctid;
select is_empty($$ select * from pgflow.steps where step_slug = 'x' $$, 'a refused step does not exist');
select is_empty($$ select * from pgflow.deps where step_slug = 'x' $$, 'nor its edges');

-- The second call
create temp table before as select * from pgflow.steps;
select lives_ok(
  $$ select pgflow.add_step('f', 'm_root', step_type => 'map', map_source => 'run'), pgflow.add_step('f', 'm_dep', array['a'], step_type => 'map'),
            pgflow.add_step('f', 'm_dep', array['a'], step_type => 'map', map_source => 'a'), pgflow.add_step('f', 'cond', run_if => '{ }') $$,
  'the same shape, written out or not'
);
select results_eq('select * from pgflow.steps order by step_index', 'select * from before order by step_index', 'changes nothing');

create temp table differences (step text, options text, difference text);
insert into differences values
  ('a', $$step_type => 'map'$$, 'map_source of step "a" is run, not absent; step_type of step "a" is map, not single; when_item_fails of step "a" is fail, not absent'),
  ('m_root', '', 'map_source of step "m_root" is absent, not run; step_type of step "m_root" is single, not map; when_item_fails of step "m_root" is absent, not fail'),
  ('m_two', $$array['a', 'b'], step_type => 'map', map_source => 'a'$$, 'map_source of step "m_two" is a, not b'),
  ('m_root', $$step_type => 'map', map_path => 'x'$$, 'map_path of step "m_root" is x, not absent'),
  ('cond', '', 'run_if of step "cond" is absent, not {}'),
  ('a', $$run_if => '{"run": 1}'$$, 'run_if of step "a" is {"run": 1}, not absent'),
  ('cond', $$run_if => '{"run": 1}'$$, 'run_if of step "cond" is {"run": 1}, not {}'),
  ('a', $$run_unless => '{"run": 1}'$$, 'run_unless of step "a" is {"run": 1}, not absent'),
  ('a', $$when_unmet => 'skip'$$, 'when_unmet of step "a" is skip, not skip-cascade'),
  ('a', $$when_exhausted => 'skip'$$, 'when_exhausted of step "a" is skip, not fail'),
  ('m_dep', $$array['a'], step_type => 'map', options => '{"when_item_fails": "collect"}'$$, 'when_item_fails of step "m_dep" is collect, not fail'),
  ('m_dep', $$array['a', 'b'], step_type => 'map', map_source => 'a'$$, 'step "m_dep" now depends on "b"'),
  ('m_dep', $$array['b'], step_type => 'map'$$, 'step "m_dep" no longer depends on "a"; step "m_dep" now depends on "b"; map_source of step "m_dep" is b, not a');
select throws_ok(
  format('select pgflow.add_step(%s)', concat_ws(', ', quote_literal('f'), quote_literal(step), nullif(options, ''))), 'PT409',
  format('the shape of "f" changed: %s', difference), difference
) from differences order by ctid;
select results_eq('select * from pgflow.steps order by step_index', 'select * from before order by step_index', 'a refused call changes nothing');
select is((select count(*) from pgflow.deps where step_slug = 'm_dep'), 1::bigint, 'nor edges');

-- With runs
select pgflow.start_flow('f', '[]');
select throws_ok(
  $$ select pgflow.add_step('f', 'x', step_type => 'map') $$, 'PT409', 'flow "f" has runs: step "x" cannot be added to it', 'no map is added to a flow with runs'
);
select lives_ok($$ select pgflow.add_step('f', 'm_root', step_type => 'map') $$, 'one that is there is found');

select * from finish();
rollback;
