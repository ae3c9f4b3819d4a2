begin;
select plan(31);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- What was sent since the last look.
create temp table seen (id uuid);
create function pg_temp.sent() returns setof realtime.messages language sql as $$
  with new as (
    select m.* from realtime.messages m
    where m.id not in (select s.id from seen s)
  ), noted as (
    insert into seen select n.id from new n returning seen.id
  )
  select n.* from new n join noted using (id) order by n.inserted_at
$$;
create function pg_temp.types(payload jsonb) returns text
return (
  select string_agg(r.value ->> 'run_id' || ': ' || (
    select string_agg(e.value ->> 'type', ', ' order by e.ordinality) from jsonb_array_elements(r.value -> 'events') with ordinality e
  ), '; ' order by r.ordinality)
  from jsonb_array_elements(payload -> 'runs') with ordinality r
);

select pgflow.create_flow(slug, broadcast => slug)
from unnest(array['watched', 'always', 'never']) slug;
select pgflow.add_step(slug, 'a'), pgflow.add_step(slug, 'b', deps_slugs => array['a'])
from unnest(array['watched', 'always', 'never']) slug;

-- Nobody looks
select pgflow.start_flow('watched', '1', run_id => pg_temp.run(n)) from generate_series(1, 4) n;
select pgflow.complete_task(pg_temp.run(4), 'a', 0, '1');
select is_empty($$ select * from pg_temp.sent() $$, 'a run that nobody watches is not broadcast');
select is((select count(*) from pgflow.run_events where run_id = pg_temp.run(4)), 4::bigint, 'its log is written all the same');

-- Somebody does
select lives_ok($$ select pgflow.watch_runs(array[pg_temp.run(n)], 'pgflow:watch:me') from generate_series(1, 2) n $$, 'a run can be watched');
select is_empty($$ select * from pg_temp.sent() $$, 'which sends nothing');
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '{"y": 1}');
create temp table messages as select * from pg_temp.sent();
select results_eq(
  $$ select topic, event, private, extension, binary_payload is null from messages $$,
  $$ values ('pgflow:watch:me', 'run_events', true, 'broadcast', true) $$,
  'then a transition sends one private message to the topic of the watch'
);
select is(
  (select payload from messages),
  (select jsonb_build_object('runs', jsonb_build_array(
     jsonb_build_object('run_id', pg_temp.run(), 'flow_slug', 'watched', 'events', jsonb_agg(event order by seq))
   ))
   from pgflow.run_event_records where run_id = pg_temp.run() and seq > 2),
  'with the events as the log shows them'
);
select is((select pg_temp.types(payload) from messages), pg_temp.run() || ': step:completed, step:started', 'which belong together');
select matches((select id::text from messages), '^.{14}7', 'its id is a UUID of version 7');
select ok(
  (select abs(extract(epoch from inserted_at - clock_timestamp() at time zone 'utc')) < 3600 from messages),
  'inserted_at is a time in UTC'
);

-- Many runs in one statement
select pgflow.watch_runs(array[pg_temp.run(3)], 'pgflow:watch:me');
select pgflow.claim_tasks(array['watched'], 100, gen_random_uuid());
select pgflow.settle_tasks((
  select jsonb_agg(jsonb_build_object('run_id', run_id, 'step_slug', step_slug, 'task_index', 0, 'attempt', 1, 'output', 1))
  from pgflow.step_tasks where status = 'started'
));
drop table messages;
create temp table messages as select * from pg_temp.sent();
select results_eq(
  $$ select pg_temp.types(payload) from messages order by inserted_at $$,
  $$ values (format('%s: step:completed; %s: step:completed, step:started; %s: step:completed, step:started', pg_temp.run(1), pg_temp.run(2), pg_temp.run(3))),
            (pg_temp.run(1) || ': run:completed') $$,
  'one message for each statement, with all runs that the topic watches'
);
select is((select count(distinct inserted_at) from messages), 2::bigint, 'each with a time of its own, later for later events');
select pgflow.watch_runs(array[pg_temp.run(2)], 'pgflow:user:a'), pgflow.watch_runs(array[pg_temp.run(3)], 'pgflow:user:b');
update pgflow.step_states set progress = '1' where run_id in (pg_temp.run(2), pg_temp.run(3)) and step_slug = 'b';
select results_eq(
  $$ select topic, pg_temp.types(payload) from pg_temp.sent() $$,
  $$ values ('pgflow:user:a', pg_temp.run(2) || ': step:progress'), ('pgflow:user:b', pg_temp.run(3) || ': step:progress'),
            ('pgflow:watch:me', format('%s: step:progress; %s: step:progress', pg_temp.run(2), pg_temp.run(3))) $$,
  'and one for each topic, with the runs that it watches'
);
select is((select count(distinct inserted_at) = count(*) from realtime.messages), true, 'no two messages have the same time');

-- The watch
set local pgflow.now = '2030-01-01 00:00+00';
select pgflow.start_flow('watched', '1', run_id => pg_temp.run(5));
select pgflow.watch_runs(array[pg_temp.run(5)], 'pgflow:watch:me');
select is(
  (select watched_until from pgflow.run_watches where run_id = pg_temp.run(5)), '2030-01-01 00:05+00'::timestamptz,
  'a watch lasts five minutes'
);
set local pgflow.now = '2030-01-01 00:00:59+00';
select pgflow.watch_runs(array[pg_temp.run(5)], 'pgflow:watch:me');
select is(
  (select watched_until from pgflow.run_watches where run_id = pg_temp.run(5)), '2030-01-01 00:05+00'::timestamptz,
  'renewing it in the first minute writes nothing'
);
set local pgflow.now = '2030-01-01 00:01+00';
select pgflow.watch_runs(array[pg_temp.run(5)], 'pgflow:watch:me');
select is(
  (select watched_until from pgflow.run_watches where run_id = pg_temp.run(5)), '2030-01-01 00:06+00'::timestamptz,
  'later it goes on from there'
);
update pgflow.step_states set progress = '1' where run_id = pg_temp.run(5) and step_slug = 'a';
select is((select count(*) from pg_temp.sent()), 1::bigint, 'a watched run is broadcast');
set local pgflow.now = '2030-01-01 00:06+00';
update pgflow.step_states set progress = '2' where run_id = pg_temp.run(5) and step_slug = 'a';
select is_empty($$ select * from pg_temp.sent() $$, 'until the watch ends');
select pgflow.watch_runs(array[pg_temp.run(5)], 'pgflow:watch:me');
update pgflow.step_states set progress = '3' where run_id = pg_temp.run(5) and step_slug = 'a';
select is((select count(*) from pg_temp.sent()), 1::bigint, 'and again once it is renewed');
select lives_ok($$ select pgflow.watch_runs(array[pg_temp.run(n)], 'pgflow:watch:me') from unnest(array[1, 99]) n $$, 'to watch an unknown run, or one that has ended, is no error');
select set_eq(
  $$ select run_id, topic from pgflow.run_watches where watched_until > pgflow.now() $$,
  $$ values (pg_temp.run(5), 'pgflow:watch:me') $$, 'and watches nothing'
);

-- Watching through the API
select is(
  pgflow_public.start_flow(flow_slug => 'watched', input => '"api"', watch => '30000000-0000-4000-8000-000000000001') -> 'seq', '2', 'a start may watch'
);
select isnt_empty(
  $$ select from pgflow.run_watches join pgflow.runs using (run_id) where input = '"api"' $$, 'the run that it starts'
);
select pgflow.start_flow('watched', '1', run_id => pg_temp.run(6)), pgflow.start_flow('watched', '1', run_id => pg_temp.run(7));
select pgflow_public.get_run(pg_temp.run(6)), pgflow_public.get_run_events(pg_temp.run(6));
select is_empty($$ select * from pgflow.run_watches where run_id = pg_temp.run(6) $$, 'a look does not watch');
select pgflow_public.get_run(pg_temp.run(6), watch => '30000000-0000-4000-8000-000000000001'), pgflow_public.get_run_events(pg_temp.run(7), watch => '30000000-0000-4000-8000-000000000001');
select is(
  (select count(*) from pgflow.run_watches where run_id in (pg_temp.run(6), pg_temp.run(7))), 2::bigint, 'unless it says so'
);

-- The flow's own rule
select pgflow.start_flow('always', '1', run_id => pg_temp.run(8));
select results_eq(
  $$ select topic, pg_temp.types(payload) from pg_temp.sent() $$,
  $$ values ('pgflow:run:' || pg_temp.run(8), pg_temp.run(8) || ': run:started, step:started') $$,
  'broadcast = always: the start as well, on the topic of the run, watched or not'
);
select pgflow.watch_runs(array[pg_temp.run(8)], 'pgflow:watch:me');
update pgflow.step_states set progress = '1' where run_id = pg_temp.run(8) and step_slug = 'a';
select results_eq(
  $$ select topic, pg_temp.types(payload) from pg_temp.sent() $$,
  $$ values ('pgflow:run:' || pg_temp.run(8), pg_temp.run(8) || ': step:progress'), ('pgflow:watch:me', pg_temp.run(8) || ': step:progress') $$,
  'and on those of its watches'
);
select pgflow.start_flow('never', '1', run_id => pg_temp.run(9));
select pgflow.watch_runs(array[pg_temp.run(9)], 'pgflow:watch:me');
select pgflow.complete_task(pg_temp.run(9), 'a', 0, '1');
select is_empty($$ select * from pg_temp.sent() $$, 'broadcast = never: nothing, watched or not');
select is((select count(*) from pgflow.run_events where run_id = pg_temp.run(9)), 4::bigint, 'but the log');

-- Many messages of one statement
delete from pgflow.run_watches;
select pgflow.start_flow('always', '1', run_id => pg_temp.run(n)) from generate_series(100, 149) n;
select count(*) from pg_temp.sent();
update pgflow.step_states set progress = '2' where step_slug = 'a' and flow_slug = 'always' and status = 'started';
select is(
  (select (count(*), max(inserted_at) - min(inserted_at))::text from pg_temp.sent()),
  (51, interval '50 microseconds')::text,
  'the messages of one statement have consecutive microseconds'
);

-- Other time zones
set local pgflow.now = '';
set local timezone = 'Pacific/Kiritimati';
select pgflow.complete_task(pg_temp.run(8), 'a', 0, '1');
select ok(
  (select bool_and(abs(extract(epoch from inserted_at - clock_timestamp() at time zone 'utc')) < 3600) from pg_temp.sent()),
  'inserted_at is in UTC in a session far from it, too'
);

select * from finish();
rollback;
