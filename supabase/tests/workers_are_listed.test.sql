begin;
select plan(7);
set local pgflow.now = '2030-01-01 00:00+00';

select pgflow.register_worker(
  worker_id => '30000000-0000-4000-8000-000000000001', name => 'one', flow_slugs => array['f', 'g']
);
select pgflow.register_worker('30000000-0000-4000-8000-000000000002', 'two', '{}');
select results_eq(
  $$ select name, flow_slugs, started_at, last_heartbeat_at, stopped_at from pgflow.workers order by name $$,
  $$ values ('one', array['f', 'g'], '2030-01-01 00:00+00'::timestamptz, '2030-01-01 00:00+00'::timestamptz, null::timestamptz),
            ('two', '{}', '2030-01-01 00:00+00', '2030-01-01 00:00+00', null) $$,
  'a worker that has started is listed'
);

set local pgflow.now = '2030-01-01 00:01+00';
select pgflow.heartbeat(worker_id => '30000000-0000-4000-8000-000000000001');
select results_eq(
  $$ select last_heartbeat_at from pgflow.workers order by name $$,
  array['2030-01-01 00:01+00', '2030-01-01 00:00+00']::timestamptz[],
  'a heartbeat is its own'
);

set local pgflow.now = '2030-01-01 00:02+00';
select pgflow.stop_worker(worker_id => '30000000-0000-4000-8000-000000000001');
select results_eq(
  $$ select stopped_at from pgflow.workers order by name $$, array['2030-01-01 00:02+00', null]::timestamptz[], 'so is a stop'
);

select lives_ok($$ select pgflow.heartbeat(gen_random_uuid()), pgflow.stop_worker(gen_random_uuid()) $$, 'an unknown worker is no error');
select is((select count(*) from pgflow.workers), 2::bigint, 'and is not listed');
select throws_ok(
  $$ select pgflow.register_worker('30000000-0000-4000-8000-000000000001', 'again', '{}') $$, '23505', null, 'a worker starts once'
);

select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.start_flow('f', '1');
select isnt_empty(
  $$ select * from pgflow.claim_tasks(array['f'], 1, '30000000-0000-4000-8000-000000000009') $$, 'tasks are claimed without being listed'
);

select * from finish();
rollback;
