-- Chapter 16: a run is cancelled, goes on after it ended, or is erased with its owner.

-- Cancels a run and closes all that is open under it. Cancelling it again changes nothing. A reason has up to 10,000
-- characters. With `undo` what it has completed is undone, as if it had failed; also where it was cancelled before.
--   select * from pgflow.cancel_run('…', 'no longer needed');
create function pgflow.cancel_run(run_id uuid, reason text default null, undo boolean default false)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  run pgflow.runs := pgflow.locked_run(cancel_run.run_id);
begin
  if length(cancel_run.reason) > 10000 then
    raise exception using
      errcode = 'PT413',
      message = format('a reason of %s characters is too long', length(cancel_run.reason)),
      hint = 'Give a reason of 10,000 characters at most.';
  end if;
  if run.status = 'cancelled' then
    if cancel_run.undo and run.undo is null then
      update pgflow.runs r set undo = 'asked' where r.run_id = run.run_id returning * into run;
    end if;
    return run;
  end if;
  if run.status <> 'started' then
    raise exception using
      errcode = 'PT409',
      message = format('run %s cannot be cancelled: it has %s', run.run_id, run.status),
      hint = 'Only a run that is started can be cancelled.';
  end if;
  update pgflow.step_states ss set status = 'cancelled'
  where ss.run_id = run.run_id and ss.status in ('created', 'started');
  perform pgflow.close_tasks(array[run.run_id]);
  update pgflow.runs r
  set status = 'cancelled', error = cancel_run.reason, cancelled_at = pgflow.now(), waits_for = null,
      undo = case when cancel_run.undo then 'asked' end
  where r.run_id = run.run_id
  returning * into run;
  return run;
end
$$;
comment on function pgflow.cancel_run is 'Cancels a run, its steps and its tasks; the reason becomes its error. With undo, what it has completed is undone.';

-- Lets a failed or cancelled run go on: its failed and cancelled steps run again, with all their attempts; completed
-- steps, and completed items of maps, keep their outputs.
--   select * from pgflow.retry_run('…');
-- One of a flow with singleton_when_busy needs its key: it is an error while another run goes on or waits. A run whose undo has begun
-- cannot go on.
create function pgflow.retry_run(run_id uuid)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
#variable_conflict use_column
declare
  has_key boolean := pgflow.take_key_again(retry_run.run_id); -- before the run is locked, as a start does
  run pgflow.runs := pgflow.locked_run(retry_run.run_id);
  as_of timestamptz := pgflow.now();
  skips pgflow.step_change[] := pgflow.cascading_skips(run.run_id);
  ready pgflow.step_key[];
begin
  if run.status not in ('failed', 'cancelled') then
    raise exception using
      errcode = 'PT409',
      message = format('run %s cannot be retried: it is %s', run.run_id, run.status),
      hint = 'Only a run that has failed or was cancelled can be retried.';
  end if;
  if run.undo = 'begun' then
    perform pgflow.raise_undone(run.run_id);
  end if;
  with reopened as (
    update pgflow.step_states ss
    set status = 'created',
        remaining_deps = (
          select count(*) from pgflow.deps d
          join pgflow.step_states dep on dep.run_id = ss.run_id and dep.step_slug = d.dep_slug
          where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug
            and (dep.status not in ('completed', 'skipped') or dep.step_slug in (select s.step_slug from unnest(skips) s))
        ),
        initial_tasks = null, remaining_tasks = null, error = null, progress = null, retries = 0, retry_at = null,
        started_at = null, failed_at = null, waits_for = null, due_at = null
    where ss.run_id = run.run_id and ss.status in ('failed', 'cancelled')
    returning run_id, step_slug, remaining_deps
  )
  select array_agg(row(run_id, step_slug)::pgflow.step_key) filter (where remaining_deps = 0) into ready from reopened;
  update pgflow.runs r
  set status = 'started', error = null, failed_at = null, cancelled_at = null, undo = null
  where r.run_id = run.run_id;
  perform pgflow.set_deadlines(array[run.run_id], as_of);
  perform pgflow.advance(pgflow.decide(ready, as_of) || pgflow.cascade_skips(skips), as_of);
  select r.* into run from pgflow.runs r where r.run_id = run.run_id;
  return run;
end
$$;
comment on function pgflow.retry_run is 'Lets a failed or cancelled run go on from where it ended.';

-- The skipped steps of a run whose dependents do not run either. Those that were skipped while the run failed have
-- dependents that were cancelled, not skipped.
create function pgflow.cascading_skips(run_id uuid)
returns pgflow.step_change[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(row(skipped.*)::pgflow.step_change), '{}')
  from pgflow.step_states ss
  join pgflow.steps s using (flow_slug, step_slug)
  cross join lateral (
    select ss.run_id, ss.flow_slug, ss.step_slug, 'skipped' as change, null::bigint as result_n, null as error, ss.skip_reason,
           true as cascade, null::int as tasks, null::int as items, 0 as retries, null::timestamptz as retry_at, null::text as waits_for,
           null::timestamptz as due_at
  ) skipped
  where ss.run_id = cascading_skips.run_id
    and ss.status = 'skipped'
    and case ss.skip_reason
      when 'condition_unmet' then s.when_unmet = 'skip-cascade'
      when 'attempts_exhausted' then s.when_exhausted = 'skip-cascade'
      when 'timed_out' then s.when_timed_out = 'skip-cascade'
      else ss.skip_reason = 'dep_skipped'
    end
$$;

-- Erases what a deleted user leaves: their schedules, their runs, with inputs, outputs, events, watches and idempotency keys, and their id where
-- they have acted in the runs of others. Runs that go on are deleted, too, without being cancelled first: workers learn from
-- their next heartbeat that the task is gone. Answers how many runs it has deleted, up to `quantity`; call it until that is 0
-- where a user has more than some 10,000.
--   select pgflow.forget_owner('…');
create function pgflow.forget_owner(owner_id uuid, quantity int default null)
returns bigint
language plpgsql
security definer -- the service role has no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
declare
  run_ids uuid[];
begin
  if forget_owner.owner_id is null then
    raise exception using
      errcode = 'PT400', message = 'the owner is missing', hint = 'Give the id of a user: runs of nobody are not erased this way.';
  end if;
  -- One at a time: each erases the traces of its user in the runs of others, which these may be erasing.
  perform pg_advisory_xact_lock(hashtextextended('pgflow.forget_owner', 0));
  -- Before any run is locked, as by a user who looks at their list and decides, in one transaction.
  delete from pgflow.inbox_watches w where w.user_id = forget_owner.owner_id;
  delete from pgflow.schedules s where s.owner_id = forget_owner.owner_id; -- before runs, as where they are started
  run_ids := array(
    select r.run_id
    from (
      select mine.run_id from pgflow.runs mine where mine.owner_id = forget_owner.owner_id limit forget_owner.quantity
    ) chosen
    join pgflow.runs r using (run_id)
    order by r.run_id
    for update of r
  );
  perform pgflow.close_tasks(run_ids);
  delete from pgflow.runs r where r.run_id = any (run_ids);
  delete from pgflow.wait_assignees w where w.user_id = forget_owner.owner_id;
  -- Keys of runs that are somebody else's by now, and what the user did in runs of others.
  delete from pgflow.run_keys k where k.owner_id = forget_owner.owner_id
    and not exists (select from pgflow.runs r where r.run_id = k.run_id and r.owner_id = k.owner_id);
  update pgflow.run_events e set actor_id = null where e.actor_id = forget_owner.owner_id
    and not exists (select from pgflow.runs r where r.run_id = e.run_id and r.owner_id = e.actor_id);
  return cardinality(run_ids);
end
$$;
comment on function pgflow.forget_owner is
  'Erases what a deleted user leaves: runs and all that belongs to them, keys, and their id in the events of others'' runs.';

-- Locks a run; PT404 where there is none.
create function pgflow.locked_run(run_id uuid)
returns pgflow.runs
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  run pgflow.runs;
begin
  select r.* into run from pgflow.runs r where r.run_id = locked_run.run_id for no key update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('run %s does not exist', coalesce(locked_run.run_id::text, 'null')),
      hint = 'Check its id: select run_id from pgflow.runs.';
  end if;
  return run;
end
$$;
