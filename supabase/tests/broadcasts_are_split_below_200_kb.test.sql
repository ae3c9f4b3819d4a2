begin;
select plan(12);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

-- Forty steps, each with an output that just rides along: 640 KB of events in one statement.
select pgflow.create_flow('f', broadcast => 'always');
select pgflow.add_step('f', 'step_' || n) from generate_series(1, 40) n;
select pgflow.start_flow('f', '1', run_id => pg_temp.run());
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
create temp table before as select id from realtime.messages;
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object(
    'run_id', run_id, 'step_slug', step_slug, 'task_index', 0, 'attempt', 1, 'output', repeat('x', 16000)
  )) from pgflow.step_tasks
));
create temp table messages as
select * from realtime.messages
where topic = 'pgflow:run:' || pg_temp.run() and id not in (select id from before);

select cmp_ok((select count(*) from messages), '>', 3::bigint, 'many events are several messages');
select cmp_ok((select max(octet_length(payload::text)) from messages), '<', 200000, 'none of them larger than 200 KB');
select results_eq(
  $$ select (e ->> 'seq')::bigint from messages cross join lateral jsonb_array_elements(payload #> '{runs,0,events}') with ordinality as events (e, n)
     order by inserted_at, n $$,
  $$ select seq from pgflow.run_events where seq > 41 order by seq $$,
  'which have all the events, each once and in order'
);
select is(
  (select (max(inserted_at) - min(inserted_at)) / (count(*) - 1) from messages
   where payload #>> '{runs,0,events,0,type}' = 'step:completed'),
  interval '1 microsecond',
  'each has a microsecond of its own'
);
select is_empty($$ select * from messages where payload #>> '{runs,0,flow_slug}' <> 'f' or payload #>> '{runs,0,run_id}' <> pg_temp.run()::text $$, 'and says whose it is');

-- Progress is as large as somebody makes it; errors are cut.
select pgflow.create_flow('g', broadcast => 'always', max_attempts => 1);
select pgflow.add_step('g', 'a');
select pgflow.start_flow('g', '1', run_id => pg_temp.run(2));
update pgflow.step_states set progress = to_jsonb(repeat('x', 300000)) where run_id = pg_temp.run(2);
update pgflow.step_states set progress = '"small"' where run_id = pg_temp.run(2);
select pgflow.claim_tasks(array['g'], 10, gen_random_uuid());
select pgflow.fail_task(pg_temp.run(2), 'a', 0, repeat('x', 300000));

select cmp_ok(
  (select max(octet_length(payload::text)) from realtime.messages where topic = 'pgflow:run:' || pg_temp.run(2)), '<', 200000,
  'a huge progress or error makes no huge message'
);
select results_eq(
  $$ select (e ->> 'seq')::int from realtime.messages cross join lateral jsonb_array_elements(payload #> '{runs,0,events}') e
     where topic = 'pgflow:run:' || pg_temp.run(2) order by inserted_at $$,
  array[1, 2, 4, 5, 6],
  'its event is left out, which leaves a gap that clients see'
);
select is(
  (select count(*) from realtime.messages where topic = 'pgflow:run:' || pg_temp.run(2) and payload #> '{runs,0,events}' = '[]'),
  1::bigint, 'its run is told all the same, without events'
);
select results_eq(
  $$ select (e ->> 'seq')::int, length(coalesce(e ->> 'error', e ->> 'progress'))
     from jsonb_array_elements(pgflow_public.get_run_events(pg_temp.run(2), after => 2)) e $$,
  $$ values (3, 300000), (4, 5), (5, 10000), (6, 10000) $$,
  'and can be fetched'
);

-- Many runs of one topic: what surrounds the events of a run counts, too.
select pgflow.create_flow('h'), pgflow.add_step('h', 'a');
select pgflow.start_flows('h', (select jsonb_agg(n) from generate_series(1, 1000) n));
select pgflow.watch_runs(array(select run_id from pgflow.runs where flow_slug = 'h'), 'pgflow:watch:me');
delete from before;
insert into before select id from realtime.messages;
update pgflow.step_states set progress = '1' where flow_slug = 'h' and status = 'started';
drop table messages;
create temp table messages as select * from realtime.messages where id not in (select id from before);
select is((select count(*) from messages), 2::bigint, 'a thousand small events of as many runs are few messages');
select cmp_ok((select max(octet_length(payload::text)) from messages), '<', 200000, 'none of them larger than 200 KB');
select is(
  (select count(distinct r ->> 'run_id') from messages cross join lateral jsonb_array_elements(payload -> 'runs') r), 1000::bigint,
  'which have all runs'
);

select * from finish();
rollback;
