begin;
select plan(12);
set local pgflow.now = '2030-01-01 00:00:00+00';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.work(waiting boolean, results jsonb default '[]', quantity int default 10) returns jsonb language sql as $$
  select tasks from pgflow.settle_and_claim(
    results, array['f', 'g'], quantity, '30000000-0000-4000-8000-000000000001', waiting => waiting
  )
$$;
create function pg_temp.worker() returns table (heard_at text, waits_until text) language sql as $$
  select to_char(last_heartbeat_at at time zone 'utc', 'MI:SS'), to_char(waiting_until at time zone 'utc', 'MI:SS') from pgflow.workers
$$;

select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']);
select pgflow.register_worker('30000000-0000-4000-8000-000000000001', 'w', '{f,g}');
select results_eq('select * from pg_temp.worker()', $$ values ('00:00', null::text) $$, 'a new worker does not wait');
select pg_temp.work(waiting => true);
select results_eq('select * from pg_temp.worker()', $$ values ('00:00', '00:05') $$, 'one that found nothing does, for a few seconds');
set local pgflow.now = '2030-01-01 00:00:02+00';
select pg_temp.work(waiting => true);
select results_eq('select * from pg_temp.worker()', $$ values ('00:00', '00:05') $$, 'each poll does not write it again');
set local pgflow.now = '2030-01-01 00:00:04+00';
select pg_temp.work(waiting => true);
select results_eq('select * from pg_temp.worker()', $$ values ('00:04', '00:09') $$, 'but in time');
select pg_temp.work(waiting => false);
select results_eq('select * from pg_temp.worker()', $$ values ('00:04', null::text) $$, 'it may wait no more');
set local pgflow.now = '2030-01-01 00:01:00+00';
select pg_temp.work(waiting => false);
select results_eq('select * from pg_temp.worker()', $$ values ('01:00', null::text) $$, 'a poll is a sign of life');

select pg_temp.work(waiting => true);
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1));
select is(jsonb_array_length(pg_temp.work(waiting => true)), 1, 'it found a task');
select results_eq('select * from pg_temp.worker()', $$ values ('01:00', null::text) $$, 'and so does not wait');
select pg_temp.work(waiting => true, quantity => 0, results => jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.run(1), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 1
)));
select results_eq('select * from pg_temp.worker()', $$ values ('01:00', '01:05') $$, 'waiting again');
select pgflow.stop_worker('30000000-0000-4000-8000-000000000001');
select results_eq('select * from pg_temp.worker()', $$ values ('01:00', null::text) $$, 'one that has stopped does not');
select pg_temp.work(waiting => null);
select results_eq('select * from pg_temp.worker()', $$ values ('01:00', null::text) $$, 'nor one that does not say so');
select lives_ok($$ select pgflow.notify_workers(array[pg_temp.run(1), pg_temp.run(9), null]) $$, 'unknown runs wake nobody');

select * from finish();
rollback;
