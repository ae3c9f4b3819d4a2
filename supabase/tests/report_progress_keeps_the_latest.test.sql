begin;
select plan(9);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.report(n int, step text, index int, attempt int, progress jsonb) returns jsonb
return jsonb_build_object(
  'run_id', pg_temp.run(n), 'step_slug', step, 'task_index', index, 'attempt', attempt, 'progress', progress
);
create function pg_temp.progress(n int, step text) returns jsonb
return (select progress from pgflow.step_states where run_id = pg_temp.run(n) and step_slug = step);

select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'm', step_type => 'map', map_source => 'run');
select pgflow.start_flow('f', '[1, 2, 3]', run_id => pg_temp.run(n)) from generate_series(1, 2) n;
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());

select pgflow.report_progress(jsonb_build_array(
  pg_temp.report(1, 'a', 0, 1, '{"value": 0.1}'), pg_temp.report(2, 'a', 0, 1, '{"value": 0.3, "data": null}'),
  pg_temp.report(1, 'a', 0, 1, '{"value": 0.2, "data": {"page": 3}}')
));
select is(pg_temp.progress(1, 'a'), '{"value": 0.2, "data": {"page": 3}}', 'the latest of a step counts');
select is(pg_temp.progress(2, 'a'), '{"value": 0.3, "data": null}', 'each has its own');
select results_eq(
  $$ select run_id, event -> 'progress' from pgflow.run_event_records where event ->> 'type' = 'step:progress' order by run_id $$,
  $$ values (pg_temp.run(1), '{"value": 0.2, "data": {"page": 3}}'::jsonb), (pg_temp.run(2), '{"value": 0.3, "data": null}') $$,
  'it becomes one event a step'
);
select pgflow.report_progress(jsonb_build_array(pg_temp.report(1, 'a', 0, 1, '{"value": 0.5}')));
select is(pg_temp.progress(1, 'a'), '{"value": 0.5}', 'a new value replaces the old one, its data too');

-- Beside what the engine says of a map
select pgflow.complete_task(pg_temp.run(1), 'm', 0, '1');
select pgflow.report_progress(jsonb_build_array(pg_temp.report(1, 'm', 2, 1, '{"value": 0.5, "task_index": 2}')));
select is(
  pg_temp.progress(1, 'm'), '{"done": 1, "total": 3, "value": 0.5, "task_index": 2}', 'a map''s own progress stays'
);

-- What is not the caller's
select pgflow.report_progress(jsonb_build_array(
  pg_temp.report(1, 'a', 0, 2, '{"value": 0.9}'), pg_temp.report(1, 'm', 0, 1, '{"value": 0.9}'),
  pg_temp.report(9, 'a', 0, 1, '{"value": 0.9}'), pg_temp.report(1, 'nope', 0, 1, '{"value": 0.9}')
));
select is(pg_temp.progress(1, 'a'), '{"value": 0.5}', 'another attempt''s report is ignored');
select is(
  pg_temp.progress(1, 'm'), '{"done": 1, "total": 3, "value": 0.5, "task_index": 2}', 'and one of a task that has ended'
);
select pgflow.cancel_run(pg_temp.run(1));
select pgflow.report_progress(jsonb_build_array(pg_temp.report(1, 'a', 0, 1, '{"value": 0.9}')));
select is(pg_temp.progress(1, 'a'), '{"value": 0.5}', 'and one of a run that has ended');
select lives_ok($$ select pgflow.report_progress('[]') $$, 'nothing to report');

select * from finish();
rollback;
