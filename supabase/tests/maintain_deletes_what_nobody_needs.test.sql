begin;
select plan(17);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

select pgflow.create_flow('f'), pgflow.add_step('f', 'a'), pgflow.create_flow('g'), pgflow.add_step('g', 'a');
select is(
  pgflow.maintain(), '{"watches": 0, "workers": 0, "messages": 0, "runs": 0, "resent": 0, "due": 0, "kept_results": 0, "left": false}'::jsonb, 'nothing to do'
);
select pgflow.start_flow('f', '1', run_id => pg_temp.run(1)), pgflow.start_flow('g', '1', run_id => pg_temp.run(2)),
       pgflow.start_flow('f', '1', run_id => pg_temp.run(3));
select pgflow.complete_task(pg_temp.run(n), 'a', 0, '1') from generate_series(1, 2) n;

set local pgflow.now = '2030-01-10 00:00+00';
update pgflow.runs set completed_at = '2030-01-09 00:00+00' where run_id = pg_temp.run(1);
update pgflow.runs set completed_at = '2030-01-01 00:00+00' where run_id = pg_temp.run(2);
update pgmq.a_f set archived_at = '2030-01-03 00:00:01+00';
update pgmq.a_g set archived_at = '2030-01-02 23:59:59+00';
insert into pgflow.run_watches values (pg_temp.run(1), 't', '2030-01-09 23:59:59+00'), (pg_temp.run(3), 'u', '2030-01-09 23:59:59+00'), (pg_temp.run(3), 't', '2030-01-10 00:00:01+00');
insert into pgflow.workers (worker_id, name, flow_slugs, started_at, last_heartbeat_at, stopped_at) values
  (gen_random_uuid(), 'lost', '{f}', '2030-01-01', '2030-01-08 23:59:59+00', null),
  (gen_random_uuid(), 'stopped', '{f}', '2030-01-01', '2030-01-08 00:00+00', '2030-01-08 00:00+00'),
  (gen_random_uuid(), 'alive', '{f}', '2030-01-01', '2030-01-09 00:00:01+00', null);

select is(
  pgflow.maintain(), '{"watches": 2, "workers": 2, "messages": 1, "runs": 0, "resent": 0, "due": 0, "kept_results": 0, "left": false}'::jsonb, 'answers how many it has deleted'
);
select results_eq('select run_id, topic from pgflow.run_watches', $$ values (pg_temp.run(3), 't') $$, 'watches that have lapsed');
select results_eq('select name from pgflow.workers', array['alive'], 'workers not heard of for a day');
select results_eq(
  'select (select count(*) from pgmq.a_f), (select count(*) from pgmq.a_g)', $$ values (1::bigint, 0::bigint) $$, 'messages archived for a week'
);
select is((select count(*) from pgflow.runs), 3::bigint, 'no run, unless asked to');
select is(pgflow.maintain(), '{"watches": 0, "workers": 0, "messages": 0, "runs": 0, "resent": 0, "due": 0, "kept_results": 0, "left": false}'::jsonb, 'a second time there is nothing left');
select is(
  pgflow.maintain(keep_runs => interval '5 days', keep_archive => interval '1 day'),
  '{"watches": 0, "workers": 0, "messages": 1, "runs": 1, "resent": 0, "due": 0, "kept_results": 0, "left": false}'::jsonb, 'runs and messages as old as asked for'
);
select results_eq('select run_id from pgflow.runs order by 1', 'select pg_temp.run(n) from unnest(array[1, 3]) n', 'but not younger');
select is((select count(*) from pgmq.q_f), 1::bigint, 'messages that wait are not touched');
select is(pgflow.maintain(keep_archive => null), '{"watches": 0, "workers": 0, "messages": 0, "runs": 0, "resent": 0, "due": 0, "kept_results": 0, "left": false}'::jsonb, 'null keeps');
select is(pgflow.maintain(keep_runs => '0') -> 'runs', '1', 'an age of nothing prunes all that ended');

-- More than fits into the budget
insert into pgmq.a_f (msg_id, vt, archived_at, message) select n, now(), '2029-01-01', '{}' from generate_series(1000, 31000) n;
select is(
  pgflow.maintain(budget => '0'), '{"watches": 0, "workers": 0, "messages": 10000, "runs": 0, "resent": 0, "due": 0, "kept_results": 0, "left": true}',
  'ends when its time is over, and says that something is left'
);
select is(pgflow.maintain(budget => '0') -> 'left', 'true', 'the next call goes on');
select is(pgflow.maintain(budget => '1 minute') -> 'messages', '10001', 'or one call with more time');

-- Lost messages, every five minutes
truncate pgmq.q_f;
select is(pgflow.maintain() -> 'resent', '0', 'it has looked for lost messages before');
set local pgflow.now = '2030-01-10 00:05:01+00';
select is(pgflow.maintain() -> 'resent', '1', 'after five minutes it looks again');

select * from finish();
rollback;
