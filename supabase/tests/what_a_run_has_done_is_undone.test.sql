begin;
select plan(45);
set local pgflow.now = '2030-01-01T00:00:00Z';

create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.tick() returns int language sql as $$ select settled from pgflow.tick() $$;
create function pg_temp.start(n int, input jsonb default '{"flights": []}') returns void language sql as $$
  select pgflow.start_flow('trip', input, run_id => pg_temp.run(n), owner_id => pg_temp.run(100 + n), group_id => pg_temp.run(200), priority => 'high')
$$;
create function pg_temp.done(n int, step text, output jsonb default '1', task int default 0) returns void language sql as $$
  select pgflow.complete_task(pg_temp.run(n), step, task, output)
$$;
create function pg_temp.fail(n int, step text, task int default 0) returns void language sql as $$
  select pgflow.fail_task(pg_temp.run(n), step, task, 'sold out')
$$;
create function pg_temp.undo_run(n int) returns uuid return (select r.run_id from pgflow.runs r where r.undoes = pg_temp.run(n));
create function pg_temp.undo_steps(n int) returns text return (
  select string_agg(ss.step_slug || ' ' || ss.status, ', ' order by s.step_index)
  from pgflow.step_states ss join pgflow.steps s using (flow_slug, step_slug) where ss.run_id = pg_temp.undo_run(n)
);
create function pg_temp.undo_alarms() returns bigint return (select count(*) from pgflow.alarms a where a.kind = 'undo');

-- hotel → flights (map) → insurance → charge; the undo flow of version 1, and a newer version that undoes nothing.
create function pg_temp.trip(change jsonb default '{}') returns jsonb return '{
  "flow_slug": "trip", "undo_flow": "trip_undo", "max_attempts": 1, "base_delay": 0, "steps": [
    {"step_slug": "hotel"}, {"step_slug": "flights", "deps_slugs": ["hotel"], "step_type": "map", "map_source": "run", "map_path": "flights"},
    {"step_slug": "insurance", "deps_slugs": ["hotel"]}, {"step_slug": "charge", "deps_slugs": ["flights", "insurance"]}
  ]}'::jsonb || change;

select throws_ok(
  'select pgflow.register_flow(pg_temp.trip())', 'PT404', 'flow "trip" cannot be undone by "trip_undo", which does not exist',
  'the undo flow has to be there first'
);
select pgflow.register_flow('{"flow_slug": "trip_undo", "max_attempts": 1, "steps": [
  {"step_slug": "flights", "step_type": "map", "map_source": "run", "map_path": "outputs.flights",
   "run_if": {"run": {"completed": {"flights": true}}}, "when_unmet": "skip"},
  {"step_slug": "hotel", "deps_slugs": ["flights"], "run_if": {"run": {"completed": {"hotel": true}}}, "when_unmet": "skip"}
]}');
select is((select undo_flow from pgflow.register_flow(pg_temp.trip())), 'trip_undo', 'then a flow may name it');
select throws_ok(
  $$ select pgflow.delete_flow('trip_undo') $$, 'PT409', 'flow "trip_undo" undoes flow "trip"', 'and it cannot be deleted before that flow'
);
select pgflow.register_flow('{"flow_slug": "trip_undo_v2", "alias": "trip_undo", "version": 2, "steps": [{"step_slug": "hotel"}]}');

-- A run fails
select pg_temp.start(1, '{"to": "Rome", "flights": ["LH1", "LH2"]}');
select pg_temp.done(1, 'hotel', '"room 7"'), pg_temp.done(1, 'flights', '"seat 2"', 1), pg_temp.done(1, 'insurance');
select is(pg_temp.undo_alarms(), 0::bigint, 'while it goes on, nothing is undone');
select pg_temp.fail(1, 'flights', 0);
select results_eq(
  'select kind, run_id, due_at from pgflow.alarms', $$ values ('undo', pg_temp.run(1), pgflow.now()) $$, 'a run that fails is noted'
);
select is(pg_temp.tick(), 1, 'and undone at the next tick');
select results_eq(
  'select flow_slug, status, owner_id, group_id, priority, depth, undoes, idempotency_key, metadata from pgflow.runs where undoes is not null',
  $$ values ('trip_undo', 'started', pg_temp.run(101), pg_temp.run(200), 'high', 0, pg_temp.run(1), null, null::jsonb) $$,
  'by a run of exactly its undo flow, of the same owner and group'
);
select is(
  (select input from pgflow.runs where run_id = pg_temp.undo_run(1)),
  '{"run": {"to": "Rome", "flights": ["LH1", "LH2"]}, "error": "sold out", "completed": {"hotel": true, "flights": true},
    "outputs": {"hotel": "room 7", "flights": [{"index": 1, "item": "LH2", "output": "seat 2"}]}}'::jsonb,
  'which gets what was completed: of a map its items, also where the map has failed'
);
select is(pg_temp.undo_steps(1), 'flights started, hotel created', 'the last step is undone first');
select is(pg_temp.tick() + pg_temp.undo_alarms(), 0::bigint, 'once');
select is((select status from pgflow.runs where run_id = pg_temp.run(1)), 'failed', 'the run stays failed');
select throws_ok(
  'select pgflow.retry_run(pg_temp.run(1))', 'PT409',
  format('run %s cannot be retried: run %s undoes it', pg_temp.run(1), pg_temp.undo_run(1)), 'it cannot be retried any more'
);
-- The undo run itself
select pgflow.fail_task(pg_temp.undo_run(1), 'flights', 0, 'not today');
select is(pg_temp.undo_steps(1) || ' ' || pg_temp.tick(), 'flights failed, hotel cancelled 0', 'an undo that fails is a failed run, which nothing undoes');
select pgflow.retry_run(pg_temp.undo_run(1));
select pgflow.complete_task(pg_temp.undo_run(1), 'flights', 0, 'null'), pgflow.complete_task(pg_temp.undo_run(1), 'hotel', 0, 'null');
select is((select status from pgflow.runs where run_id = pg_temp.undo_run(1)), 'completed', 'and is retried like any other');
select throws_ok('select pgflow.retry_run(pg_temp.run(1))', 'PT409', null, 'what was undone stays undone');
select is(pgflow.snapshot(pg_temp.run(1)) ->> 'undone_by', pg_temp.undo_run(1)::text, 'clients see by which run it was undone');
select is(pgflow.snapshot(pg_temp.undo_run(1)) ->> 'undoes', pg_temp.run(1)::text, 'and which run that undoes');

-- Nothing to undo
select pg_temp.start(2), pg_temp.fail(2, 'hotel');
select is(pg_temp.tick(), 0, 'a run that has completed nothing with an undo has no undo run');
select is((pgflow.retry_run(pg_temp.run(2))).status, 'started', 'and can be retried');

-- A retry before the undo
select pg_temp.done(2, 'hotel'), pg_temp.fail(2, 'insurance'), pgflow.retry_run(pg_temp.run(2));
select is(pg_temp.tick()::text || pg_temp.undo_run(2), null, 'a retry forgets it');
select is(pgflow.snapshot(pg_temp.run(2)) ->> 'undone_by', null, 'a run that is not undone says so');

-- Cancelled runs
select pgflow.cancel_run(pg_temp.run(2), 'rain');
select is(pg_temp.undo_alarms(), 0::bigint, 'a run that is cancelled is not undone');
select is((pgflow.cancel_run(pg_temp.run(2), undo => true)).error, 'rain', 'unless that is asked for, later too');
select pgflow.cancel_run(pg_temp.run(2), undo => true);
select is(pg_temp.tick(), 1, 'once');
select pgflow.cancel_run(pg_temp.run(2), undo => true);
select is((select input ->> 'error' from pgflow.runs where run_id = pg_temp.undo_run(2)), 'rain', 'the reason is the error');
select is(pg_temp.undo_alarms() + pg_temp.tick(), 0::bigint, 'not again');
select pg_temp.start(3), pg_temp.done(3, 'hotel'), pgflow.cancel_run(pg_temp.run(3), undo => true), pgflow.retry_run(pg_temp.run(3)),
       pgflow.cancel_run(pg_temp.run(3));
select is(pg_temp.tick() || ' ' || pg_temp.undo_alarms(), '0 0', 'a retry forgets that it was asked for');
select pgflow.create_flow('plain'), pgflow.add_step('plain', 'a'), pgflow.start_flow('plain', '1', run_id => pg_temp.run(4));
select is(
  (pgflow.cancel_run(pg_temp.run(4), undo => true)).status || pg_temp.undo_alarms(), 'cancelled0', 'a flow without undo has nothing to undo'
);

-- By clients
select pg_temp.start(13), pg_temp.done(13, 'hotel');
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000102"}';
select throws_ok('select pgflow_public.cancel_run(pg_temp.run(13), undo => true)', 'PT404', null, 'a user does not undo the run of another');
set local request.jwt.claims = '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000113"}';
select is(pgflow_public.cancel_run(pg_temp.run(13), undo => true) ->> 'status', 'cancelled', 'but their own');
reset role;
select pg_temp.tick();
set local role authenticated;
select is(
  pgflow_public.get_run((pgflow_public.get_run(pg_temp.run(13)) ->> 'undone_by')::uuid) ->> 'undoes', pg_temp.run(13)::text,
  'and sees the run that undoes it'
);
select throws_ok('select pgflow_public.retry_run(pg_temp.run(13))', 'PT409', null, 'it cannot be retried');
reset role;

-- Deadlines, many at once, a limit
select pgflow.register_flow(pg_temp.trip('{"deadline": 60}'));
select pg_temp.start(n), pg_temp.done(n, 'hotel', to_jsonb(n)) from generate_series(5, 7) n;
set local pgflow.now = '2030-01-01T00:02:00Z';
select is(pg_temp.tick(), 6, 'a run that exceeds its deadline is undone in the same tick');
select is(
  (select string_agg((input #>> '{outputs,hotel}') || ' ' || (input ->> 'error'), ', ' order by undoes) from pgflow.runs where undoes between pg_temp.run(5) and pg_temp.run(7)),
  '5 the run has exceeded its deadline of 60 s, 6 the run has exceeded its deadline of 60 s, 7 the run has exceeded its deadline of 60 s',
  'each with what it has done'
);
select pgflow.register_flow(pg_temp.trip());
select pg_temp.start(n), pg_temp.done(n, 'hotel') from generate_series(8, 10) n;
update pgflow.runs set status = 'failed', error = 'by hand', failed_at = pgflow.now() where run_id >= pg_temp.run(8) and run_id <= pg_temp.run(10);
select is(pg_temp.undo_alarms(), 3::bigint, 'so are runs that are failed by hand');
select is((select string_agg(pgflow.begin_undos(2)::text, ' ') from generate_series(1, 3)), '2 1 0', 'begin_undos begins so many at most');
select is(pg_temp.undo_steps(9), 'flights skipped, hotel started', 'what was not completed is skipped');

-- Registered anew without it, deleted, erased
select pg_temp.start(11), pg_temp.done(11, 'hotel'), pg_temp.fail(11, 'insurance');
select pgflow.register_flow(pg_temp.trip('{"undo_flow": null}'));
select is(pg_temp.tick() || ' ' || pg_temp.undo_alarms(), '0 0', 'a flow that has no undo flow any more undoes nothing');
select pgflow.register_flow(pg_temp.trip());
select pg_temp.start(12), pg_temp.done(12, 'hotel'), pg_temp.fail(12, 'insurance');
set local pgflow.now = '2030-02-01T00:00:00Z';
delete from pgflow.runs where run_id = pg_temp.run(11);
select pgflow.prune_runs('1 day');
select is(
  (select string_agg(right(run_id::text, 2), ' ' order by run_id) from pgflow.runs where run_id >= pg_temp.run(1)),
  '02 05 06 07 08 09 10 12 13', 'runs are kept while they are undone, or about to be'
);
select is((select undoes from pgflow.runs where status = 'completed'), pg_temp.run(1), 'and an undo run until the run that it has undone is gone');
select is(pgflow.prune_runs('1 day'), 1::bigint, 'then it goes, too');
select pg_temp.tick();
delete from pgflow.runs where run_id = pg_temp.run(12);
select is(pg_temp.undo_steps(12), 'flights skipped, hotel started', 'an undo goes on when its run is deleted');

-- A child that was undone
select pgflow.register_flow('{"flow_slug": "tour", "steps": [{"step_slug": "trip", "child_flow": "trip"}]}');
select pgflow.start_flow('tour', '{"flights": []}', run_id => pg_temp.run(20)), pg_temp.tick();
create temp table undone as select child_run_id as run_id from pgflow.step_tasks where run_id = pg_temp.run(20);
select pgflow.complete_task(run_id, 'hotel', 0, '1'), pgflow.fail_task(run_id, 'insurance', 0, 'sold out'), pg_temp.tick() from undone;
select results_eq(
  $$ select r.status, c.status, c.undo from pgflow.runs r, undone join pgflow.runs c using (run_id) where r.run_id = pg_temp.run(20) $$,
  $$ values ('failed', 'failed', 'begun') $$, 'fails its parent, and is undone'
);
select pgflow.retry_run(pg_temp.run(20)), pg_temp.tick();
select results_eq(
  $$ select c.status, c.run_id <> u.run_id from pgflow.step_tasks t join pgflow.runs c on c.run_id = t.child_run_id cross join undone u
     where t.run_id = pg_temp.run(20) $$,
  $$ values ('started', true) $$, 'a retry of the parent starts another child in its place'
);

truncate undone;
insert into undone select child_run_id from pgflow.step_tasks where run_id = pg_temp.run(20);
select pgflow.complete_task(run_id, 'hotel', 0, '1'), pgflow.cancel_run(pg_temp.run(20), undo => true), pg_temp.tick() from undone;
select results_eq(
  $$ select c.status, u.status from undone join pgflow.runs c using (run_id) join pgflow.runs u on u.undoes = c.run_id $$,
  $$ values ('cancelled', 'started') $$, 'a run that is undone has its open children undone'
);

select * from finish();
rollback;
