begin;
select plan(12);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.log(n int, after int default 0) returns text[]
return array(
  select concat_ws(' ', e.event ->> 'type', e.event ->> 'step_slug', e.event ->> 'initial_tasks')
  from pgflow.run_event_records e where e.run_id = pg_temp.run(n) and e.seq > after order by e.seq
);

select pgflow.create_flow('f'), pgflow.add_step('f', 'each', step_type => 'map');
select results_eq(
  $$ select status, output from pgflow.start_flow('f', '[]', run_id => pg_temp.run(1)) $$,
  $$ values ('completed', '{"each": []}'::jsonb) $$,
  'a run of nothing but an empty map completes when it starts'
);
select is(
  pg_temp.log(1),
  array['run:started', 'step:started each 0', 'step:completed each', 'run:completed'],
  'the map starts without tasks, then completes'
);
select results_eq(
  $$ select status, initial_tasks, remaining_tasks, output, started_at = completed_at from pgflow.step_states where run_id = pg_temp.run(1) $$,
  $$ values ('completed', 0, 0, '[]'::jsonb, true) $$, 'with an empty array'
);
select is_empty('select * from pgmq.q_f', 'and no message');
select is_empty('select * from pgflow.step_tasks', 'nor task');

-- Chains
select pgflow.create_flow('chain');
select pgflow.add_step('chain', 'list');
select pgflow.add_step('chain', 'm1', array['list'], step_type => 'map');
select pgflow.add_step('chain', 'm2', array['m1'], step_type => 'map');
select pgflow.add_step('chain', 'm3', array['m2', 'm1'], step_type => 'map', map_source => 'm2');
select pgflow.add_step('chain', 'join', array['m3', 'list']);
select pgflow.start_flow('chain', '1', run_id => pg_temp.run(2));
select pgflow.complete_task(pg_temp.run(2), 'list', 0, '[]');
select is(
  pg_temp.log(2, 2),
  array[
    'step:completed list', 'step:started m1 0', 'step:completed m1', 'step:started m2 0', 'step:completed m2',
    'step:started m3 0', 'step:completed m3', 'step:started join 1'
  ],
  'empty maps follow each other in one settlement, up to the step that has work'
);
select is(
  (select input from pgflow.claim_tasks(array['chain'], 100, gen_random_uuid())),
  '{"run": 1, "m3": [], "list": []}'::jsonb, 'which gets their empty arrays'
);
select is((select status from pgflow.runs where run_id = pg_temp.run(2)), 'started', 'the run waits for that one');
select pgflow.complete_task(pg_temp.run(2), 'join', 0, '"end"');
select is((select output from pgflow.runs where run_id = pg_temp.run(2)), '{"join": "end"}', 'and ends the run');

-- A source that was skipped
select pgflow.create_flow('skipped');
select pgflow.add_step('skipped', 'list', run_if => '{"run": {"go": true}}', when_unmet => 'skip');
select pgflow.add_step('skipped', 'each', array['list'], step_type => 'map', map_path => 'deep.inside');
select pgflow.start_flow('skipped', '{}', run_id => pg_temp.run(3));
select is(
  pg_temp.log(3), array['run:started', 'step:skipped list', 'step:started each 0', 'step:completed each', 'run:completed'],
  'a map over a dep that was skipped is empty'
);
select is((select output from pgflow.runs where run_id = pg_temp.run(3)), '{"each": []}', 'and says so');

-- The last item of one map among runs with empty ones, in one batch
select pgflow.start_flow('chain', '1', run_id => pg_temp.run(n)) from generate_series(4, 6) n;
select pgflow.claim_tasks(array['chain'], 100, gen_random_uuid());
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object(
    'run_id', pg_temp.run(n), 'step_slug', 'list', 'task_index', 0, 'attempt', 1, 'output', case n when 5 then '[1]'::jsonb else '[]' end
  )) from generate_series(4, 6) n
));
select results_eq(
  $$ select run_id, string_agg(step_slug || ' ' || status, ', ' order by step_slug) from pgflow.step_states
     where run_id in (pg_temp.run(4), pg_temp.run(5), pg_temp.run(6)) group by run_id order by run_id $$,
  $$ values
    (pg_temp.run(4), 'join started, list completed, m1 completed, m2 completed, m3 completed'),
    (pg_temp.run(5), 'join created, list completed, m1 started, m2 created, m3 created'),
    (pg_temp.run(6), 'join started, list completed, m1 completed, m2 completed, m3 completed') $$,
  'each run of a batch goes its own way'
);

select * from finish();
rollback;
