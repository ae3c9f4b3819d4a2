begin;
select plan(23);
set local timezone = 'UTC';
set local pgflow.now = '2030-01-01 00:00+00';

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.events(after bigint default 0, n int default 1) returns setof jsonb
language sql begin atomic
  select e.event from pgflow.run_event_records e where e.run_id = pg_temp.run(n) and e.seq > after order by e.seq;
end;

select pgflow.create_flow('f', base_delay => 5);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b');
select pgflow.add_step('f', 'c', deps_slugs => array['b', 'a']);

-- A small flow, from start to end
select pgflow.start_flow('f', '1', run_id => pg_temp.run());
select results_eq(
  $$ select * from pg_temp.events() $$,
  $$ values
    ('{"seq": 1, "type": "run:started", "step_slug": null, "at": "2030-01-01T00:00:00+00:00",
       "actor": {"id": null, "role": "postgres"}}'::jsonb),
    ('{"seq": 2, "type": "step:started", "step_slug": "a", "at": "2030-01-01T00:00:00+00:00", "initial_tasks": 1}'),
    ('{"seq": 3, "type": "step:started", "step_slug": "b", "at": "2030-01-01T00:00:00+00:00", "initial_tasks": 1}') $$,
  'a start: the run, then its root steps in the order of the definition'
);
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
set local pgflow.now = '2030-01-01 00:00:01+00';
select pgflow.settle_tasks(jsonb_build_array(
  jsonb_build_object('run_id', pg_temp.run(), 'step_slug', 'b', 'task_index', 0, 'attempt', 1, 'error', 'boom'),
  jsonb_build_object('run_id', pg_temp.run(), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', null)
));
select results_eq(
  $$ select * from pg_temp.events(after => 3) $$,
  $$ values
    ('{"seq": 4, "type": "step:completed", "step_slug": "a", "at": "2030-01-01T00:00:01+00:00", "output": null}'::jsonb),
    ('{"seq": 5, "type": "step:retrying", "step_slug": "b", "at": "2030-01-01T00:00:01+00:00",
       "error": "boom", "retries": 1, "retry_at": "2030-01-01T00:00:11+00:00"}') $$,
  'a step that ends and one that is retried'
);
set local pgflow.now = '2030-01-01 00:00:02+00';
select pgflow.complete_task(pg_temp.run(), 'b', 0, '{"y": 1}');
select results_eq(
  $$ select * from pg_temp.events(after => 5) $$,
  $$ values
    ('{"seq": 6, "type": "step:completed", "step_slug": "b", "at": "2030-01-01T00:00:02+00:00", "output": {"y": 1}}'::jsonb),
    ('{"seq": 7, "type": "step:started", "step_slug": "c", "at": "2030-01-01T00:00:02+00:00", "initial_tasks": 1}') $$,
  'a step ends before the next one starts'
);
set local pgflow.now = '2030-01-01 00:00:03+00';
select pgflow.complete_task(pg_temp.run(), 'c', 0, 'false');
select results_eq(
  $$ select * from pg_temp.events(after => 7) $$,
  $$ values
    ('{"seq": 8, "type": "step:completed", "step_slug": "c", "at": "2030-01-01T00:00:03+00:00", "output": false}'::jsonb),
    ('{"seq": 9, "type": "run:completed", "step_slug": null, "at": "2030-01-01T00:00:03+00:00", "output": {"c": false}}') $$,
  'the last step ends before its run'
);

-- A run that fails
select pgflow.start_flow('f', '1', run_id => pg_temp.run(2));
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(2), 'step_slug', 'b', 'task_index', 0, 'attempt', 1, 'error', 'boom', 'permanent', true
)));
select results_eq(
  $$ select * from pg_temp.events(3, 2) $$,
  $$ values
    ('{"seq": 4, "type": "step:failed", "step_slug": "b", "at": "2030-01-01T00:00:03+00:00", "error": "boom"}'::jsonb),
    ('{"seq": 5, "type": "step:cancelled", "step_slug": "a", "at": "2030-01-01T00:00:03+00:00"}'),
    ('{"seq": 6, "type": "step:cancelled", "step_slug": "c", "at": "2030-01-01T00:00:03+00:00"}'),
    ('{"seq": 7, "type": "run:failed", "step_slug": null, "at": "2030-01-01T00:00:03+00:00", "error": "boom"}') $$,
  'a failure: the step, what it cancels, the run'
);

-- Hand-written SQL
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(3, 4) n;
update pgflow.step_states set progress = '{"done": 1}' where run_id = pg_temp.run(3) and step_slug = 'a';
select results_eq(
  $$ select * from pg_temp.events(3, 3) $$,
  $$ values ('{"seq": 4, "type": "step:progress", "step_slug": "a", "at": "2030-01-01T00:00:03+00:00", "progress": {"done": 1}}'::jsonb) $$,
  'progress written by hand is an event'
);
update pgflow.step_states set progress = '{"done": 1}' where run_id = pg_temp.run(3) and step_slug = 'a';
select is_empty($$ select * from pg_temp.events(4, 3) $$, 'the same progress again is none');
update pgflow.step_states set remaining_deps = 1 where run_id = pg_temp.run(3) and step_slug = 'c';
select is_empty($$ select * from pg_temp.events(4, 3) $$, 'nor is what no client sees');
update pgflow.step_states set progress = null where run_id = pg_temp.run(3) and step_slug = 'a';
select results_eq(
  $$ select event -> 'progress' from pg_temp.events(4, 3) event $$, array['null'::jsonb], 'progress that is gone is an event'
);
update pgflow.step_states
set status = 'skipped', skip_reason = 'by hand', skipped_at = '2030-01-01 00:00:09+00', progress = '{"done": 2}'
where run_id = pg_temp.run(3) and step_slug = 'a';
select results_eq(
  $$ select * from pg_temp.events(5, 3) $$,
  $$ values ('{"seq": 6, "type": "step:skipped", "error": null, "step_slug": "a", "at": "2030-01-01T00:00:09+00:00", "skip_reason": "by hand"}'::jsonb) $$,
  'a step skipped by hand is an event, with its own time, and its progress in the same statement is none'
);
update pgflow.step_states set status = 'cancelled'
where run_id in (pg_temp.run(3), pg_temp.run(4)) and status in ('created', 'started');
select results_eq(
  $$ select event -> 'seq', event ->> 'type', event ->> 'step_slug' from pg_temp.events(6, 3) event $$,
  $$ values ('7'::jsonb, 'step:cancelled', 'b'), ('8', 'step:cancelled', 'c') $$,
  'an update of several steps is an event each, numbered in the order of the definition'
);
select results_eq(
  $$ select event -> 'seq', event ->> 'type', event ->> 'step_slug' from pg_temp.events(3, 4) event $$,
  $$ values ('4'::jsonb, 'step:cancelled', 'a'), ('5', 'step:cancelled', 'b'), ('6', 'step:cancelled', 'c') $$,
  'and of several runs, each by itself'
);
update pgflow.runs set status = 'cancelled', cancelled_at = '2030-01-01 00:00:10+00', error = 'enough' where run_id = pg_temp.run(3);
update pgflow.runs set status = 'cancelled', cancelled_at = '2030-01-01 00:00:10+00' where run_id = pg_temp.run(4);
select results_eq(
  $$ select * from pg_temp.events(8, 3) union all select * from pg_temp.events(6, 4) $$,
  $$ values
    ('{"seq": 9, "type": "run:cancelled", "step_slug": null, "actor": {"id": null, "role": "postgres"}, "at": "2030-01-01T00:00:10+00:00", "error": "enough"}'::jsonb),
    ('{"seq": 7, "type": "run:cancelled", "step_slug": null, "actor": {"id": null, "role": "postgres"}, "at": "2030-01-01T00:00:10+00:00", "error": null}') $$,
  'a run cancelled by hand is an event'
);
insert into pgflow.runs (run_id, flow_slug, input, started_at)
values (pg_temp.run(5), 'f', '1', '2030-01-01 00:00:11+00');
insert into pgflow.step_states (run_id, step_slug, flow_slug, remaining_deps, created_at) values (pg_temp.run(5), 'a', 'f', 0, pgflow.now());
select results_eq(
  $$ select event -> 'seq', event ->> 'type' from pg_temp.events(0, 5) event $$,
  $$ values ('1'::jsonb, 'run:started') $$,
  'a run written by hand has started; a step that has not started is no event'
);
update pgflow.step_states set status = 'started', started_at = pgflow.now(), initial_tasks = 1, remaining_tasks = 1
where run_id = pg_temp.run(5);
update pgflow.step_states set status = 'completed', completed_at = pgflow.now(), output = '0' where run_id = pg_temp.run(5);
update pgflow.runs set status = 'completed', completed_at = pgflow.now(), output = '""' where run_id = pg_temp.run(5);
select results_eq(
  $$ select event -> 'seq', event ->> 'type', event -> 'output' from pg_temp.events(1, 5) event $$,
  $$ values ('2'::jsonb, 'step:started', null), ('3', 'step:completed', '0'::jsonb), ('4', 'run:completed', '""') $$,
  'a whole run may be moved by hand'
);

-- Nothing happens
create temp table log_before as select count(*) from pgflow.run_events;
update pgflow.step_states set status = 'cancelled' where false;
update pgflow.runs set status = 'started' where false;
insert into pgflow.runs (flow_slug, input, started_at) select 'f', '1', now() where false;
insert into pgflow.step_states (run_id, step_slug, flow_slug, remaining_deps, created_at) select pg_temp.run(), 'a', 'f', 0, now() where false;
insert into pgflow.run_events (run_id, seq, type, at) select pg_temp.run(), 1, 'run:started', now() where false;
select results_eq($$ select count(*) from pgflow.run_events $$, 'table log_before', 'statements that change no row write no event');
update pgflow.runs set metadata = '1', status = status;
update pgflow.step_states set status = status, output = output;
select results_eq($$ select count(*) from pgflow.run_events $$, 'table log_before', 'nor do those that change no status');

-- All of it
select is_empty(
  $$ select run_id, array_agg(seq order by seq) from pgflow.run_events group by run_id having array_agg(seq order by seq)
       <> array(select generate_series(1, max(seq))) $$,
  'seq is 1, 2, 3 … within each run, without gaps'
);
select is_empty($$ select * from pgflow.run_event_records where event ? 'output_omitted' $$, 'no small output was left out');
select throws_ok(
  $$ insert into pgflow.run_events (run_id, seq, type, at) values (pg_temp.run(), 1, 'run:started', now()) $$, '23505', null,
  'a number is given once'
);
select throws_ok(
  $$ insert into pgflow.run_events (run_id, seq, type, at) values (pg_temp.run(), 99, 'run:exploded', now()) $$, '23514', null,
  'an unknown type is refused'
);
select throws_ok(
  $$ insert into pgflow.run_events (run_id, seq, type, at) values (pg_temp.run(), 99, 'step:started', now()) $$, '23514', null,
  'an event of a step names it'
);
select lives_ok($$ delete from pgflow.runs where run_id = pg_temp.run() $$, 'a run goes with its log');

select * from finish();
rollback;
