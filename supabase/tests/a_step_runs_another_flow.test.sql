begin;
select plan(34);
set local pgflow.now = '2030-01-01 00:00:00Z';

create function pg_temp.run(n int) returns uuid language sql as $$ select format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid $$;
create function pg_temp.child(n int, i int default 0, step text default 'sub') returns uuid language sql as $$
  select t.child_run_id from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.step_slug = step and t.task_index = i
$$;
create function pg_temp.log(run uuid, after bigint default 0) returns text[] language sql as $$
  select array_agg(concat_ws(' ', e.type, e.step_slug) order by e.seq) from pgflow.run_events e where e.run_id = run and e.seq > after
$$;
create function pg_temp.alarms() returns text language sql as $$
  select string_agg(a.kind, ' ' order by a.kind) from pgflow.alarms a where a.due_at <= pgflow.now()
$$;

select pgflow.create_flow('child'), pgflow.add_step('child', 'work');
select pgflow.create_flow('parent'), pgflow.add_step('parent', 'before'),
       pgflow.add_step('parent', 'sub', array['before'], map_path => 'file', options => '{"child_flow": "child"}'),
       pgflow.add_step('parent', 'after', array['sub']);
select pgflow.start_flow('parent', '"in"', pg_temp.run(1), owner_id => pg_temp.run(7), group_id => pg_temp.run(8), priority => 'high');
select pgflow.complete_task(pg_temp.run(1), 'before', 0, '{"file": {"path": "a"}}');
select results_eq(
  $$ select status, waits_for, message_id, child_run_id is not null, attempts_count from pgflow.step_tasks where step_slug = 'sub' $$,
  $$ values ('waiting', 'run', null::bigint, true, 0) $$, 'the task of a sub-flow waits for a run, whose id it has'
);
select is(
  (select data from pgflow.run_events where run_id = pg_temp.run(1) and type = 'step:started' and step_slug = 'sub'),
  '{"initial_tasks": 1, "waits_for": "run", "due_at": null}', 'as its event says'
);
select is(pg_temp.alarms(), 'child', 'an alarm asks for it');
select is((pgflow.tick()).settled, 1, 'the next tick starts it');
select results_eq(
  $$ select flow_slug, status, input, owner_id, group_id, priority, parent_run_id, parent_step_slug, parent_task_index, depth, metadata
     from pgflow.runs where run_id = pg_temp.child(1) $$,
  $$ values ('child', 'started', '{"path": "a"}'::jsonb, pg_temp.run(7), pg_temp.run(8), 'high', pg_temp.run(1), 'sub', 0, 1, null::jsonb) $$,
  'with the value at the path as its input, for the same owner and group, with the same priority'
);
select is((pgflow.tick()).settled, 0, 'once');
select is((select count(*) from pgmq.q_child), 1::bigint, 'its tasks are for any worker');

-- Its end
select pgflow.complete_task(pg_temp.child(1), 'work', 0, '{"lines": 3}');
select is(pg_temp.alarms(), 'ended', 'the end of a child leaves an alarm');
select is((select status from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'sub'), 'started', 'and does not touch its parent');
select pgflow.tick();
select is(
  (select output from pgflow.step_states where run_id = pg_temp.run(1) and step_slug = 'sub'), '{"work": {"lines": 3}}',
  'the output of the child is that of the step'
);
select is(pg_temp.log(pg_temp.run(1), 4), array['step:completed sub', 'step:started after'], 'and what depends on it starts');
select is(pg_temp.alarms(), null, 'nothing is left to do');

-- A child that fails
select pgflow.start_flow('parent', '"in"', pg_temp.run(2));
select pgflow.complete_task(pg_temp.run(2), 'before', 0, '{}');
select pgflow.tick();
select is((select input from pgflow.runs where run_id = pg_temp.child(2)), 'null', 'what is missing at the path is null');
select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
  'run_id', pg_temp.child(2), 'step_slug', 'work', 'task_index', 0, 'error', 'the disk is full', 'permanent', true
)));
select pgflow.tick();
select results_eq(
  $$ select status, error from pgflow.runs where run_id = pg_temp.run(2) $$,
  $$ values ('failed', format('child run %s failed: the disk is full', pg_temp.child(2))) $$, 'fails its parent with its error'
);

-- A child that is cancelled
select pgflow.start_flow('parent', '"in"', pg_temp.run(3));
select pgflow.complete_task(pg_temp.run(3), 'before', 0, '{}');
select pgflow.tick();
select pgflow.cancel_run(pg_temp.child(3), 'not today');
select pgflow.tick();
select is(
  (select error from pgflow.runs where run_id = pg_temp.run(3)), format('child run %s was cancelled: not today', pg_temp.child(3)),
  'so does one that is cancelled'
);

-- One in a transaction with the worker's settlement
select pgflow.start_flow('parent', '"in"', pg_temp.run(4));
select pgflow.complete_task(pg_temp.run(4), 'before', 0, '{}');
create temp table exchange as
select * from pgflow.settle_and_claim('[]', '{child,parent}', 10, pg_temp.run(9));
select is((select jsonb_path_query_first(tasks, '$[*] ? (@.flow_slug == "child")') ->> 'run_id' from exchange), pg_temp.child(4)::text, 'a worker''s exchange starts a child and claims its task at once');
select is(
  (select tasks -> 0 ->> 'run_id' from pgflow.settle_and_claim(
    (select jsonb_build_array(task || '{"output": 1}') from exchange, jsonb_path_query(tasks, '$[*] ? (@.flow_slug == "child")') task),
    '{child,parent}', 10, pg_temp.run(9)
  )),
  pg_temp.run(4)::text, 'the exchange that ends a child settles its parent and claims what follows'
);

-- What cannot start
select pgflow.create_flow('many'), pgflow.add_step('many', 'each', step_type => 'map', options => '{"child_flow": "child", "when_item_fails": "collect"}'),
       pgflow.add_step('many', 'other');
select pgflow.start_flow('many', '[1, 2, 3]', pg_temp.run(5));
create function pg_temp.refuse() returns trigger language plpgsql as $$ begin
  if new.input = '2' then raise 'two is too much'; end if; return new;
end $$;
create trigger refuse before insert on pgflow.runs for each row execute function pg_temp.refuse();
select pgflow.tick();
drop trigger refuse on pgflow.runs;
select results_eq(
  $$ select t.status, t.waits_for, t.error_message from pgflow.step_tasks t where t.run_id = pg_temp.run(5) and t.step_slug = 'each' order by t.task_index $$,
  $$ values ('waiting', 'run', null), ('failed', null, 'step "each" cannot start a run of flow "child": two is too much'), ('waiting', 'run', null) $$,
  'a child that cannot start fails its task, and harms no other'
);
select is(
  (select array_agg(input) from pgflow.list_children(pg_temp.run(5))), array['1', '3']::jsonb[], 'list_children lists children in the order of items'
);
select pgflow.complete_task(pg_temp.child(5, i, 'each'), 'work', 0, to_jsonb(i)) from unnest(array[0, 2]) i;
select pgflow.tick();
select is(
  (select output from pgflow.step_states where run_id = pg_temp.run(5) and step_slug = 'each'),
  '[{"status": "completed", "value": {"work": 0}},
    {"status": "failed", "error": "step \"each\" cannot start a run of flow \"child\": two is too much"},
    {"status": "completed", "value": {"work": 2}}]',
  'a map of sub-flows collects what became of its children'
);

-- Depth
select pgflow.create_flow('deep'), pgflow.add_step('deep', 'down', options => '{"child_flow": "deep"}');
select pgflow.start_flow('deep', '0', pg_temp.run(6));
select pgflow.tick();
select is((select max(depth) from pgflow.runs where flow_slug = 'deep'), 8, 'a flow may run itself, eight levels deep');
select matches(
  (select error from pgflow.runs where run_id = pg_temp.run(6)), '^(child run \S+ failed: ){8}step "down" cannot start a run of flow "deep": it would be deeper',
  'and all of them fail where that is not enough'
);

-- Versions
select pgflow.register_flow('{"flow_slug": "child_v2", "alias": "child", "version": 2, "steps": [{"step_slug": "work"}]}');
select pgflow.start_flow('many', '[1]', pg_temp.run(10));
select pgflow.tick();
select is((select flow_slug from pgflow.runs where run_id = pg_temp.child(10, 0, 'each')), 'child_v2', 'the newest version is started');

-- A delay
select pgflow.create_flow('late'), pgflow.add_step('late', 'sub', start_delay => 60, options => '{"child_flow": "child"}');
select pgflow.start_flow('late', '1', pg_temp.run(11), delay => 30);
select pgflow.tick();
select is((select next_due_at from pgflow.tick()), '2030-01-01 00:01:30Z', 'a child starts after the delays of step and run');
set local pgflow.now = '2030-01-01 00:01:30Z';
select pgflow.tick();
select is((select count(*) from pgflow.list_children(pg_temp.run(11), 'sub')), 1::bigint, 'and then it is there');

-- By hand
select pgflow.complete_task(pg_temp.run(11), 'sub', 0, '"by hand"');
select is((select output from pgflow.runs where run_id = pg_temp.run(11)), '{"sub": "by hand"}', 'a task of a sub-flow can be settled by hand');
select pgflow.tick();
select results_eq(
  $$ select status, error from pgflow.runs where run_id = pg_temp.child(11) $$,
  $$ values ('cancelled', format('its parent run %s has completed', pg_temp.run(11))) $$, 'its child is then cancelled'
);
select pgflow.start_flow('late', '1', pg_temp.run(12));
select pgflow.fail_task(pg_temp.run(12), 'sub', 0, 'no');
select is((select error from pgflow.runs where run_id = pg_temp.run(12)), 'no', 'one that is failed by hand has no other attempt');
set local pgflow.now = '2030-01-01 00:10:00Z';
select pgflow.tick();
select is((select count(*) from pgflow.list_children(pg_temp.run(12))), 0::bigint, 'and starts no child any more');
select is((select count(*) from pgflow.alarms), 0::bigint, 'no alarm is left');

-- What cannot be stored
select pgflow.start_flow('many', '[1, 2, 3]', pg_temp.run(13));
select pgflow.complete_task(pg_temp.run(13), 'other', 0, '1');
select pgflow.tick();
create function pg_temp.refuse_output() returns trigger language plpgsql as $$ begin
  if new.output = '{"work": 2}' then raise 'two cannot be stored'; end if; return new;
end $$;
create trigger refuse before update on pgflow.step_tasks for each row execute function pg_temp.refuse_output();
select pgflow.complete_task(pg_temp.child(13, i, 'each'), 'work', 0, to_jsonb(i)) from generate_series(0, 2) i;
select pgflow.tick();
select is(
  (select output -> 'each' -> 2 ->> 'error' from pgflow.runs where run_id = pg_temp.run(13)),
  'the output of the child run cannot be stored: two cannot be stored', 'an output that cannot be stored fails its task, and no other'
);
select pgflow.start_flow('late', '1', pg_temp.run(14));
set local pgflow.now = '2030-01-01 00:12:00Z';
select pgflow.tick();
select pgflow.complete_task(pg_temp.child(14), 'work', 0, '1');
create or replace function pg_temp.refuse_output() returns trigger language plpgsql as $$ begin raise 'nothing can be stored'; end $$;
set local client_min_messages = error;
select lives_ok('select pgflow.tick()', 'where not even that can be stored, the clock goes on');
reset client_min_messages;
select is((select next_due_at from pgflow.tick()), '2030-01-01 00:13:00Z', 'and it is tried again a minute later');
drop trigger refuse on pgflow.step_tasks;
set local pgflow.now = '2030-01-01 00:13:00Z';
select pgflow.tick();
select is((select status from pgflow.runs where run_id = pg_temp.run(14)), 'completed', 'with success, when it can');

select * from finish();
rollback;
