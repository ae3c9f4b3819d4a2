begin;
select plan(9);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.progress(n int) returns setof jsonb
language sql begin atomic
  select e.data -> 'progress' from pgflow.run_events e
  where e.run_id = pg_temp.run(n) and e.type = 'step:progress' order by e.seq;
end;
create function pg_temp.items(n int) returns jsonb return (select jsonb_agg(i) from generate_series(1, n) i);

select pgflow.create_flow('f', base_delay => 0), pgflow.add_step('f', 'each', step_type => 'map');

-- One by one
select pgflow.start_flow('f', pg_temp.items(100), run_id => pg_temp.run(1));
select pgflow.complete_task(pg_temp.run(1), 'each', i, 'null') from generate_series(0, 99) i;
select results_eq(
  'select * from pg_temp.progress(1)',
  $$ select jsonb_build_object('done', n * 5, 'total', 100) from generate_series(1, 19) n $$,
  'of 100 items every fifth is an event; the end is the step''s own'
);
select is(
  (select progress from pgflow.step_states where run_id = pg_temp.run(1)), '{"done": 95, "total": 100}', 'the latest stays on the state'
);
select is((select max(seq) from pgflow.run_events where run_id = pg_temp.run(1)), 23::bigint, 'nothing else is logged for items');

select pgflow.start_flow('f', pg_temp.items(3), run_id => pg_temp.run(2));
select pgflow.complete_task(pg_temp.run(2), 'each', i, 'null') from generate_series(0, 2) i;
select results_eq(
  'select * from pg_temp.progress(2)', $$ values ('{"done": 1, "total": 3}'::jsonb), ('{"done": 2, "total": 3}') $$,
  'of a few items each is an event'
);
select pgflow.start_flow('f', pg_temp.items(1), run_id => pg_temp.run(3));
select pgflow.complete_task(pg_temp.run(3), 'each', 0, 'null');
select is_empty('select * from pg_temp.progress(3)', 'one item has no progress');

-- In batches
select pgflow.start_flow('f', pg_temp.items(1000), run_id => pg_temp.run(4));
select count(*) from pgflow.claim_tasks(array['f'], 1000, gen_random_uuid());
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object('run_id', pg_temp.run(4), 'step_slug', 'each', 'task_index', i, 'attempt', 1, 'output', i))
  from generate_series(batch * 7, least(999, batch * 7 + 6)) i
)) from generate_series(0, 142) batch;
select cmp_ok((select count(*) from pg_temp.progress(4)), '<=', 20::bigint, 'at most 20 times, whatever the batches');
select results_eq(
  'select (p -> $$done$$)::int from pg_temp.progress(4) p', 'select (p -> $$done$$)::int from pg_temp.progress(4) p order by 1',
  'done only grows'
);
select is((select status from pgflow.runs where run_id = pg_temp.run(4)), 'completed', 'and the end comes');

-- Failures are no progress
select pgflow.start_flow('f', pg_temp.items(10), run_id => pg_temp.run(5));
select pgflow.fail_task(pg_temp.run(5), 'each', i, 'boom') from generate_series(0, 9) i;
select is_empty('select * from pg_temp.progress(5)', 'an item that failed is none');

select * from finish();
rollback;
