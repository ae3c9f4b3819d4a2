begin;
select plan(10);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- How many rows of each table belong to which run.
create function pg_temp.rows(n int) returns text return format(
  '%s states, %s tasks, %s events, %s keys, %s watches',
  (select count(*) from pgflow.step_states where run_id = pg_temp.run(n)), (select count(*) from pgflow.step_tasks where run_id = pg_temp.run(n)),
  (select count(*) from pgflow.run_events where run_id = pg_temp.run(n)), (select count(*) from pgflow.run_keys where run_id = pg_temp.run(n)),
  (select count(*) from pgflow.run_watches where run_id = pg_temp.run(n))
);

select pgflow.create_flow('f');
select pgflow.add_step('f', 'each', step_type => 'map'), pgflow.add_step('f', 'other'), pgflow.add_step('f', 'join', array['each']);
select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(n), idempotency_key => 'key ' || n) from generate_series(1, 4) n;
select pgflow.watch_runs(array(select run_id from pgflow.runs), 'pgflow:watch:me');
select is(pg_temp.rows(1), '3 states, 3 tasks, 3 events, 1 keys, 1 watches', 'what belongs to a run');

delete from pgflow.runs where run_id = pg_temp.run(1);
select is(pg_temp.rows(1), '0 states, 0 tasks, 0 events, 0 keys, 0 watches', 'is deleted with it');
select is(pg_temp.rows(2), '3 states, 3 tasks, 3 events, 1 keys, 1 watches', 'and with no other');
delete from pgflow.step_states where run_id = pg_temp.run(2) and step_slug = 'each';
select is(pg_temp.rows(2), '2 states, 1 tasks, 3 events, 1 keys, 1 watches', 'tasks go with their step state');
select lives_ok($$ delete from pgflow.runs where false $$, 'a statement that deletes nothing is none');
select is(pg_temp.rows(3), '3 states, 3 tasks, 3 events, 1 keys, 1 watches', 'and leaves all as it is');

-- A role that may delete runs, and nothing else.
grant usage on schema pgflow to service_role;
grant select, delete on pgflow.runs to service_role;
create policy deletable on pgflow.runs for all to service_role using (true);
set local role service_role;
delete from pgflow.runs where run_id = pg_temp.run(3);
reset role;
select is(pg_temp.rows(3), '0 states, 0 tasks, 0 events, 0 keys, 0 watches', 'whoever may delete a run may delete what belongs to it');

-- Truncated
set constraints all immediate;
select throws_ok('truncate pgflow.runs', '0A000', null, 'runs are not truncated by themselves');
truncate pgflow.runs cascade;
select is(pg_temp.rows(4), '0 states, 0 tasks, 0 events, 0 keys, 0 watches', 'truncating runs leaves nothing of them');
select is_empty(
  $$ select run_id from pgflow.step_states union all select run_id from pgflow.step_tasks union all select run_id from pgflow.run_events $$,
  'of any run'
);

select * from finish();
rollback;
