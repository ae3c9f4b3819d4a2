begin;
select plan(29);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.state(n int, step text) returns jsonb
return (select to_jsonb(ss) from pgflow.step_states ss where ss.run_id = pg_temp.run(n) and ss.step_slug = step);
create function pg_temp.result(n int, step text, task_index int, result jsonb) returns jsonb
return jsonb_build_object('run_id', pg_temp.run(n), 'step_slug', step, 'task_index', task_index, 'attempt', 1) || result;

-- Over the run's input
select pgflow.create_flow('over_run'), pgflow.add_step('over_run', 'each', step_type => 'map');
select pgflow.start_flow('over_run', '[1, "x", null, {"k": [2]}, [], false]', run_id => pg_temp.run(1));
select is(
  pg_temp.state(1, 'each') - array['run_id', 'created_at', 'started_at'],
  '{"step_slug": "each", "flow_slug": "over_run", "status": "started", "remaining_deps": 0, "initial_tasks": 6,
    "remaining_tasks": 6, "output": null, "error": null, "skip_reason": null, "progress": null, "retries": 0,
    "retry_at": null, "completed_at": null, "failed_at": null, "skipped_at": null, "waits_for": null, "due_at": null}'::jsonb,
  'a map starts with as many tasks as there are items'
);
select results_eq(
  $$ select event ->> 'type', event -> 'initial_tasks' from pgflow.run_event_records where run_id = pg_temp.run(1) order by seq $$,
  $$ values ('run:started', null), ('step:started', '6'::jsonb) $$,
  'its event says how many'
);
select results_eq(
  $$ select task_index, input from pgflow.step_tasks where run_id = pg_temp.run(1) order by task_index $$,
  $$ values (0, '1'::jsonb), (1, '"x"'), (2, 'null'), (3, '{"k": [2]}'), (4, '[]'), (5, 'false') $$,
  'each task keeps its own item, whatever JSON that is'
);
select results_eq(
  $$ select message from pgmq.q_over_run order by msg_id $$,
  $$ select jsonb_build_object('flow_slug', 'over_run', 'run_id', pg_temp.run(1), 'step_slug', 'each', 'task_index', n)
     from generate_series(0, 5) n $$,
  'each has a message, in the order of the items, which carries ids only'
);
create temp table claimed as select * from pgflow.claim_tasks(array['over_run'], 100, gen_random_uuid());
select results_eq(
  $$ select task_index, input from claimed order by task_index $$,
  $$ select task_index, input from pgflow.step_tasks where run_id = pg_temp.run(1) order by task_index $$,
  'a map''s task gets its item as input, and nothing else'
);

-- In any order
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(1, 'each', 5, '{"output": "last"}'),
  pg_temp.result(1, 'each', 0, '{"output": null}')
));
select results_eq(
  $$ select s ->> 'status', s ->> 'remaining_tasks', s ->> 'initial_tasks' from pg_temp.state(1, 'each') s $$,
  $$ values ('started', '4', '6') $$,
  'a map goes on while items are left'
);
select pgflow.complete_task(pg_temp.run(1), 'each', 3, '0');
select pgflow.complete_task(pg_temp.run(1), 'each', 2, '""');
select pgflow.complete_task(pg_temp.run(1), 'each', 4, 'false');
select is((select status from pgflow.runs where run_id = pg_temp.run(1)), 'started', 'until the last one');
select pgflow.complete_task(pg_temp.run(1), 'each', 1, '{"k": []}');
select is(
  pg_temp.state(1, 'each') -> 'output', '[null, {"k": []}, "", 0, false, "last"]',
  'outputs have the order of the items, whatever the order of settling, falsy values included'
);
select results_eq(
  $$ select status, output from pgflow.runs where run_id = pg_temp.run(1) $$,
  $$ values ('completed', '{"each": [null, {"k": []}, "", 0, false, "last"]}'::jsonb) $$,
  'and the run completes with them'
);
select is((select count(*) from pgmq.q_over_run), 0::bigint, 'no message is left');
select is((select count(*) from pgmq.a_over_run), 6::bigint, 'each was archived');

-- Over the output of a dep, which feeds a single step
select pgflow.create_flow('over_dep');
select pgflow.add_step('over_dep', 'list');
select pgflow.add_step('over_dep', 'each', array['list'], step_type => 'map');
select pgflow.add_step('over_dep', 'sum', array['each']);
select pgflow.start_flow('over_dep', '{"x": 1}', run_id => pg_temp.run(2));
select is(pg_temp.state(2, 'each') ->> 'initial_tasks', null, 'before its dep ends nobody knows how many tasks');
select pgflow.complete_task(pg_temp.run(2), 'list', 0, '["a", "b"]');
select results_eq(
  $$ select task_index, input from pgflow.claim_tasks(array['over_dep'], 100, gen_random_uuid()) where step_slug = 'each' order by 1 $$,
  $$ values (0, '"a"'::jsonb), (1, '"b"') $$,
  'a map over its only dep'
);
select pgflow.complete_task(pg_temp.run(2), 'each', 1, '2');
select pgflow.complete_task(pg_temp.run(2), 'each', 0, '1');
select is(
  (select input from pgflow.claim_tasks(array['over_dep'], 100, gen_random_uuid())),
  '{"run": {"x": 1}, "each": [1, 2]}'::jsonb, 'its dependents get the outputs as an array'
);

-- At a path, of one dep of several
select pgflow.create_flow('at_path');
select pgflow.add_step('at_path', 'a');
select pgflow.add_step('at_path', 'b');
select pgflow.add_step('at_path', 'of_dep', array['a', 'b'], step_type => 'map', map_source => 'a', map_path => 'x.y');
select pgflow.add_step('at_path', 'of_run', array['a'], step_type => 'map', map_source => 'run', map_path => 'items.0.list');
select pgflow.start_flow('at_path', '{"items": [{"list": [7, 8]}]}', run_id => pg_temp.run(3));
select pgflow.complete_task(pg_temp.run(3), 'a', 0, '{"x": {"y": ["p", "q", "r"]}, "y": 0}');
select is(pg_temp.state(3, 'of_dep') ->> 'status', 'created', 'a map waits for all of its deps');
select pgflow.complete_task(pg_temp.run(3), 'b', 0, '["not this"]');
select results_eq(
  $$ select step_slug, task_index, input from pgflow.step_tasks
     where run_id = pg_temp.run(3) and step_slug like 'of%' order by 1, 2 $$,
  $$ values ('of_dep', 0, '"p"'::jsonb), ('of_dep', 1, '"q"'), ('of_dep', 2, '"r"'), ('of_run', 0, '7'), ('of_run', 1, '8') $$,
  'items at a path inside a dep''s output, or inside the run''s input'
);

-- A map feeds a map
select pgflow.create_flow('chain');
select pgflow.add_step('chain', 'first', step_type => 'map');
select pgflow.add_step('chain', 'second', array['first'], step_type => 'map');
select pgflow.add_step('chain', 'third', array['second'], step_type => 'map', map_path => '1');
select pgflow.start_flow('chain', '[1, 2]', run_id => pg_temp.run(4));
select pgflow.complete_task(pg_temp.run(4), 'first', n, to_jsonb(n * 10)) from generate_series(0, 1) n;
select results_eq(
  $$ select input from pgflow.step_tasks where run_id = pg_temp.run(4) and step_slug = 'second' order by task_index $$,
  array['0', '10']::jsonb[],
  'a map over a map has a task for each of its outputs'
);
select pgflow.complete_task(pg_temp.run(4), 'second', n, jsonb_build_array(n, 'x')) from generate_series(1, 0, -1) n;
select results_eq(
  $$ select input from pgflow.step_tasks where run_id = pg_temp.run(4) and step_slug = 'third' order by task_index $$,
  array['1', '"x"']::jsonb[],
  'a path may name a place in an array'
);
select pgflow.complete_task(pg_temp.run(4), 'third', n, 'true') from generate_series(0, 1) n;
select is((select output from pgflow.runs where run_id = pg_temp.run(4)), '{"third": [true, true]}', 'to the end');

-- An item that fails for good
select pgflow.create_flow('fails', max_attempts => 2, base_delay => 0);
select pgflow.add_step('fails', 'each', step_type => 'map');
select pgflow.add_step('fails', 'other');
select pgflow.start_flow('fails', '[0, 1, 2, 3]', run_id => pg_temp.run(5));
select pgflow.claim_tasks(array['fails'], 3, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  pg_temp.result(5, 'each', 0, '{"output": "done"}'), pg_temp.result(5, 'each', 1, '{"error": "boom"}')
));
select results_eq(
  $$ select task_index, status, attempts_count, error_message from pgflow.step_tasks
     where run_id = pg_temp.run(5) and step_slug = 'each' order by 1 $$,
  $$ values (0, 'completed', 1, null), (1, 'queued', 1, 'boom'), (2, 'started', 1, null), (3, 'queued', 0, null) $$,
  'only the item that failed is retried'
);
select results_eq(
  $$ select s ->> 'status', s ->> 'remaining_tasks', s ->> 'retries', s ->> 'error' from pg_temp.state(5, 'each') s $$,
  $$ values ('started', '3', '1', 'boom') $$, 'its step counts the retry and goes on'
);
select pgflow.claim_tasks(array['fails'], 100, gen_random_uuid());
select is(
  (select array_agg(applied) from pgflow.settle_tasks(jsonb_build_array(
    pg_temp.result(5, 'each', 3, '{"output": "done with the failure"}'),
    pg_temp.result(5, 'each', 1, '{"error": "boom again", "attempt": 2}')
  ))),
  array[true, true], 'the last attempt of an item'
);
select results_eq(
  $$ select status, error from pgflow.runs where run_id = pg_temp.run(5) $$, $$ values ('failed', 'boom again') $$,
  'one item that failed for good fails the run'
);
select results_eq(
  $$ select step_slug, status, error from pgflow.step_states where run_id = pg_temp.run(5) order by 1 $$,
  $$ values ('each', 'failed', 'boom again'), ('other', 'cancelled', null) $$, 'and its step'
);
select results_eq(
  $$ select step_slug, task_index, status, output from pgflow.step_tasks where run_id = pg_temp.run(5) order by 1, 2 $$,
  $$ values
    ('each', 0, 'completed', '"done"'::jsonb), ('each', 1, 'failed', null), ('each', 2, 'cancelled', null),
    ('each', 3, 'completed', '"done with the failure"'), ('other', 0, 'cancelled', null) $$,
  'tasks that were open are closed, finished ones keep their outputs'
);
select is((select count(*) from pgmq.q_fails), 0::bigint, 'and the queue is empty');
select is_empty(
  $$ select * from pgflow.settle_tasks(jsonb_build_array(pg_temp.result(5, 'each', 2, '{"output": "late"}'))) where applied $$,
  'a sibling that still worked comes too late'
);

-- The whole array is read once: an item that changes its run's input changes no other task.
select pgflow.start_flow('over_run', (select jsonb_agg(n) from generate_series(1, 1000) n), run_id => pg_temp.run(6));
update pgflow.runs set input = '"gone"' where run_id = pg_temp.run(6);
select results_eq(
  $$ select input from pgflow.claim_tasks(array['over_run'], 1000, gen_random_uuid()) order by task_index $$,
  $$ select to_jsonb(n) from generate_series(1, 1000) n $$,
  'items are split once, when the map starts; claiming one does not read the others'
);
select pgflow.settle_tasks((
  select jsonb_agg(pg_temp.result(6, 'each', n, jsonb_build_object('output', n)) order by n * 7 % 1000)
  from generate_series(0, 999) n
));
select is(
  pg_temp.state(6, 'each') -> 'output', (select jsonb_agg(n) from generate_series(0, 999) n), 'a thousand items in one batch'
);

select * from finish();
rollback;
