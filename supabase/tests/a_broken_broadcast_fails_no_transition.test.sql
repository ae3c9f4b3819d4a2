begin;
select plan(9);

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;

select pgflow.create_flow('f', broadcast => 'always', max_attempts => 1);
select pgflow.add_step('f', 'a');
select pgflow.add_step('f', 'b', deps_slugs => array['a']);
create temp table before as select count(*) from realtime.messages;

-- As where today's partition is missing: every insert raises.
create function pg_temp.broken() returns trigger language plpgsql as $$
begin
  if current_setting('tests.broken') = 'yes' then
    raise exception using errcode = '23514', message = 'no partition of relation "messages" found for row';
  end if;
  return null;
end
$$;
create trigger broken before insert on realtime.messages for each statement execute function pg_temp.broken();
set local tests.broken = 'yes';
set local client_min_messages = error;

select throws_ok(
  $$ insert into realtime.messages (topic, extension) values ('x', 'broadcast') $$, '23514', null, 'realtime.messages takes nothing'
);
select lives_ok($$ select pgflow.start_flow('f', '1', run_id => pg_temp.run(n)) from generate_series(1, 2) n $$, 'a run starts');
select lives_ok($$ select pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$, 'its tasks are claimed');
select lives_ok(
  $$ select pgflow.complete_task(pg_temp.run(), 'a', 0, '1'), pgflow.fail_task(pg_temp.run(2), 'a', 0, 'boom') $$, 'and settled'
);
select lives_ok($$ select pgflow.complete_task(pg_temp.run(), 'b', 0, '2') $$, 'to the end');
select results_eq(
  $$ select status, output, error from pgflow.runs order by run_id $$,
  $$ values ('completed', '{"b": 2}'::jsonb, null), ('failed', null, 'boom') $$,
  'as always'
);
select results_eq(
  $$ select seq, type, step_slug from pgflow.run_events where run_id = pg_temp.run() order by seq $$,
  $$ values (1::bigint, 'run:started', null), (2, 'step:started', 'a'), (3, 'step:completed', 'a'), (4, 'step:started', 'b'),
            (5, 'step:completed', 'b'), (6, 'run:completed', null) $$,
  'the log is complete'
);
select results_eq($$ select count(*) from realtime.messages $$, 'table before', 'only the messages are missing');

set local tests.broken = 'no';
select pgflow.start_flow('f', '1', run_id => pg_temp.run(3));
select is(
  (select count(*) from realtime.messages where topic = 'pgflow:run:' || pg_temp.run(3)), 1::bigint,
  'once it is repaired they come again'
);

select * from finish();
rollback;
