begin;
select plan(29);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.keep(n int, attempt int, name text, value jsonb, step text default 'a', index int default 0) returns jsonb language sql as $$
  select pgflow.keep_result(pg_temp.run(n), step, index, attempt, name, value)
$$;
create function pg_temp.claim() returns void language sql as $$ select count(*) from pgflow.claim_tasks(array['f'], 100, gen_random_uuid(), lease => 1) $$;

select pgflow.create_flow('f', max_attempts => 2, base_delay => 0), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'm', step_type => 'map', map_source => 'run');
select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(n)) from generate_series(1, 5) n;
select pg_temp.claim();

select is(pg_temp.keep(1, 1, 'x', '{"b": 1, "a": 1.50}'), '{"a": 1.50, "b": 1}', 'answers with what is kept');
select is(pg_temp.keep(1, 1, 'x', '2'), '{"a": 1.50, "b": 1}', 'the first value of a name stays');
select is(pg_temp.keep(1, 1, 'nothing', null), 'null', 'null is a value');
select is(pg_temp.keep(1, 1, 'x', '"item"', 'm', 1), '"item"', 'each item of a map has its own names');
select is(pgflow.kept_results_of(pg_temp.run(1), 'a', 0), '{"x": {"a": 1.50, "b": 1}, "nothing": null}', 'all of a task');
select is(pgflow.kept_results_of(pg_temp.run(1), 'm', 1), '{"x": "item"}', 'of an item');
select is(pgflow.kept_results_of(pg_temp.run(1), 'm', 0), '{}', 'of one that has kept nothing');

-- Fenced by the attempt
select throws_ok($$ select pg_temp.keep(1, 2, 'y', '1') $$, 'PT409',
  'attempt 2 of task 0 of step "a" in run 10000000-0000-4000-8000-000000000001 is not its current one', 'an attempt that is to come');
select pgflow.fail_task(pg_temp.run(1), 'a', 0, 'no');
select throws_ok($$ select pg_temp.keep(1, 1, 'y', '1') $$, 'PT409', null, 'one that has failed');
select pg_temp.claim();
select throws_ok($$ select pg_temp.keep(1, 1, 'x', '1') $$, 'PT409', null, 'one whose task another one has, what is kept too');
select is(pg_temp.keep(1, 2, 'x', '3'), '{"a": 1.50, "b": 1}', 'the next attempt has what is kept');
select is(pg_temp.keep(1, 2, 'y', '[]'), '[]', 'and keeps more');
select throws_ok($$ select pg_temp.keep(9, 1, 'y', '1') $$, 'PT404', 'there is no task 0 of step "a" in run 10000000-0000-4000-8000-000000000009', 'no such run');
select throws_ok($$ select pg_temp.keep(1, 1, 'y', '1', 'm', 7) $$, 'PT404', null, 'no such task');
select throws_ok($$ select pg_temp.keep(1, null, 'y', '1') $$, 'PT400', 'run_id, step_slug, task_index or attempt is missing', 'no attempt');
select throws_ok(format($$ select pg_temp.keep(1, 2, %L, '1') $$, name), 'PT400', 'the name of a kept result has not 1 to 255 characters', 'a name')
from unnest(array[null, '', repeat('x', 256)]) name;

-- Bounded
select throws_ok($$ select pg_temp.keep(2, 1, 'x', to_jsonb(repeat('x', 1048575))) $$, 'PT413',
  'the result "x" has 1048577 bytes of JSON: at most 1048576 are kept', 'more than 1 MB');
select lives_ok($$ select pg_temp.keep(2, 1, n::text, to_jsonb(repeat('x', 1048574))) from generate_series(1, 32) n $$, '32 of 1 MB');
select throws_ok($$ select pg_temp.keep(2, 1, 'x', '1') $$, 'PT413',
  'the result "x" is too much: a task keeps 1000 results and 33554432 bytes at most', 'more than 32 MB of a task');
select lives_ok($$ select pg_temp.keep(3, 1, n::text, '1') from generate_series(1, 1000) n $$, '1,000 names');
select throws_ok($$ select pg_temp.keep(3, 1, '0', '1') $$, 'PT413', null, 'and no more');
select is(pg_temp.keep(3, 1, '7', '2'), '1', 'of which each is answered');

-- Kept over a retry of the run, deleted when the task is done
select pgflow.fail_task(pg_temp.run(1), 'a', 0, 'no');
select pgflow.cancel_run(pg_temp.run(2));
select pgflow.maintain();
set local pgflow.now = '2100-01-01';
select is(pgflow.maintain() -> 'kept_results', '0', 'what failed or was cancelled may be retried');
select pgflow.retry_run(pg_temp.run(1));
set local pgflow.now = '2000-01-01';
select pg_temp.claim();
select is(
  (select pg_temp.keep(1, attempts_count, 'x', '3') from pgflow.step_tasks where run_id = pg_temp.run(1) and step_slug = 'a'),
  '{"a": 1.50, "b": 1}', 'and has it then'
);
select pgflow.complete_task(pg_temp.run(n), 'a', 0, '1') from generate_series(1, 3) n;
set local pgflow.now = '2100-01-02';
select is(pgflow.maintain() -> 'kept_results', '1003', 'of completed tasks nothing is kept');
select is(pgflow.kept_results_of(pg_temp.run(1), 'm', 1), '{"x": "item"}', 'of others it is');
delete from pgflow.runs where run_id in (pg_temp.run(1), pg_temp.run(2));
select is_empty('select from pgflow.kept_results', 'it is deleted with its run');

select * from finish();
rollback;
