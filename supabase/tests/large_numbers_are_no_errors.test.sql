begin;
select plan(6);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

select is(pgflow.calculate_retry_delay(('1e' || repeat('9', 5))::numeric, 2147483647), 31536000::numeric, 'a delay of a retry is a year at most');

-- The longest delays
select pgflow.create_flow('f', timeout => 31536000, base_delay => 31536000), pgflow.add_step('f', 'a', start_delay => 31536000);
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1), delay => 31536000);
select cmp_ok((select vt from pgmq.q_f), '>', clock_timestamp() + interval '729 days', 'both delays of a start add up');
update pgmq.q_f set vt = clock_timestamp();
select is((select timeout from pgflow.poll_for_tasks('f', 30, 1, 0)), 31536000, 'it is claimed');
select is((select status from pgflow.fail_task(pg_temp.run(1), 'a', 0, 'no')), 'queued', 'and fails');
select results_eq(
  format($$ select applied from pgflow.settle_tasks('[{"run_id": "%s", "step_slug": "a", "task_index": 0, "error": "no", "retry_delay": %s}]') $$, pg_temp.run(1), repeat('9', 300)),
  array[true], 'whatever delay it asks for'
);
select is((select status from pgflow.start_flow('f', '1', run_id => pg_temp.run(2))), 'started', 'others go on');

select * from finish();
rollback;
