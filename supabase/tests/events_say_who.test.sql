begin;
select plan(12);

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
-- The events of a run that have an actor, each with its type and step, then who it was.
create function pg_temp.actors(id uuid) returns setof text language sql security definer as $$
  select concat_ws(' ', r.event ->> 'type', r.event ->> 'step_slug', 'by', r.event #>> '{actor,role}', right(r.event #>> '{actor,id}', 2))
  from pgflow.run_event_records r where r.run_id = id and r.event ? 'actor' order by r.seq
$$;
select pgflow.create_flow('f', start_role => 'anon', max_attempts => 2), pgflow.add_step('f', 'a'), pgflow.add_step('f', 'b', array['a']),
       pgflow.add_step('f', 'each', array['a'], step_type => 'map', map_source => 'run');
create temp table started (who text, run_id uuid);
grant all on started to public;

-- A user
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000011"}';
insert into started select 'user', (pgflow_public.start_flow('f', '[]') ->> 'run_id')::uuid;
select is(
  pgflow_public.get_run_events((select run_id from started)) #> '{0,actor}',
  '{"id": "20000000-0000-4000-8000-000000000011", "role": "authenticated"}', 'a user who starts a run is told of as its actor'
);
select pgflow_public.cancel_run((select run_id from started));
reset role;
set local request.jwt.claims = '';
select pgflow.retry_run((select run_id from started));
select pgflow.claim_tasks(array['f'], 10, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  jsonb_build_object('run_id', (select run_id from started), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 1)
));
select results_eq(
  $$ select * from pg_temp.actors((select run_id from started)) $$,
  array['run:started by authenticated 11', 'run:cancelled by authenticated 11', 'run:retried by postgres'],
  'who started, cancelled and retried a run is known; what a worker settles has no actor'
);
select is_empty(
  $$ select type from pgflow.run_events where run_id = (select run_id from started) and type like 'step:%' and actor_role is not null $$,
  'nor what follows from it'
);

-- A user settles a task by hand, through a function of the project.
create function public.approve(run_id uuid) returns void language sql security definer set search_path = pg_catalog, pg_temp
as $$ select pgflow.complete_task(run_id, 'b', 0, '"approved"') $$;
grant execute on function public.approve to authenticated;
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000012"}';
select public.approve((select run_id from started));
select results_eq(
  $$ select * from pg_temp.actors((select run_id from started)) offset 3 $$, array['step:completed b by authenticated 12'],
  'who completes a task by hand is known'
);
reset role;
select is((select status from pgflow.runs where run_id = (select run_id from started)), 'completed', 'the run has completed');

-- A failure by hand, and the next attempt
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000013"}';
select pgflow.start_flow('f', '[]', run_id => pg_temp.run(1));
select pgflow.fail_task(pg_temp.run(1), 'a', 0, 'no'), pgflow.fail_task(pg_temp.run(1), 'a', 0, 'no');
select results_eq(
  $$ select * from pg_temp.actors(pg_temp.run(1)) $$,
  array['run:started by postgres 13', 'step:retrying a by postgres 13', 'step:failed a by postgres 13'],
  'a request in SQL says the user and the role'
);

-- Steps that nobody works on
select pgflow.create_flow('empty', start_role => 'authenticated'), pgflow.add_step('empty', 'each', step_type => 'map');
select pgflow.start_flow('empty', '[]', run_id => pg_temp.run(2));
select results_eq(
  $$ select * from pg_temp.actors(pg_temp.run(2)) $$, array['run:started by postgres 13'], 'an empty map is completed by nobody'
);

-- anon, and the service role
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
insert into started select 'anon', (pgflow_public.start_flow('f', '[]') ->> 'run_id')::uuid;
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
insert into started select 'server', (pgflow_public.start_flow('f', '[]') ->> 'run_id')::uuid;
select pgflow_worker.settle_and_claim('[]', array['f'], 10, '30000000-0000-4000-8000-000000000001');
select pgflow_worker.settle_and_claim(jsonb_build_array(
  jsonb_build_object('run_id', (select run_id from started where who = 'server'), 'step_slug', 'a', 'task_index', 0, 'attempt', 1, 'output', 1)
), array['f'], 0, '30000000-0000-4000-8000-000000000001');
select pgflow_public.cancel_run((select run_id from started where who = 'server'));
reset role;
select results_eq(
  $$ select * from pg_temp.actors((select run_id from started where who = 'anon')) $$, array['run:started by anon'], 'anon has no id'
);
select results_eq(
  $$ select * from pg_temp.actors((select run_id from started where who = 'server')) $$,
  array['run:started by service_role', 'run:cancelled by service_role'], 'nor has a server; a worker with a secret key is no actor'
);
select is(
  (select count(*) from pgflow.run_events where type = 'step:completed' and step_slug = 'a' and run_id = (select run_id from started where who = 'server')),
  1::bigint, 'although it has completed a step'
);

-- In broadcasts
set local request.jwt.claims = '';
select pgflow.create_flow('told', broadcast => 'always'), pgflow.add_step('told', 'a');
select pgflow.start_flow('told', '1', run_id => pg_temp.run(3));
select is(
  (select payload #> '{events,0,actor}' from realtime.messages where topic = 'pgflow:run:' || pg_temp.run(3) order by inserted_at limit 1),
  '{"id": null, "role": "postgres"}', 'broadcasts say it, too'
);

-- Facts
select is(
  (select array_agg(column_name::text order by column_name) from information_schema.columns
   where table_schema = 'pgflow' and table_name = 'run_events' and column_name like 'actor%'),
  array['actor_id', 'actor_role'], 'in two columns'
);

select * from finish();
rollback;
