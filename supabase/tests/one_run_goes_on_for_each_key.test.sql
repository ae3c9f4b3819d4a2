begin;
select plan(61);

set pgflow.now = '2030-01-01 00:00:00+00';
select pgflow.create_flow(slug), pgflow.add_step(slug, 'a') from unnest(array['ret', 'rej', 'rep', 'aft', 'deb', 'plain']) slug;
select pgflow.add_step('aft', 'b', array['a']);
update pgflow.flows set singleton_when_busy = 'return', singleton_path = 'run.doc' where flow_slug = 'ret';
update pgflow.flows set singleton_when_busy = 'reject' where flow_slug = 'rej';
update pgflow.flows set singleton_when_busy = 'replace', singleton_path = 'run.doc' where flow_slug = 'rep';
update pgflow.flows set singleton_when_busy = 'after', singleton_path = 'run.doc', priority = 'low' where flow_slug = 'aft';
update pgflow.flows set singleton_when_busy = 'after', singleton_wait = 60, opt_deadline = 600 where flow_slug = 'deb';

create function pg_temp.start(flow text, doc jsonb) returns uuid language sql as $$
  select run_id from pgflow.start_flow(flow, jsonb_build_object('doc', doc))
$$;
create function pg_temp.state(id uuid) returns text language sql as $$
  select concat_ws(' ', status, waits_for, error) from pgflow.runs where run_id = id
$$;
create function pg_temp.log(id uuid) returns text language sql as $$
  select string_agg(concat_ws(' ', type, step_slug, data), ', ' order by seq) from pgflow.run_events where run_id = id
$$;

-- return
create temp table r as select pg_temp.start('ret', '1') as one, pg_temp.start('ret', '2') as two;
select isnt((select one from r), (select two from r), 'each value has a run');
select is(pg_temp.start('ret', '1.0'), (select one from r), 'a further start of a value gets the run that goes on; numbers are compared as such');
select is((select count(*) from pgflow.runs), 2::bigint, 'and makes none');
select is(
  (select array_agg(run_id = any (array[one, two]) order by ordinality) from pgflow.start_flows('ret', '[{"doc": 2}, {"doc": 3}, {"doc": 3}, {}, null]') with ordinality, r),
  '{t,f,f,f,f}', 'many starts, some of them of keys that are busy'
);
select is((select count(*) from pgflow.runs), 4::bigint, 'the first of each key starts a run; what is missing is null');
select is(
  (select run_id from pgflow.start_flow('ret', '{"doc": 1}', idempotency_key => 'k')), (select one from r), 'with an idempotency key too'
);
select is((select count(*) from pgflow.run_keys), 0::bigint, 'which is not used up by that');
select pgflow.complete_task((select one from r), 'a', 0, '1');
create temp table keyed as select * from pgflow.start_flow('ret', '{"doc": 1}', idempotency_key => 'k');
select isnt((select run_id from keyed), (select one from r), 'a run that has completed frees its key');
select pgflow.cancel_run((select run_id from keyed));
select is(
  (select run_id from pgflow.start_flow('ret', '{"doc": 1}', idempotency_key => 'k')), (select run_id from keyed),
  'the run of an idempotency key is found first'
);
select is_empty($$ select from pgflow.run_singletons where key = '1' $$, 'nothing is left of a key without a run');
create temp table again as select pg_temp.start('ret', '1') as run_id;
select throws_ok(
  format('select pgflow.retry_run(%L)', (select run_id from keyed)), 'PT409',
  format('run %s cannot be retried: flow "ret" has another run, %s', (select run_id from keyed), (select run_id from again)),
  'a run whose key another run has cannot be retried'
);
delete from pgflow.runs where run_id = (select run_id from again);
select is((pgflow.retry_run((select run_id from keyed))).status, 'started', 'a run that is deleted frees its key');
select is(pg_temp.start('ret', '1'), (select run_id from keyed), 'which one that is retried takes');
select is(
  (select run_id from pgflow.start_flow('ret', '{"doc": "x"}', run_id => '10000000-0000-4000-8000-000000000001')),
  (select run_id from pgflow.start_flow('ret', '{"doc": "x"}', run_id => '10000000-0000-4000-8000-000000000001')), 'a run_id is found'
);
select is(
  (select count(distinct pgflow.singleton_key(f, jsonb_build_object('doc', v)))
   from pgflow.flows f cross join (values (repeat('x', 1000)), (repeat('x', 1001)), (null), ('null')) x (v) where f.flow_slug = 'ret'),
  4::bigint, 'keys may be long'
);
insert into pgflow.flows (flow_slug, alias, version, queue_name, singleton_when_busy, singleton_path)
values ('ret_v2', 'ret', 2, 'ret_v2', 'return', 'run.doc');
select pgflow.add_step('ret_v2', 'a');
update pgflow.flow_aliases set flow_slug = 'ret_v2' where alias = 'ret';
insert into pgflow.flow_aliases select 'ret', 'ret_v2' where not exists (select from pgflow.flow_aliases where alias = 'ret');
select is(pg_temp.start('ret', '2'), (select two from r), 'versions of a flow share their keys');

-- reject
create temp table rej as select run_id from pgflow.start_flow('rej', '1');
select throws_ok(
  $$ select pgflow.start_flow('rej', '2') $$, 'PT409', format('flow "rej" has a run already: %s', (select run_id from rej)),
  'a further start is refused'
);
select throws_ok($$ select pgflow.start_flows('rej', '[1, 2]') $$, 'PT409', null, 'and many are');
select pgflow.fail_task(run_id, 'a', 0, 'x') from rej cross join generate_series(1, 3);
select is(pg_temp.state((select run_id from rej)), 'failed x', 'a run that has failed');
select throws_ok($$ select pgflow.start_flows('rej', '[1, 2]') $$, 'PT409', null, 'frees its key, but for one run');
select is((select count(*) from pgflow.start_flow('rej', '2')), 1::bigint, 'which is started');

-- replace
create temp table rep as select pg_temp.start('rep', '"a"') as one, pg_temp.start('rep', '"b"') as other;
create temp table rep2 as select pg_temp.start('rep', '"a"') as two;
select is(pg_temp.state((select one from rep)), 'cancelled replaced by a newer run', 'the run that goes on is cancelled');
select is(pg_temp.state((select two from rep2)), 'started', 'and another one started');
select is(pg_temp.state((select other from rep)), 'started', 'of another key it goes on');
select results_eq(
  $$ select status from pgflow.start_flows('rep', '[{"doc": "a"}, {"doc": "c"}, {"doc": "a"}]') $$,
  array['cancelled', 'started', 'started'], 'many starts happen in their order'
);

-- after
create temp table aft as select pg_temp.start('aft', '1') as one;
create temp table aft2 as select * from pgflow.start_flow('aft', '{"doc": 1}');
select is(pg_temp.state((select run_id from aft2)), 'started run', 'a further run waits');
select is((select priority from aft2), 'low', 'with the priority of its flow');
select is(
  (select count(*) from pgflow.step_states where run_id = (select run_id from aft2) and status = 'created'), 2::bigint, 'its steps are created'
);
select is_empty($$ select from pgflow.step_tasks where run_id = (select run_id from aft2) $$, 'they have no tasks');
select is((select settled from pgflow.tick()), 0, 'nothing is due');
create temp table aft3 as select * from pgflow.start_flow('aft', '{"doc": 1}');
select is(
  pg_temp.state((select run_id from aft2)), 'cancelled superseded by a newer run that waits in its place', 'one more start takes its place'
);
select is(pg_temp.log((select run_id from aft2)), concat_ws(', ',
  'run:started {"waits_for": "run"}', 'step:cancelled a', 'step:cancelled b',
  'run:cancelled {"error": "superseded by a newer run that waits in its place", "waits_for": null}'
), 'which its events say');
select pgflow.cancel_run((select one from aft));
select is(pg_temp.state((select run_id from aft3)), 'started run', 'when the run before has ended');
select is(
  (select (kind, run_id, due_at <= pgflow.now())::text from pgflow.alarms), (select row('begin', run_id, true)::text from aft3), 'the waiting one gets an alarm'
);
select is((select settled from pgflow.tick()), 1, 'from which a tick begins it');
select is(pg_temp.state((select run_id from aft3)), 'started', 'it goes on');
select is(
  pg_temp.log((select run_id from aft3)), 'run:started {"waits_for": "run"}, run:begun {"waits_for": null}, step:started a', 'with its events'
);
select is(
  (select count(*) from pgflow.claim_tasks('{aft}', 10, null) where run_id = (select run_id from aft3)), 1::bigint, 'and has tasks'
);
create temp table aft4 as select * from pgflow.start_flow('aft', '{"doc": 1}');
select throws_ok(format('select pgflow.retry_run(%L)', (select one from aft)), 'PT409', null, 'a run is not retried beside others');
select is(
  (select jsonb_array_length(tasks) from pgflow.settle_and_claim(
    (select jsonb_build_array(jsonb_build_object('run_id', run_id, 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 1)) from aft3), '{aft}', 10, gen_random_uuid()
  )), 1, 'a worker settles a step'
);
select is(
  (select tasks #>> '{0,run_id}' from pgflow.settle_and_claim(
    (select jsonb_build_array(jsonb_build_object('run_id', run_id, 'step_slug', 'b', 'task_index', 0, 'attempt', 1, 'output', 1)) from aft3), '{aft}', 10, gen_random_uuid()
  )), (select run_id::text from aft4), 'and with the last one gets the task of the run that waited'
);
create temp table aft5 as select * from pgflow.start_flow('aft', '{"doc": 1}');
select pgflow.cancel_run((select run_id from aft5));
select is(
  (select (run_id = (select run_id from aft4), waiting_run_id)::text from pgflow.run_singletons where alias = 'aft' and key = '1'), '(t,)',
  'a run that waits can be cancelled'
);
create temp table aft6 as select run_id, ordinality as n from pgflow.start_flows('aft', '[{"doc": 5}, {"doc": 5}, {"doc": 5}]') with ordinality;
select results_eq(
  'select status, waits_for from aft6 join pgflow.runs using (run_id) order by n',
  $$ values ('started', null), ('cancelled', null), ('started', 'run') $$, 'of many starts of a key the last one waits'
);
delete from pgflow.runs where run_id = (select run_id from aft6 where n = 1);
create temp table aft7 as select pg_temp.start('aft', '5') as run_id;
select is(
  array[pg_temp.state((select run_id from aft6 where n = 3)), pg_temp.state((select run_id from aft7))],
  array['cancelled superseded by a newer run that waits in its place', 'started'], 'a start of a key that is free by now takes it at once'
);
select is((select settled from pgflow.tick()), 0, 'and nothing else begins');
create temp table aft8 as select run_id from pgflow.start_flow('aft', '{"doc": 5}', delay => 3600);
select is(pg_temp.state((select run_id from aft8)), 'started time', 'a delay counts from the start');

-- debounce
create temp table deb as select run_id from pgflow.start_flow('deb', '1');
select is(pg_temp.state((select run_id from deb)), 'started time', 'with a time to wait no run begins at once');
set pgflow.now = '2030-01-01 00:00:50+00';
create temp table deb2 as select run_id from pgflow.start_flow('deb', '2');
select is(pg_temp.state((select run_id from deb)), 'cancelled superseded by a newer run that waits in its place', 'a further start takes its place');
set pgflow.now = '2030-01-01 00:01:49+00';
select is((select settled from pgflow.tick()), 0, 'and restarts the time');
select is(pgflow.next_due_at(), '2030-01-01 00:01:50+00'::timestamptz, 'which the clock knows');
set pgflow.now = '2030-01-01 00:01:50+00';
select is((select settled from pgflow.tick()), 1, 'after which');
select is(pg_temp.state((select run_id from deb2)), 'started', 'it begins');
select is(
  (select array_agg(due_at) from pgflow.alarms where kind = 'deadline'), array['2030-01-01 00:11:50+00'::timestamptz],
  'its deadline counts from then'
);
create temp table deb3 as select run_id from pgflow.start_flow('deb', '3');
set pgflow.now = '2030-01-01 00:02:50+00';
select is((select settled from pgflow.tick()), 0, 'where the run before goes on after that time');
select is(
  pg_temp.log((select run_id from deb3)), 'run:started {"waits_for": "time"}, run:waiting {"waits_for": "run"}', 'it waits for that run'
);
select pgflow.complete_task((select run_id from deb2), 'a', 0, '1');
select is((select settled from pgflow.tick()), 1, 'until it has ended');
set pgflow.now = '2030-01-01 00:12:50+00';
select pgflow.tick();
select is(
  (select array_agg(status order by run_id) from pgflow.runs where flow_slug = 'deb'), '{cancelled,completed,failed}',
  'and fails ten minutes later'
);
select is((select count(*) from pgflow.alarms where kind = 'begin' and due_at <= pgflow.now()), 0::bigint, 'no alarm is left');

-- Flows without
select is((select count(*) from pgflow.start_flows('plain', '[1, 1]')), 2::bigint, 'other flows have as many runs as are started');
select is_empty($$ select from pgflow.run_singletons where alias = 'plain' $$, 'and no keys');
set constraints all immediate;
truncate pgflow.runs cascade;
select is_empty($$ select from pgflow.run_singletons $$, 'keys are gone with all runs');

select * from finish();
rollback;
