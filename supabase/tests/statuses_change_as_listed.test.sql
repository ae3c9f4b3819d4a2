begin;
select plan(10);

-- Every ordered pair of statuses. `engine`: some function of the engine makes this change. `plain`: an update of the status
-- alone is possible, because both statuses need the same of a row. `both`, or `no` where neither is.
create temp table listed (target text, from_status text, to_statuses jsonb);
insert into listed values
  ('runs', 'started', '{"completed": "engine", "failed": "engine", "cancelled": "engine"}'),
  ('runs', 'completed', '{"started": "no", "failed": "no", "cancelled": "no"}'),
  ('runs', 'failed', '{"started": "engine", "completed": "no", "cancelled": "no"}'),
  ('runs', 'cancelled', '{"started": "engine", "completed": "no", "failed": "no"}'),
  ('step_states', 'created', '{"started": "engine", "completed": "engine", "failed": "engine", "skipped": "engine", "cancelled": "both"}'),
  ('step_states', 'started', '{"created": "no", "completed": "engine", "failed": "engine", "skipped": "engine", "cancelled": "both"}'),
  ('step_states', 'completed', '{"created": "no", "started": "no", "failed": "no", "skipped": "no", "cancelled": "no"}'),
  ('step_states', 'failed', '{"created": "engine", "started": "no", "completed": "no", "skipped": "no", "cancelled": "no"}'),
  ('step_states', 'skipped', '{"created": "no", "started": "no", "completed": "no", "failed": "no", "cancelled": "no"}'),
  ('step_states', 'cancelled', '{"created": "both", "started": "no", "completed": "no", "failed": "no", "skipped": "no"}'),
  ('step_tasks', 'waiting', '{"queued": "no", "started": "no", "completed": "engine", "failed": "engine", "skipped": "no", "cancelled": "engine"}'),
  ('step_tasks', 'queued', '{"waiting": "no", "started": "engine", "completed": "engine", "failed": "engine", "skipped": "both", "cancelled": "both"}'),
  ('step_tasks', 'started', '{"waiting": "no", "queued": "both", "completed": "engine", "failed": "engine", "skipped": "both", "cancelled": "both"}'),
  ('step_tasks', 'completed', '{"waiting": "no", "queued": "no", "started": "no", "failed": "no", "skipped": "no", "cancelled": "no"}'),
  ('step_tasks', 'failed', '{"waiting": "engine", "queued": "engine", "started": "no", "completed": "no", "skipped": "no", "cancelled": "no"}'),
  ('step_tasks', 'skipped', '{"waiting": "no", "queued": "plain", "started": "no", "completed": "no", "failed": "no", "cancelled": "plain"}'),
  ('step_tasks', 'cancelled', '{"waiting": "engine", "queued": "both", "started": "no", "completed": "no", "failed": "no", "skipped": "plain"}');
create temp view grid as
select target, from_status, to_status, allowed in ('engine', 'both') as engine, allowed in ('plain', 'both') as plain
from listed cross join jsonb_each_text(to_statuses) as t (to_status, allowed);

select set_eq(
  $$ select target, from_status, to_status from grid $$,
  $$ select l.target, l.from_status, other.from_status as to_status from listed l
     join listed other on other.target = l.target and other.from_status <> l.from_status $$,
  'every pair is listed'
);

-- What the engine does: a battery that takes it to its corners, while triggers note each change.
create temp table changes (target text, from_status text, to_status text);
create function pg_temp.tg_note() returns trigger language plpgsql as $$
begin
  insert into pg_temp.changes values (tg_table_name, old.status, new.status);
  return null;
end
$$;
create trigger note after update on pgflow.runs for each row when (old.status <> new.status) execute function pg_temp.tg_note();
create trigger note after update on pgflow.step_states for each row when (old.status <> new.status) execute function pg_temp.tg_note();
create trigger note after update on pgflow.step_tasks for each row when (old.status <> new.status) execute function pg_temp.tg_note();

create function pg_temp.run(n int default 1) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
select pgflow.create_flow('f', max_attempts => 2, base_delay => 0);
select pgflow.add_step('f', 'a'), pgflow.add_step('f', 'each', step_type => 'map', when_exhausted => 'skip'),
       pgflow.add_step('f', 'b', array['a']), pgflow.add_step('f', 'strict', array['a'], run_unless => '{"a": "bad"}', when_unmet => 'fail'),
       pgflow.add_step('f', 'opt', array['a'], run_if => '{"a": "opt"}'), pgflow.add_step('f', 'm', array['a'], step_type => 'map', map_path => 'items');
select pgflow.start_flow('f', '[1, 2, 3]', run_id => pg_temp.run(n)) from generate_series(1, 6) n;
-- Run 1 completes; its map is skipped, with tasks that are queued and started.
select pgflow.claim_tasks(array['f'], 3, gen_random_uuid());
select pgflow.settle_tasks(jsonb_build_array(
  jsonb_build_object('run_id', pg_temp.run(1), 'step_slug', 'each', 'task_index', 0, 'attempt', 1, 'error', 'x', 'permanent', true)
));
select pgflow.fail_task(pg_temp.run(1), 'a', 0, 'again');
select pgflow.complete_task(pg_temp.run(1), 'a', 0, '{"items": []}');
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid());
select pgflow.complete_task(pg_temp.run(1), step, 0, '1') from unnest(array['b', 'strict']) step;
-- Run 2 fails with a step that never starts, run 3 with one that has; both go on, and run 2 is cancelled.
select pgflow.complete_task(pg_temp.run(2), 'a', 0, '"bad"');
select pgflow.retry_run(pg_temp.run(2)), pgflow.fail_task(pg_temp.run(3), 'a', 0, 'x');
select pgflow.claim_tasks(array['f'], 100, gen_random_uuid()), pgflow.fail_task(pg_temp.run(3), 'a', 0, 'x');
select pgflow.retry_run(pg_temp.run(3)), pgflow.cancel_run(pg_temp.run(4)), pgflow.retry_run(pg_temp.run(4)), pgflow.cancel_run(pg_temp.run(4));
select pgflow.start_flow('f', '[1, 2]', run_id => pg_temp.run(7));
-- A task that waits for an attempt which its lowered options no longer allow fails without being claimed.
select pgflow.create_flow('g', max_attempts => 2, base_delay => 0), pgflow.add_step('g', 'a');
select pgflow.start_flow('g', '1', run_id => pg_temp.run(8));
select pgflow.claim_tasks(array['g'], 1, gen_random_uuid()), pgflow.fail_task(pg_temp.run(8), 'a', 0, 'x');
update pgflow.flows set opt_max_attempts = 1 where flow_slug = 'g';
select pgflow.claim_tasks(array['g'], 1, gen_random_uuid());

-- A wait is completed, one is rejected; its run is retried, and cancelled, and retried.
select pgflow.create_flow('w'), pgflow.add_step('w', 'a', step_type => 'wait', timeout => 60);
select pgflow.start_flow('w', '1', run_id => pg_temp.run(n)) from generate_series(11, 12) n;
select pgflow.complete_wait(pg_temp.run(11), 'a'), pgflow.reject_wait(pg_temp.run(12), 'a', 'no');
select pgflow.retry_run(pg_temp.run(12)), pgflow.cancel_run(pg_temp.run(12)), pgflow.retry_run(pg_temp.run(12));

select set_eq(
  format('select from_status, to_status from changes where target = %L', target),
  format('select from_status, to_status from grid where engine and target = %L', target),
  'the engine changes statuses of ' || target || ' exactly as listed'
) from unnest(array['runs', 'step_states', 'step_tasks']) target;
select is_empty(
  $$ select * from grid where engine and from_status in ('completed', 'skipped') $$, 'what has completed, or was skipped, is final'
);
select is_empty(
  $$ select * from grid where engine and from_status in ('failed', 'cancelled') and to_status not in ('started', 'created', 'waiting', 'queued') $$,
  'what has failed, or was cancelled, can only be opened again'
);

-- What an update of the status alone can do, from a row that has exactly what its status needs
create temp table needs (target text, status text, has text);
insert into needs values
  ('runs', 'started', ''), ('runs', 'completed', 'completed_at = now(), output = ''1'''),
  ('runs', 'failed', 'failed_at = now(), error = ''x'''), ('runs', 'cancelled', 'cancelled_at = now()'),
  ('step_states', 'created', ''), ('step_states', 'started', 'started_at = now()'),
  ('step_states', 'completed', 'started_at = now(), completed_at = now(), output = ''1'''),
  ('step_states', 'failed', 'failed_at = now(), error = ''x'''), ('step_states', 'skipped', 'skipped_at = now(), skip_reason = ''x'''),
  ('step_states', 'cancelled', ''),
  ('step_tasks', 'waiting', 'waits_for = ''signal'', message_id = null'),
  ('step_tasks', 'queued', ''), ('step_tasks', 'started', 'attempts_count = 1, started_at = now()'),
  ('step_tasks', 'completed', 'completed_at = now()'), ('step_tasks', 'failed', 'failed_at = now(), error_message = ''x'''),
  ('step_tasks', 'skipped', ''), ('step_tasks', 'cancelled', '');
create function pg_temp.can_change(target text, from_status text, to_status text) returns boolean language plpgsql as $$
declare
  bare text := case target
    when 'runs' then 'completed_at = null, failed_at = null, cancelled_at = null, output = null, error = null, remaining_steps = 0'
    when 'step_states' then 'started_at = null, completed_at = null, failed_at = null, skipped_at = null, output = null, error = null, skip_reason = null, remaining_deps = 0'
    else 'attempts_count = 0, started_at = null, completed_at = null, failed_at = null, error_message = null, waits_for = null, due_at = null, message_id = 1'
  end;
  one text := format('where run_id = %L', pg_temp.run(9));
begin
  begin
    execute format('update pgflow.%I set status = %L, %s %s', target,
      case target when 'runs' then 'started' when 'step_states' then 'created' else 'queued' end, bare, one);
    execute format('update pgflow.%I set %s %s', target, (
      select concat_ws(', ', format('status = %L', n.status), nullif(n.has, '')) from needs n
      where n.target = can_change.target and n.status = from_status
    ), one);
  exception when check_violation then
    raise 'a row that is % cannot be made: %', from_status, sqlerrm;
  end;
  execute format('update pgflow.%I set status = %L %s', target, to_status, one);
  return true;
exception when check_violation then
  return false;
end
$$;
select pgflow.create_flow('h'), pgflow.add_step('h', 'a');
select pgflow.start_flow('h', '1', run_id => pg_temp.run(9));
select set_eq(
  format('select from_status, to_status from grid where target = %1$L and pg_temp.can_change(target, from_status, to_status)', target),
  format('select from_status, to_status from grid where target = %1$L and plain', target),
  'a status of ' || target || ' alone changes only as listed'
) from unnest(array['runs', 'step_states', 'step_tasks']) target;
select is((select count(*) from grid), 84::bigint, 'all 12 + 30 + 42 pairs');

select * from finish();
rollback;
