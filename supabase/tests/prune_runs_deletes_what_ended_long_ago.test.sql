begin;
select plan(13);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.left_over() returns int[]
return array(select right(run_id::text, 2)::int from pgflow.runs order by run_id);

-- Runs 1 to 3 end on January 1st, each in its way, 4 to 6 on January 10th; 7 was started with the first and goes on.
select pgflow.create_flow('f', max_attempts => 1), pgflow.add_step('f', 'a'), pgflow.create_flow('g'), pgflow.add_step('g', 'a');
set local pgflow.now = '2020-01-01 00:00+00';
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from unnest(array[1, 2, 3, 7]) n;
select pgflow.start_flow('g', '1', run_id => pg_temp.run(n)) from generate_series(4, 6) n;
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '1'), pgflow.fail_task(pg_temp.run(2), 'a', 0, 'x'), pgflow.cancel_run(pg_temp.run(3));
select pgflow.watch_runs(array[pg_temp.run(7)], 'pgflow:watch:me');
insert into pgflow.run_watches values (pg_temp.run(1), 'pgflow:watch:me', '2020-01-01 00:05+00');
set local pgflow.now = '2020-01-10 00:00+00';
select pgflow.complete_task(pg_temp.run(n), 'a', 0, '1') from generate_series(4, 6) n;

select is(pgflow.prune_runs(interval '9 days'), 0::bigint, 'what ended less long ago stays');
set local pgflow.now = '2020-01-10 00:01+00';
select is(pgflow.prune_runs(interval '9 days'), 3::bigint, 'answers how many runs it has deleted');
select is(pg_temp.left_over(), array[4, 5, 6, 7], 'completed, failed and cancelled ones; not by when they started, nor one that goes on');
select is_empty(format('select * from pgflow.%I where run_id in (select pg_temp.run(n) from generate_series(1, 3) n)', t), 'nor ' || t || ' of theirs')
from unnest(array['step_states', 'step_tasks', 'run_events', 'run_watches']) t;
select is(pgflow.prune_runs(interval '9 days'), 0::bigint, 'a second time there is nothing left');
set local pgflow.now = '2020-02-01 00:00+00';
select is(pgflow.prune_runs(interval '1 day', quantity => 2), 2::bigint, 'as many as asked for');
select is(pgflow.prune_runs(interval '1 day', quantity => 2), 1::bigint, 'the rest next time');
select is(pg_temp.left_over(), array[7], 'until only what goes on is left');
select is(pgflow.prune_runs(null), 0::bigint, 'null is no age');
select results_eq(
  $$ select status, (select count(*) from pgmq.q_f) from pgflow.runs $$, $$ values ('started', 1::bigint) $$, 'what goes on is as it was'
);

select * from finish();
rollback;
