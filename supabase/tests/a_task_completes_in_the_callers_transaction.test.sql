begin;
select plan(26);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.complete(n int, attempt int, output jsonb, step text default 'a', index int default 0) returns void language sql as $$
  select pgflow.complete_in_transaction(pg_temp.run(n), step, index, attempt, output)
$$;
create function pg_temp.claim() returns void language sql as $$ select count(*) from pgflow.claim_tasks(array['f'], 100, gen_random_uuid()) $$;

select pgflow.create_flow('f', base_delay => 0), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']),
       pgflow.add_step('f', 'm', step_type => 'map', map_source => 'run');
select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(n)) from generate_series(1, 5) n;
select pg_temp.claim();

-- It is a settlement like others.
select lives_ok($$ select pg_temp.complete(1, 1, '{"a": 1.50}') $$, 'completes a task');
select results_eq(
  $$ select status, output from pgflow.step_states where run_id = pg_temp.run(1) and step_slug in ('a', 'b') order by step_slug $$,
  $$ values ('completed', '{"a": 1.50}'::jsonb), ('started', null) $$, 'its step, and starts the next one'
);
select is((select count(*) from pgmq.a_f), 1::bigint, 'its message is archived');
select lives_ok($$ select pg_temp.complete(1, 1, null, 'm', 1) $$, 'an item of a map, with null');
select is((select output from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'm' and task_index = 1), 'null', 'which is its output');
select lives_ok($$ select pg_temp.complete(1, 1, '1', 'm', 0) $$, 'the last item');
select pg_temp.claim();
select lives_ok($$ select pg_temp.complete(1, 1, '2', 'b') $$, 'the last step');
select is((select status || ' ' || output from pgflow.runs where run_id = pg_temp.run(1)), 'completed {"b": 2, "m": [1, null]}', 'completes the run');

-- Fenced by the attempt
select throws_ok($$ select pg_temp.complete(1, 1, '1') $$, 'PT409',
  'attempt 1 of task 0 of step "a" in run 10000000-0000-4000-8000-000000000001 is not its current one', 'a second time');
select pgflow.fail_task(pg_temp.run(2), 'a', 0, 'no');
select throws_ok($$ select pg_temp.complete(2, 1, '1') $$, 'PT409', null, 'an attempt that has failed');
select pg_temp.claim();
select throws_ok($$ select pg_temp.complete(2, 1, '1') $$, 'PT409', null, 'one whose task another one has');
select is((select output from pgflow.step_states where run_id = pg_temp.run(2) and step_slug = 'a'), null, 'nothing has changed');
select lives_ok($$ select pg_temp.complete(2, 2, '2') $$, 'the current one');
select pgflow.cancel_run(pg_temp.run(3));
select throws_ok($$ select pg_temp.complete(3, 1, '1') $$, 'PT409', null, 'of a run that was cancelled');
select throws_ok($$ select pg_temp.complete(9, 1, '1') $$, 'PT404', 'there is no task 0 of step "a" in run 10000000-0000-4000-8000-000000000009', 'no such run');
select throws_ok($$ select pg_temp.complete(4, null, '1') $$, 'PT400', 'run_id, step_slug, task_index or attempt is missing', 'no attempt');

-- A savepoint takes it back.
savepoint a;
select pg_temp.complete(4, 1, '1');
rollback to a;
select is((select status from pgflow.step_states where run_id = pg_temp.run(4) and step_slug = 'a'), 'started', 'it is rolled back to a savepoint');

-- The session's settings have no effect, and stay; with triggers of others, too.
create table pg_temp.seen (setting text);
create function pg_temp.look() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger look after update on pgflow.step_tasks for each statement execute function pg_temp.look();
set local enable_seqscan = on;
set local enable_indexscan = off;
set local enable_indexonlyscan = off;
set local enable_nestloop = off;
set local enable_hashjoin = off;
set local plan_cache_mode = force_custom_plan;
set local join_collapse_limit = 7;
set local jit = on;
set local timezone = 'Asia/Kathmandu';
set local datestyle = 'German';
set local search_path = pg_temp, public, extensions;
create temp view settings as select name, setting from pg_settings
where name like 'enable_%' or name in ('plan_cache_mode', 'join_collapse_limit', 'jit', 'timezone', 'datestyle', 'search_path', 'role');
create temp table before as select * from settings;
select lives_ok($$ select pg_temp.complete(4, 1, '"late"') $$, 'whatever the settings of the session are');
select set_eq('select * from settings', 'select * from before', 'which stay');

-- Roles
reset search_path;
set local search_path = public, extensions;
grant usage on schema pgflow to anon;
select set_config('role', 'service_role', true);
select lives_ok($$ select pgflow.complete_in_transaction('10000000-0000-4000-8000-000000000005', 'a', 0, 1, '1') $$, 'the service role completes tasks');
select is_empty($$ select 1 where has_table_privilege('pgflow.step_tasks', 'select') $$, 'though it reads none');
select set_config('role', 'authenticated', true);
select throws_ok($$ select pgflow.complete_in_transaction('10000000-0000-4000-8000-000000000005', 'm', 0, 1, '1') $$, '42501', null, 'authenticated do not');
select set_config('role', 'anon', true);
select throws_ok($$ select pgflow.complete_in_transaction('10000000-0000-4000-8000-000000000005', 'm', 0, 1, '1') $$, '42501', null, 'nor do anon');
reset role;
select results_eq(
  $$ select distinct actor_role from pgflow.run_events where run_id = pg_temp.run(5) and type = 'step:completed' $$, array[null::text],
  'it is what workers do: events have no actor'
);
select is((select status from pgflow.step_tasks where run_id = pg_temp.run(5) and step_slug = 'm' and task_index = 0), 'started', 'nothing else changed');
select is((select count(*)::int from pgflow.run_events where run_id = pg_temp.run(4) and type = 'step:completed'), 1, 'one event a completion');

select * from finish();
rollback;
