begin;
select plan(30);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.states(n int) returns text
return (
  select string_agg(ss.step_slug || ' ' || ss.status, ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.run(n)
);
create function pg_temp.output(n int) returns jsonb return (select output from pgflow.runs where run_id = pg_temp.run(n));

-- On the run, at the root
select pgflow.create_flow('root');
select pgflow.add_step('root', 'if_go', run_if => '{"run": {"go": true}}');
select pgflow.add_step('root', 'unless_stop', run_unless => '{"run": {"stop": true}}');
select pgflow.add_step('root', 'both', run_if => '{"run": {"go": true}}', run_unless => '{"run": {"stop": true}}');
create temp table inputs (n int, input jsonb, states text);
insert into inputs values
  (1, '{"go": true}', 'if_go started, unless_stop started, both started'),
  (2, '{"go": true, "stop": true}', 'if_go started, unless_stop skipped, both skipped'),
  (3, '{"go": false, "x": 1}', 'if_go skipped, unless_stop started, both skipped'),
  (4, '{"stop": true}', 'if_go skipped, unless_stop skipped, both skipped'),
  (5, 'null', 'if_go skipped, unless_stop started, both skipped'),
  (6, '[{"go": true}]', 'if_go skipped, unless_stop started, both skipped');
select pgflow.start_flow('root', input, run_id => pg_temp.run(n)) from inputs order by n;
select is(pg_temp.states(n), states, 'conditions of root steps on the run''s input ' || input::text) from inputs order by n;
select results_eq(
  $$ select step_slug from pgflow.step_tasks where run_id = pg_temp.run(2) $$, array['if_go'], 'a skipped step has no task'
);
select results_eq(
  $$ select status, output from pgflow.runs where run_id = pg_temp.run(4) $$,
  $$ values ('completed', '{}'::jsonb) $$, 'a run whose leaves are all skipped completes with {}'
);
select results_eq(
  $$ select type, step_slug, data ->> 'skip_reason' from pgflow.run_events where run_id = pg_temp.run(4) order by seq $$,
  $$ values ('run:started', null, null), ('step:skipped', 'if_go', 'condition_unmet'),
            ('step:skipped', 'unless_stop', 'condition_unmet'), ('step:skipped', 'both', 'condition_unmet'),
            ('run:completed', null, null) $$,
  'its log says what was skipped, and why'
);
select results_eq(
  $$ select skip_reason, skipped_at is not null, started_at, output, error, initial_tasks from pgflow.step_states
     where run_id = pg_temp.run(2) and step_slug = 'both' $$,
  $$ values ('condition_unmet', true, null::timestamptz, null::jsonb, null, null::int) $$, 'so does the step''s state'
);

-- On deps, and on a fragment inside them
select pgflow.create_flow('dep');
select pgflow.add_step('dep', 'a');
select pgflow.add_step('dep', 'b');
select pgflow.add_step('dep', 'big', array['a'], run_if => '{"a": {"size": "big"}}');
select pgflow.add_step('dep', 'tagged', array['a', 'b'], run_if => '{"a": {"tags": ["x"]}, "run": {"tag": 1}}');
select pgflow.add_step('dep', 'not_zero', array['b'], run_unless => '{"b": 0}');
select pgflow.start_flow('dep', '{"tag": 1, "more": 2}', run_id => pg_temp.run(n)) from generate_series(11, 12) n;
select pgflow.complete_task(pg_temp.run(11), 'a', 0, '{"size": "big", "tags": ["y", "x"]}');
select is(
  pg_temp.states(11), 'a completed, b started, big started, tagged created, not_zero created',
  'a condition is looked at when all of the step''s deps are closed'
);
select pgflow.complete_task(pg_temp.run(11), 'b', 0, '1');
select is(
  pg_temp.states(11), 'a completed, b completed, big started, tagged started, not_zero started',
  'met: fragments of deps and of the run''s input'
);
select pgflow.complete_task(pg_temp.run(12), 'a', 0, '"big"');
select pgflow.complete_task(pg_temp.run(12), 'b', 0, '0');
select is(
  pg_temp.states(12), 'a completed, b completed, big skipped, tagged skipped, not_zero skipped', 'unmet'
);
select is(pg_temp.output(12), '{}'::jsonb, 'the run ends with what is left');

-- when_unmet => fail
select pgflow.create_flow('fail');
select pgflow.add_step('fail', 'a');
select pgflow.add_step('fail', 'strict', array['a'], run_if => '{"a": 1}', when_unmet => 'fail');
select pgflow.add_step('fail', 'other');
select pgflow.start_flow('fail', '1', run_id => pg_temp.run(21));
select pgflow.complete_task(pg_temp.run(21), 'a', 0, '2');
select results_eq(
  $$ select status, error from pgflow.runs where run_id = pg_temp.run(21) $$,
  $$ values ('failed', 'step "strict" does not run: its condition is not met') $$, 'fail: the run fails and says why'
);
select is(pg_temp.states(21), 'a completed, strict failed, other cancelled', 'with everything that is open');
select is_empty('select * from pgmq.q_fail', 'no message is left');
select pgflow.start_flow('fail', '1', run_id => pg_temp.run(22));
select pgflow.complete_task(pg_temp.run(22), 'a', 0, '1');
select is(pg_temp.states(22), 'a completed, strict started, other started', 'met: it starts');
select pgflow.create_flow('fail_root'), pgflow.add_step('fail_root', 'a', run_if => '{"run": 1}', when_unmet => 'fail');
select is((select status from pgflow.start_flow('fail_root', '2')), 'failed', 'a start may fail at once');
select is((select status from pgflow.start_flow('fail_root', '1')), 'started', 'or not');

-- when_unmet => skip
select pgflow.create_flow('skip');
select pgflow.add_step('skip', 'a');
select pgflow.add_step('skip', 'opt', array['a'], run_if => '{"a": 1}', when_unmet => 'skip');
select pgflow.add_step('skip', 'join', array['a', 'opt']);
select pgflow.add_step('skip', 'needs', array['opt'], run_if => '{"opt": {}}', when_unmet => 'skip');
select pgflow.add_step('skip', 'without', array['opt'], run_unless => '{"opt": {}}', when_unmet => 'skip');
select pgflow.start_flow('skip', '"in"', run_id => pg_temp.run(n)) from generate_series(31, 32) n;
select pgflow.complete_task(pg_temp.run(31), 'a', 0, '2');
select is(
  pg_temp.states(31), 'a completed, opt skipped, join started, needs skipped, without started', 'skip: dependents run'
);
select is(
  (select input from pgflow.claim_tasks(array['skip'], 100, gen_random_uuid()) where run_id = pg_temp.run(31) and step_slug = 'join'),
  '{"run": "in", "a": 2}'::jsonb, 'without its key'
);
select is(
  (select skip_reason from pgflow.step_states where run_id = pg_temp.run(31) and step_slug = 'needs'), 'condition_unmet',
  'a condition on the dep that was skipped is not met'
);
select pgflow.complete_task(pg_temp.run(32), 'a', 0, '1');
select pgflow.complete_task(pg_temp.run(32), 'opt', 0, '{}');
select is(
  pg_temp.states(32), 'a completed, opt completed, join started, needs started, without skipped', 'met: the key is there'
);

-- when_unmet => skip-cascade, the default
select pgflow.create_flow('cascade');
select pgflow.add_step('cascade', 'a', run_if => '{"run": 1}');
select pgflow.add_step('cascade', 'b', array['a']);
select pgflow.add_step('cascade', 'c');
select pgflow.start_flow('cascade', '2', run_id => pg_temp.run(41));
select is(pg_temp.states(41), 'a skipped, b skipped, c started', 'skip-cascade: dependents are skipped too');
select results_eq(
  $$ select step_slug, skip_reason from pgflow.step_states where run_id = pg_temp.run(41) and status = 'skipped' order by 1 $$,
  $$ values ('a', 'condition_unmet'), ('b', 'dep_skipped') $$, 'which say why'
);
select is((select status from pgflow.runs where run_id = pg_temp.run(41)), 'started', 'the run goes on');
select pgflow.complete_task(pg_temp.run(41), 'c', 0, '3');
select is(pg_temp.output(41), '{"c": 3}'::jsonb, 'and completes with it');

-- A map with a condition
select pgflow.create_flow('map');
select pgflow.add_step('map', 'each', step_type => 'map', map_path => 'items', run_if => '{"run": {"items": [{"ok": true}]}}');
select pgflow.start_flow('map', '{"items": [{"ok": true, "n": 1}, {"ok": false}]}', run_id => pg_temp.run(51));
select is((select count(*) from pgflow.step_tasks where run_id = pg_temp.run(51)), 2::bigint, 'a map whose condition is met starts');
select pgflow.start_flow('map', '{"items": "no array"}', run_id => pg_temp.run(52));
select is(pg_temp.states(52), 'each skipped', 'one whose condition is not met does not look at its items');

select * from finish();
rollback;
