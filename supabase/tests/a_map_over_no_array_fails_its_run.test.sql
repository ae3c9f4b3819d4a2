begin;
select plan(17);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

select pgflow.create_flow('f');
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'each', array['a'], step_type => 'map');
select pgflow.add_step('f', 'other');
select pgflow.create_flow('p'), pgflow.add_step('p', 'each', step_type => 'map', map_path => 'x.y');

create temp table cases (n int, output jsonb, found text);
insert into cases values
  (1, 'null', 'null'), (2, '{"0": 1}', 'object'), (3, '"[]"', 'string'), (4, '0', 'number'), (5, 'false', 'boolean');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from cases order by n;
select pgflow.complete_task(pg_temp.run(n), 'a', 0, output) from cases order by n;

select is(
  (select error from pgflow.runs where run_id = pg_temp.run(n)),
  format('step "each" cannot map a: it is %s, not an array', found),
  'no map over ' || found
) from cases order by n;
select results_eq(
  $$ select step_slug, status, error from pgflow.step_states where run_id = pg_temp.run(1) order by 1 $$,
  $$ values ('a', 'completed', null), ('each', 'failed', 'step "each" cannot map a: it is null, not an array'),
            ('other', 'cancelled', null) $$,
  'the map fails, and everything that was open is cancelled'
);
select is((select count(*) from pgflow.runs where status = 'failed' and failed_at is not null), 5::bigint, 'every such run fails');
select results_eq(
  $$ select type, step_slug from pgflow.run_events where run_id = pg_temp.run(1) and seq > 3 order by seq $$,
  $$ values ('step:completed', 'a'), ('step:failed', 'each'), ('step:cancelled', 'other'), ('run:failed', null) $$,
  'the log says so; the map never starts'
);
select is_empty('select * from pgmq.q_f', 'the queue is empty');
select is_empty($$ select * from pgflow.step_tasks where status in ('queued', 'started') $$, 'no task is open');
select is_empty($$ select * from pgflow.step_tasks where step_slug = 'each' $$, 'the map has none');

-- At a path
create temp table inputs (n int, input jsonb, found text);
insert into inputs values
  (11, '{}', 'missing'), (12, '{"x": {}}', 'missing'), (13, '{"x": {"y": null}}', 'null'), (14, '{"x": "y"}', 'missing');
select is(
  (select r.error from pgflow.start_flow('p', input, run_id => pg_temp.run(n)) r),
  format('step "each" cannot map run.x.y: it is %s, not an array', found),
  'a start answers with the run that failed: ' || input::text
) from inputs order by n;
select is_empty('select * from pgmq.q_p', 'and leaves no message');

-- In the middle of a wave
select pgflow.create_flow('w');
select pgflow.add_step('w', 'a');
select pgflow.add_step('w', 'good', array['a'], step_type => 'map');
select pgflow.add_step('w', 'bad', array['a'], step_type => 'map', map_path => '0');
select pgflow.add_step('w', 'plain', array['a']);
select pgflow.start_flow('w', '1', run_id => pg_temp.run(21));
select pgflow.complete_task(pg_temp.run(21), 'a', 0, '[1, 2]');
select results_eq(
  $$ select ss.step_slug, ss.status, (select count(*) from pgflow.step_tasks t where t.run_id = ss.run_id and t.step_slug = ss.step_slug)
     from pgflow.step_states ss where ss.run_id = pg_temp.run(21) order by 1 $$,
  $$ values ('a', 'completed', 1::bigint), ('bad', 'failed', 0), ('good', 'cancelled', 0), ('plain', 'cancelled', 0) $$,
  'steps that would have started with it get no tasks'
);

select * from finish();
rollback;
