begin;
select plan(21);

select pgflow.create_flow('f', broadcast => 'always', start_role => 'anon'), pgflow.add_step('f', 'a');
select pgflow.start_flow(
  'f', to_jsonb(n), run_id => ('10000000-0000-4000-8000-00000000000' || n)::uuid,
  owner_id => case when n < 3 then ('20000000-0000-4000-8000-00000000000' || n)::uuid end
) from generate_series(1, 3) n;

-- can_read_topic
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(pgflow.can_read_topic('pgflow:run:10000000-0000-4000-8000-000000000001'), true, 'the topic of the own run');
select is_empty(
  $$ select topic from unnest(array[
       'pgflow:run:10000000-0000-4000-8000-000000000002', 'pgflow:run:10000000-0000-4000-8000-000000000003',
       'pgflow:run:10000000-0000-4000-8000-000000000009'
     ]) topic where pgflow.can_read_topic(topic) is not false $$,
  'not that of somebody else''s, nobody''s, or no run'
);
select is_empty(
  $$ select topic from unnest(array[
       null, '', ' ', 'pgflow', 'pgflow:run', 'pgflow:run:', 'pgflow:run:x', 'pgflow:run:null', 'room:1', 'pgflow:run:%',
       'pgflow:run:10000000-0000-4000-8000-00000000000', 'pgflow:run:10000000-0000-4000-8000-0000000000011',
       'pgflow:run:10000000-0000-4000-8000-000000000001:x', 'x:pgflow:run:10000000-0000-4000-8000-000000000001',
       E'pgflow:run:10000000-0000-4000-8000-000000000001\n', 'pgflow:run:{10000000-0000-4000-8000-000000000001}',
       'pgflow:run:10000000000040008000000000000001', 'PGFLOW:RUN:10000000-0000-4000-8000-000000000001',
       'pgflow:run:zzzzzzzz-0000-4000-8000-000000000001', 'pgflow:run:''; drop table pgflow.runs; --',
       'pgflow:run:' || repeat('1', 100000), 'é', E'\u2028'
     ]) topic where pgflow.can_read_topic(topic) is not false $$,
  'of any other topic it says no, and never raises'
);
select is(pgflow.can_read_topic('pgflow:user:20000000-0000-4000-8000-000000000001'), true, 'the topic of the user');
select is_empty(
  $$ select topic from unnest(array[
       'pgflow:user:20000000-0000-4000-8000-000000000002', 'pgflow:user:', 'pgflow:user:null', 'pgflow:user',
       'PGFLOW:USER:20000000-0000-4000-8000-000000000001', 'pgflow:user:20000000-0000-4000-8000-000000000001 ',
       E'pgflow:user:20000000-0000-4000-8000-000000000001\n', 'x pgflow:user:20000000-0000-4000-8000-000000000001',
       'pgflow:watch:20000000-0000-4000-8000-000000000001', 'pgflow:watch:30000000-0000-4000-8000-000000000001'
     ]) topic where pgflow.can_read_topic(topic) is not false $$,
  'not that of another user, nor of a client with a secret key'
);
set local request.jwt.claims = '{"role": "authenticated", "sub": "no uuid"}';
select is(pgflow.can_read_topic('pgflow:user:no uuid'), false, 'a subject that is no uuid has no topic');
select is(pgflow.can_read_topic('pgflow:run:10000000-0000-4000-8000-000000000001'), false, 'a subject that is no uuid reads nothing');
set local request.jwt.claims = '';
select is(pgflow.can_read_topic('pgflow:run:10000000-0000-4000-8000-000000000003'), false, 'nor does no subject, of nobody''s run');

-- The policy, as Realtime asks it
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
set local realtime.topic = 'pgflow:run:10000000-0000-4000-8000-000000000001';
select isnt_empty($$ select from realtime.messages $$, 'the owner may join the run''s channel');
set local realtime.topic = 'pgflow:user:20000000-0000-4000-8000-000000000001';
select isnt_empty($$ select from realtime.messages $$, 'a user may join their own channel');
set local realtime.topic = 'pgflow:user:20000000-0000-4000-8000-000000000002';
select is_empty($$ select from realtime.messages $$, 'but not another one''s');
set local realtime.topic = 'pgflow:watch:30000000-0000-4000-8000-000000000001';
select is_empty($$ select from realtime.messages $$, 'nor that of a client with a secret key');
set local realtime.topic = 'pgflow:run:10000000-0000-4000-8000-000000000002';
select is_empty($$ select from realtime.messages $$, 'others may not');
set local realtime.topic = 'room:1';
select lives_ok($$ select from realtime.messages $$, 'another topic''s authorization is not disturbed');
select is_empty($$ select from realtime.messages $$, 'nor granted');
set local realtime.topic = '';
select is_empty($$ select from realtime.messages $$, 'no topic, no channel');
set local realtime.topic = 'pgflow:run:10000000-0000-4000-8000-000000000001';
select throws_ok(
  $$ insert into realtime.messages (topic, event, payload, private, extension)
     values ('pgflow:run:10000000-0000-4000-8000-000000000001', 'run_events', '{"events": []}', true, 'broadcast') $$,
  '42501', null, 'not even the owner sends on it'
);
with changed as (update realtime.messages set payload = '{}' returning 1)
select is((select count(*) from changed), 0::bigint, 'or changes what was sent');
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select is_empty($$ select from realtime.messages $$, 'anon may not join');
select throws_ok(
  $$ insert into realtime.messages (topic, event, payload, private, extension)
     values ('pgflow:run:10000000-0000-4000-8000-000000000001', 'run_events', '{"events": []}', true, 'broadcast') $$,
  '42501', null, 'nor send'
);

reset role;
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
set local realtime.topic = 'pgflow:watch:30000000-0000-4000-8000-000000000001';
select isnt_empty($$ select from realtime.messages $$, 'which the service role may join');

select * from finish();
rollback;
