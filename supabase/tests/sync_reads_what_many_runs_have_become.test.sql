begin;
select plan(35);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.user(n int default 1) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.cursors(variadic pairs int[]) returns jsonb return (
  select jsonb_object_agg(pg_temp.run(pairs[2 * n - 1]), pairs[2 * n]) from generate_series(1, array_length(pairs, 1) / 2) n
);
create function pg_temp.act_as(role text, sub uuid default null) returns void language sql as $$
  select set_config('role', act_as.role, true),
         set_config('request.jwt.claims', (jsonb_build_object('role', act_as.role) || coalesce(jsonb_build_object('sub', act_as.sub), '{}'))::text, true)
$$;
-- run (n of pg_temp.run), status, seq, watched, seqs of the events, more
create function pg_temp.news(answer jsonb) returns table (n int, status text, seq int, watched boolean, events int[], more boolean)
language sql as $$
  select right(r ->> 'run_id', 12)::int, r ->> 'status', (r ->> 'seq')::int, (r ->> 'watched')::boolean,
         array(select (e ->> 'seq')::int from jsonb_array_elements(r -> 'events') with ordinality e (e, n) order by n),
         (r ->> 'more')::boolean
  from jsonb_array_elements(answer -> 'runs') r order by 1
$$;
create function pg_temp.missing(answer jsonb) returns int[] return (
  array(select right(m ->> 'run_id', 12)::int from jsonb_array_elements(answer -> 'missing') m order by 1)
);
grant execute on all functions in schema pg_temp to anon, authenticated, service_role;

select pgflow.create_flow('f', start_role => 'anon'), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', deps_slugs => array['a']);
select pgflow.create_flow('silent', broadcast => 'never'), pgflow.add_step('silent', 'a');
select pgflow.start_flow('f', '1', run_id => pg_temp.run(n), owner_id => pg_temp.user(1)) from generate_series(1, 3) n;
select pgflow.start_flow('f', '1', run_id => pg_temp.run(4), owner_id => pg_temp.user(2));
select pgflow.start_flow('f', '1', run_id => pg_temp.run(5));
select pgflow.start_flow('silent', '1', run_id => pg_temp.run(6), owner_id => pg_temp.user(1));
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '{"x": 1}');

-- A user
select pg_temp.act_as('authenticated', pg_temp.user());
create temp table answer as select pgflow_public.sync(pg_temp.cursors(1, 0, 2, 1, 3, 2, 4, 0, 5, 0, 6, 0, 9, 0)) as answer;
select is(answer ->> 'user_id', pg_temp.user()::text, 'says as whom the caller was understood') from answer;
select is(answer -> 'topic', 'null', 'who does not watch has no topic') from answer;
select results_eq(
  $$ select * from pg_temp.news((select answer from answer)) $$,
  $$ values (1, 'started', 4, false, array[1, 2, 3, 4], false), (2, 'started', 2, false, array[2], false),
            (6, 'started', 2, false, array[1, 2], false) $$,
  'gives the events after each cursor; what has no news is left out'
);
select is(pg_temp.missing(answer), array[4, 5, 9], 'runs of others look as if they did not exist') from answer;
select is(
  (select array_agg(distinct m - 'run_id' - 'message') from answer, jsonb_array_elements(answer -> 'missing') m),
  array['{"code": "PT404", "hint": "Sign in as the user who started the run, and check its id."}'::jsonb],
  'in every word'
);
select is(
  (select answer #> '{runs,0,events}' from answer), pgflow_public.get_run_events(pg_temp.run(1)), 'the events are those of get_run_events'
);
reset role;
select is_empty('table pgflow.run_watches', 'nothing is watched unless asked for');

-- Watching
grant all on answer to authenticated, anon, service_role;
select pg_temp.act_as('authenticated', pg_temp.user());
update answer set answer = pgflow_public.sync(pg_temp.cursors(1, 4, 2, 1, 4, 0, 6, 0), watch => '30000000-0000-4000-8000-000000000001');
select is(answer ->> 'topic', 'pgflow:user:' || pg_temp.user(), 'the topic of a user is their own, whatever they name') from answer;
select results_eq(
  $$ select * from pg_temp.news((select answer from answer)) $$,
  $$ values (2, 'started', 2, true, array[2], false), (6, 'started', 2, false, array[1, 2], false) $$,
  'says which runs are watched: not those of which nothing is broadcast'
);
reset role;
select set_eq(
  $$ select run_id, topic from pgflow.run_watches $$,
  $$ values (pg_temp.run(1), 'pgflow:user:' || pg_temp.user()), (pg_temp.run(2), 'pgflow:user:' || pg_temp.user()),
            (pg_temp.run(6), 'pgflow:user:' || pg_temp.user()) $$,
  'all visible ones are, those without news as well, and no others'
);
select pg_temp.act_as('authenticated', pg_temp.user());
select results_eq(
  $$ select * from pg_temp.news(pgflow_public.sync(jsonb_build_object(pg_temp.run(1), null))) $$,
  $$ values (1, 'started', 4, false, '{}'::int[], false) $$, 'a null cursor asks where the run stands'
);
select results_eq(
  $$ select * from pg_temp.news(pgflow_public.sync(pg_temp.cursors(1, 99, 2, 2))) $$,
  $$ select 1, '', 1, false, '{}'::int[], false where false $$, 'a cursor beyond the end has no news'
);
select is(pgflow_public.sync('{}') -> 'runs', '[]', 'no cursors are no error');

-- start, start_flows, list
select pgflow_public.start_flow('f', '"start"', watch => '30000000-0000-4000-8000-000000000002');
select pgflow_public.start_flows('f', '["many", "more"]', watch => '30000000-0000-4000-8000-000000000002');
select is(
  jsonb_array_length(pgflow_public.list_runs(flow_slug => 'f', watch => '30000000-0000-4000-8000-000000000002')), 6, 'a list may watch'
);
reset role;
select is(
  (select array_agg(distinct w.topic || ' ' || f.n) from pgflow.run_watches w
   cross join lateral (select count(*) as n from pgflow.run_watches join pgflow.runs r using (run_id) where r.flow_slug = 'f') f),
  array[format('pgflow:user:%s 6', pg_temp.user())], 'as may a start, and a start of many'
);

-- Others
select pg_temp.act_as('authenticated', pg_temp.user(2));
select is(
  pg_temp.missing(pgflow_public.sync(pg_temp.cursors(1, 0, 4, 0), watch => '30000000-0000-4000-8000-000000000001')), array[1],
  'another user sees the other run'
);
select pg_temp.act_as('anon');
update answer set answer = pgflow_public.sync(pg_temp.cursors(1, 0, 5, 0), watch => '30000000-0000-4000-8000-000000000001');
select is(answer - 'missing', '{"runs": [], "topic": null, "user_id": null}', 'without an identity there is no topic') from answer;
select is(pg_temp.missing(answer), array[1, 5], 'and no run, nobody''s own neither') from answer;
select is(
  pgflow_public.start_flow('f', '"anon"', watch => '30000000-0000-4000-8000-000000000001') ->> 'status', 'started', 'a start is one all the same'
);
select pg_temp.act_as('service_role');
update answer set answer = pgflow_public.sync(pg_temp.cursors(1, 4, 4, 0, 9, 0), watch => '30000000-0000-4000-8000-000000000001');
select is(answer ->> 'topic', 'pgflow:watch:30000000-0000-4000-8000-000000000001', 'a secret key has the topic that it names') from answer;
select is(pg_temp.missing(answer), array[9], 'and misses what does not exist') from answer;
reset role;
select set_eq(
  $$ select run_id, topic from pgflow.run_watches where topic <> 'pgflow:user:' || pg_temp.user() $$,
  $$ values (pg_temp.run(4), 'pgflow:user:' || pg_temp.user(2)), (pg_temp.run(1), 'pgflow:watch:30000000-0000-4000-8000-000000000001'),
            (pg_temp.run(4), 'pgflow:watch:30000000-0000-4000-8000-000000000001') $$,
  'nobody has watched into somebody else''s topic'
);

-- Limits
set local role service_role;
select throws_ok(
  $$ select pgflow_public.sync('{}', watch => 'x') $$, 'PT400', 'watch is no UUID: x', 'a watch is a UUID'
);
select is(pgflow_public.sync('{}', watch => 'true') -> 'topic', 'null', 'what older clients say watches nothing');
reset role;
create function pg_temp.ask(cursors jsonb) returns jsonb return pgflow_public.sync(ask.cursors);
select throws_ok($$ select pg_temp.ask(null) $$, 'PT400', 'the cursors are not an object', 'cursors are needed');
select throws_ok($$ select pg_temp.ask('[]') $$, 'PT400', 'the cursors are not an object', 'as an object');
select throws_ok($$ select pg_temp.ask('{"x": 1}') $$, 'PT400', 'this is no cursor: x: 1', 'of run ids');
select throws_ok(format('select pg_temp.ask(%L)', format('{"%s": %s}', pg_temp.run(), value)), 'PT400', null, value || ' is no cursor')
from unnest(array['-1', '1.5', '"1"', '{}', '1e30']) value;
select throws_ok(
  $$ select pg_temp.ask((select jsonb_object_agg(pg_temp.run(n), 0) from generate_series(1, 1001) n)) $$, 'PT413',
  '1001 cursors are too many for one call', 'of a thousand runs at most'
);

-- Long logs come in parts, in which each run has its share.
update pgflow.step_states set progress = to_jsonb(n) from generate_series(1, 1) n where run_id = pg_temp.run(3) and step_slug = 'a';
insert into pgflow.run_events (run_id, seq, type, step_slug, at, data)
select pg_temp.run(3), n, 'step:progress', 'a', now(), jsonb_build_object('progress', repeat('x', 1000)) from generate_series(4, 3000) n;
select results_eq(
  $$ select n, seq, cardinality(events) between 800 and 1000 or n = 1 and cardinality(events) = 4, more
     from pg_temp.news(pgflow_public.sync(pg_temp.cursors(1, 0, 3, 0))) $$,
  $$ values (1, 4, true, false), (3, 3000, true, true) $$, 'what is left is for the next call'
);
update pgflow.run_events set data = jsonb_build_object('progress', repeat('x', 2000000)) where run_id = pg_temp.run(3) and seq = 10;
select results_eq(
  $$ select n, events, more from pg_temp.news(pgflow_public.sync(pg_temp.cursors(3, 9))) $$, $$ values (3, array[10], true) $$,
  'an event that is larger than an answer comes alone'
);

select * from finish();
rollback;
