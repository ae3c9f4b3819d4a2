begin;
select plan(17);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.states(n int) returns text
return (
  select string_agg(ss.step_slug || ' ' || ss.status, ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.run(n)
);

-- A conditional step that an empty map makes ready
select pgflow.create_flow('after_map');
select pgflow.add_step('after_map', 'each', step_type => 'map');
select pgflow.add_step('after_map', 'some', array['each'], run_unless => '{"each": []}', when_unmet => 'skip');
select pgflow.add_step('after_map', 'wanted', array['each'], run_if => '{"run": {"go": true}}');
select pgflow.add_step('after_map', 'never', array['wanted']);
select pgflow.add_step('after_map', 'strict', array['wanted', 'some']);
select pgflow.add_step('after_map', 'plain', array['each']);
select pgflow.start_flow('after_map', '[]', run_id => pg_temp.run(1));
select is(
  pg_temp.states(1), 'each completed, some skipped, wanted skipped, never skipped, strict skipped, plain started',
  'a conditional step that an empty map made ready is evaluated, not started'
);
select results_eq(
  $$ select step_slug from pgflow.step_tasks where run_id = pg_temp.run(1) $$, array['plain'], 'it has no task'
);

-- Skip, then empty map, then condition, then cascade
select pgflow.create_flow('mixed');
select pgflow.add_step('mixed', 'opt', run_if => '{"run": 1}', when_unmet => 'skip');
select pgflow.add_step('mixed', 'm1', array['opt'], step_type => 'map');
select pgflow.add_step('mixed', 'm2', array['m1'], step_type => 'map');
select pgflow.add_step('mixed', 'c', array['m2'], run_if => '{"m2": [1]}', when_unmet => 'skip');
select pgflow.add_step('mixed', 'm3', array['c'], step_type => 'map');
select pgflow.add_step('mixed', 'd', array['m3', 'c'], run_if => '{"m3": [1]}', when_unmet => 'skip-cascade');
select pgflow.add_step('mixed', 'e', array['d'], step_type => 'map');
select is(
  (select output from pgflow.start_flow('mixed', '2', run_id => pg_temp.run(2))), '{}'::jsonb,
  'skips, empty maps and conditions follow each other within the start'
);
select is(
  pg_temp.states(2),
  'opt skipped, m1 completed, m2 completed, c skipped, m3 completed, d skipped, e skipped', 'to one fix-point'
);
select is(
  (select array_agg(seq order by seq) from pgflow.run_events where run_id = pg_temp.run(2)),
  array(select generate_series(1, 12))::bigint[], 'each transition once'
);

-- A diamond: one side skipped with all that depends on it, the other at work
select pgflow.create_flow('diamond');
select pgflow.add_step('diamond', 'a');
select pgflow.add_step('diamond', 'left', array['a'], run_if => '{"a": "left"}');
select pgflow.add_step('diamond', 'right', array['a']);
select pgflow.add_step('diamond', 'join', array['left', 'right']);
select pgflow.add_step('diamond', 'after', array['join', 'right']);
select pgflow.start_flow('diamond', '1', run_id => pg_temp.run(3));
select pgflow.complete_task(pg_temp.run(3), 'a', 0, '"right"');
select is(
  pg_temp.states(3), 'a completed, left skipped, right started, join skipped, after skipped',
  'a cascade does not wait for the other side'
);
select pgflow.complete_task(pg_temp.run(3), 'right', 0, '1');
select is(
  pg_temp.states(3), 'a completed, left skipped, right completed, join skipped, after skipped', 'nor does the other side wake it'
);
select results_eq(
  $$ select status, output from pgflow.runs where run_id = pg_temp.run(3) $$,
  $$ values ('completed', '{}'::jsonb) $$, 'a leaf is a leaf of the flow, not of what ran'
);

-- Both sides in one wave
select pgflow.create_flow('wave');
select pgflow.add_step('wave', 'hard', run_if => '{"run": 1}');
select pgflow.add_step('wave', 'soft', run_if => '{"run": 1}', when_unmet => 'skip');
select pgflow.add_step('wave', 'join', array['hard', 'soft']);
select pgflow.add_step('wave', 'twice', array['join', 'hard']);
select pgflow.start_flow('wave', '2', run_id => pg_temp.run(4));
select is(pg_temp.states(4), 'hard skipped, soft skipped, join skipped, twice skipped', 'a cascade outdoes a skip');
select is(
  (select count(*) from pgflow.run_events where run_id = pg_temp.run(4) and type = 'step:skipped'), 4::bigint, 'each step once'
);

-- A cascade reaches steps in the wave in which their other dep ends.
select pgflow.create_flow('meet');
select pgflow.add_step('meet', 'gone', run_if => '{"run": 1}'), pgflow.add_step('meet', 'soft', run_if => '{"run": 1}', when_unmet => 'skip');
select pgflow.add_step('meet', 'm', array['soft'], step_type => 'map');
select pgflow.add_step('meet', 'd' || n, array['gone', 'm']) from generate_series(1, 5) n;
select results_eq(
  $$ select status, output from pgflow.start_flow('meet', '2', run_id => pg_temp.run(7)) $$,
  $$ values ('completed', '{}'::jsonb) $$, 'a step that is skipped is not freed by a dep that ends at the same time'
);
select results_eq(
  $$ select distinct status, remaining_deps from pgflow.step_states where run_id = pg_temp.run(7) and step_slug like 'd%' $$,
  $$ values ('skipped', 2) $$, 'its deps are no longer counted'
);

-- Long chains
create function pg_temp.chain(flow text, first jsonb, following jsonb[]) returns jsonb
return (
  select jsonb_build_object('flow_slug', flow, 'steps', jsonb_agg(
    jsonb_build_object('step_slug', 's' || n)
    || case n when 0 then first else jsonb_build_object('deps_slugs', array['s' || n - 1]) || following[1 + n % cardinality(following)] end
    order by n
  ))
  from generate_series(0, 119) n
);
select pgflow.register_flow(pg_temp.chain('long_skips', '{"run_if": {"run": 1}}', array['{}']::jsonb[]));
select pgflow.register_flow(pg_temp.chain('long_maps', '{"step_type": "map"}', array[
  '{"run_if": {"run": 1}, "when_unmet": "skip"}', '{"step_type": "map"}', '{"step_type": "map"}'
]::jsonb[]));
select is((select status from pgflow.start_flow('long_skips', '2', run_id => pg_temp.run(5))), 'completed', '120 steps skipped in a chain');
select is(
  (select count(*) from pgflow.step_states where run_id = pg_temp.run(5) and status = 'skipped'), 120::bigint, 'to the last one'
);
select is(
  (select output from pgflow.start_flow('long_maps', '[]', run_id => pg_temp.run(6))), '{"s119": []}'::jsonb,
  '120 empty maps and skips in a chain'
);
select results_eq(
  $$ select status, count(*) from pgflow.step_states where run_id = pg_temp.run(6) group by 1 order by 1 $$,
  $$ values ('completed', 81::bigint), ('skipped', 39) $$, 'each its own way'
);

-- All of it
select is_empty(
  $$ select run_id from pgflow.step_states where status in ('created', 'started')
     group by run_id having run_id in (select r.run_id from pgflow.runs r where r.status <> 'started') $$,
  'no step of a run that ended is open'
);

select * from finish();
rollback;
