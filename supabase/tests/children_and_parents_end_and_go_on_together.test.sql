begin;
select plan(39);
set local pgflow.now = '2030-01-01 00:00:00Z';

create function pg_temp.run(n int) returns uuid language sql as $$ select format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid $$;
create function pg_temp.child(n int, i int default 0, step text default 'each') returns uuid language sql as $$
  select t.child_run_id from pgflow.step_tasks t where t.run_id = pg_temp.run(n) and t.step_slug = step and t.task_index = i
$$;
create function pg_temp.statuses(n int) returns text language sql as $$
  select (select r.status from pgflow.runs r where r.run_id = pg_temp.run(n)) || ': '
    || string_agg(coalesce(c.status, 'none'), ' ' order by t.step_slug, t.task_index)
  from pgflow.step_tasks t left join pgflow.runs c on c.run_id = t.child_run_id
  where t.run_id = pg_temp.run(n) and t.child_run_id is not null
$$;
create function pg_temp.fail(run uuid) returns void language sql as $$
  select pgflow.settle_tasks(jsonb_build_array(jsonb_build_object(
    'run_id', run, 'step_slug', 'work', 'task_index', 0, 'error', 'broken', 'permanent', true
  )))
$$;

select pgflow.create_flow('child'), pgflow.add_step('child', 'work');
select pgflow.create_flow('parent'), pgflow.add_step('parent', 'each', step_type => 'map', options => '{"child_flow": "child"}');
select pgflow.create_flow('lets_go'), pgflow.add_step('lets_go', 'each', step_type => 'map', options => '{"child_flow": "child", "when_parent_ends": "leave"}');

-- The parent ends first
select pgflow.start_flow('parent', '[1, 2]', pg_temp.run(1)), pgflow.start_flow('lets_go', '[1, 2]', pg_temp.run(2));
select pgflow.tick();
select is(pg_temp.statuses(1), 'started: started started', 'a run for each item');
select pgflow.cancel_run(pg_temp.run(1)), pgflow.cancel_run(pg_temp.run(2));
select is(pg_temp.statuses(1), 'cancelled: started started', 'who cancels a parent touches no child');
select pgflow.tick();
select is(pg_temp.statuses(1), 'cancelled: cancelled cancelled', 'the next tick cancels the children');
select is(
  (select error from pgflow.runs where run_id = pg_temp.child(1)), format('its parent run %s was cancelled', pg_temp.run(1)), 'and says why'
);
select is(
  (select array_agg(distinct concat_ws(' ', ss.status, t.status)) from pgflow.step_states ss join pgflow.step_tasks t using (run_id, step_slug)
   where ss.run_id = pg_temp.child(1)),
  array['cancelled cancelled'], 'with all that is open under them'
);
select is(pg_temp.statuses(2), 'cancelled: started started', 'where when_parent_ends is leave, they go on');
select pgflow.complete_task(pg_temp.child(2), 'work', 0, '1');
select pgflow.tick();
select is(pg_temp.statuses(2), 'cancelled: completed started', 'and end by themselves');

-- An item fails
select pgflow.start_flow('parent', '[1, 2, 3]', pg_temp.run(3));
select pgflow.tick();
select pgflow.complete_task(pg_temp.child(3, 0), 'work', 0, '1');
select pg_temp.fail(pg_temp.child(3, 1));
select pgflow.tick();
select is(pg_temp.statuses(3), 'failed: completed failed cancelled', 'a child that fails ends the parent, and with it the other children');
select is(
  (select error from pgflow.runs where run_id = pg_temp.child(3, 2)), format('its parent run %s has failed', pg_temp.run(3)), 'which say why'
);

-- The parent is retried
select pgflow.retry_run(pg_temp.run(3));
select is(pg_temp.statuses(3), 'started: completed failed cancelled', 'who retries a parent touches no child');
select pgflow.tick();
select is(pg_temp.statuses(3), 'started: completed started started', 'the next tick retries the children that did not complete, and no other');
select is(
  (select array_agg(type order by seq) from pgflow.run_events where run_id = pg_temp.child(3, 1) and step_slug is null),
  array['run:started', 'run:failed', 'run:retried'], 'they are the same runs'
);
select pgflow.complete_task(pg_temp.child(3, i), 'work', 0, to_jsonb(i)) from generate_series(1, 2) i;
select pgflow.tick();
select is(
  (select output from pgflow.runs where run_id = pg_temp.run(3)), '{"each": [{"work": 1}, {"work": 1}, {"work": 2}]}',
  'and the parent completes with the outputs of all'
);

-- The child is retried
select pgflow.start_flow('parent', '[1, 2]', pg_temp.run(4));
select pgflow.tick();
select pg_temp.fail(pg_temp.child(4, 0));
select pgflow.tick();
select is(pg_temp.statuses(4), 'failed: failed cancelled', 'another parent fails');
select pgflow.retry_run(pg_temp.child(4, 0));
select is(pg_temp.statuses(4), 'failed: started cancelled', 'who retries a child does not touch its parent');
select pgflow.tick();
select is(pg_temp.statuses(4), 'started: started started', 'the next tick retries the parent, too');
select pgflow.complete_task(pg_temp.child(4, i), 'work', 0, '1') from generate_series(0, 1) i;
select pgflow.tick();
select is(pg_temp.statuses(4), 'completed: completed completed', 'and it completes');
select pgflow.start_flow('parent', '[1]', pg_temp.run(5));
select pgflow.tick();
select pgflow.cancel_run(pg_temp.run(5));
select pgflow.tick();
select pgflow.retry_run(pg_temp.child(5));
select pgflow.tick();
select is(pg_temp.statuses(5), 'cancelled: started', 'a parent that was cancelled stays so');
select pgflow.complete_task(pg_temp.child(5), 'work', 0, '"alone"');
select pgflow.retry_run(pg_temp.run(5));
select pgflow.tick();
select is(
  (select output from pgflow.runs where run_id = pg_temp.run(5)), '{"each": [{"work": "alone"}]}',
  'when it is retried, what its child has completed meanwhile counts at once'
);

-- The parent is retried before its children were cancelled
select pgflow.start_flow('parent', '[1]', pg_temp.run(6));
select pgflow.tick();
select pgflow.cancel_run(pg_temp.run(6)), pgflow.retry_run(pg_temp.run(6));
select pgflow.tick();
select is(pg_temp.statuses(6), 'started: started', 'a child whose parent goes on again is not cancelled');
select is((select array_agg(type) from pgflow.run_events where run_id = pg_temp.child(6) and step_slug is null), array['run:started'], 'nor retried');

-- Grandchildren
select pgflow.create_flow('root'), pgflow.add_step('root', 'sub', options => '{"child_flow": "parent"}');
select pgflow.start_flow('root', '[1, 2]', pg_temp.run(7));
select pgflow.tick();
select is(
  (select array_agg(r.depth::int order by r.depth) from pgflow.runs r where r.run_id = pg_temp.run(7) or r.parent_run_id in (pg_temp.run(7), pg_temp.child(7, 0, 'sub'))),
  '{0,1,2,2}', 'one tick starts children of children'
);
select pgflow.cancel_run(pg_temp.run(7));
select pgflow.tick();
select is((select count(*) from pgflow.runs where status = 'started' and parent_run_id = pg_temp.child(7, 0, 'sub')), 0::bigint, 'and cancels them');
select pgflow.retry_run(pg_temp.run(7));
select pgflow.tick();
select pgflow.complete_task(run_id, 'work', 0, '1') from pgflow.runs where parent_run_id = pg_temp.child(7, 0, 'sub');
select pgflow.tick();
select is((select status from pgflow.runs where run_id = pg_temp.run(7)), 'completed', 'and retries and completes them');

-- Deleted
select pgflow.start_flow('parent', '[1, 2]', pg_temp.run(8));
select pgflow.tick();
delete from pgflow.runs where run_id = pg_temp.child(8, 1);
select pgflow.tick();
select is(
  (select error from pgflow.runs where run_id = pg_temp.run(8)), format('child run %s was deleted', pg_temp.child(8, 1)),
  'a child that is deleted fails its parent'
);
select pgflow.retry_run(pg_temp.run(8));
select pgflow.tick();
select is(pg_temp.statuses(8), 'started: started started', 'whose retry starts it anew');
create temp table orphans as select run_id from pgflow.list_children(pg_temp.run(8));
delete from pgflow.runs where run_id = pg_temp.run(8);
select pgflow.tick();
select is(
  (select array_agg(distinct r.status || ': ' || r.error) from orphans join pgflow.runs r using (run_id)),
  array[format('cancelled: its parent run %s was deleted', pg_temp.run(8))], 'a parent that is deleted ends its children'
);
select pgflow.start_flow('lets_go', '[1]', pg_temp.run(9), owner_id => pg_temp.run(90));
select pgflow.tick();
select is(pgflow.forget_owner(pg_temp.run(90)), 2::bigint, 'a user is forgotten with parents and children');
select is((pgflow.tick()).settled, 0, 'after which nothing is left to do');

-- Pruned
select pgflow.start_flow('parent', '[1, 2]', pg_temp.run(10));
select pgflow.tick();
select pgflow.complete_task(pg_temp.child(10, 0), 'work', 0, '1');
select pgflow.tick();
set local pgflow.now = '2030-03-01 00:00:00Z';
select pgflow.prune_runs('1 day');
select is(pg_temp.statuses(10), 'started: completed started', 'a child is not pruned while its parent goes on');
select pgflow.complete_task(pg_temp.child(10, 1), 'work', 0, '1');
select pgflow.tick();
set local pgflow.now = '2030-06-01 00:00:00Z';
select is(pgflow.prune_runs('1 day'), 3::bigint, 'then it is');

-- A retry that goes down does not come up again
select pgflow.create_flow('fails_at_once'), pgflow.add_step('fails_at_once', 'work', step_type => 'map');
select pgflow.create_flow('two'), pgflow.add_step('two', 'bad', options => '{"child_flow": "fails_at_once"}'),
       pgflow.add_step('two', 'good', options => '{"child_flow": "child"}');
select pgflow.start_flow('two', '1', pg_temp.run(12));
select pgflow.tick();
select is(pg_temp.statuses(12), 'failed: failed cancelled', 'a child fails its parent, which cancels another one');
select pgflow.retry_run(pg_temp.run(12));
select pgflow.tick() from generate_series(1, 3);
select is(pg_temp.statuses(12), 'failed: failed cancelled', 'and again after a retry');
select is(
  (select count(*) from pgflow.run_events where run_id = pg_temp.run(12) and type = 'run:retried'), 1::bigint,
  'children that a parent has retried do not retry it'
);

-- What an alarm was lost of
select pgflow.start_flow('parent', '[1, 2, 3]', pg_temp.run(11));
delete from pgflow.alarms;
select is((pgflow.tick()).settled, 0, 'without an alarm nothing happens');
create function pg_temp.upkeep() returns void language sql as $$ select setval('pgflow.last_repair', 1); select pgflow.maintain() $$;
select pg_temp.upkeep();
select is(pg_temp.statuses(11), 'started: started started started', 'maintain finds children that were not started');
select pgflow.complete_task(pg_temp.child(11, i), 'work', 0, '1') from generate_series(0, 1) i;
delete from pgflow.runs where run_id = pg_temp.child(11, 0);
delete from pgflow.alarms;
select pg_temp.upkeep();
select is(
  (select error from pgflow.runs where run_id = pg_temp.run(11)), format('child run %s was deleted', pg_temp.child(11, 0)),
  'and those that have ended, or are gone'
);
select is(pg_temp.statuses(11), 'failed: none completed cancelled', 'with all that follows');
select is((select count(*) from pgflow.alarms), 0::bigint, 'no alarm is left');

select * from finish();
rollback;
