-- Chapter 6: tasks are claimed and settled, in batches, and runs move forward.
--
-- One lock order everywhere: run, step state, task. Claiming waits for nobody: it skips what is locked. Settling locks
-- the runs first and looks at every status after that.

create type pgflow.step_task_record as (
  flow_slug text,
  run_id uuid,
  step_slug text,
  input jsonb,
  msg_id bigint,
  task_index int,
  attempt int,
  timeout int
);
comment on type pgflow.step_task_record is
  'A claimed task: attempt is what its settlement must name, timeout is in seconds, input is {"run": …, "<dep>": …}.';

create type pgflow.task_result as (
  run_id uuid,
  step_slug text,
  task_index int,
  attempt int,
  output jsonb,
  error text,
  retry_delay numeric,
  permanent boolean
);
comment on type pgflow.task_result is
  'How a task ended: completed with output, or failed where error is not null. An attempt that is null means the task as it stands.';

create type pgflow.settled_task as (
  n bigint,
  run_id uuid,
  step_slug text,
  task_index int,
  flow_slug text,
  message_id bigint,
  outcome text,
  output jsonb,
  error text,
  retry_at timestamptz
);
comment on type pgflow.settled_task is 'What became of a task; n is the place of its result in the batch.';

-- Claims up to `quantity` tasks of the flows. Each is hidden from others for `lease` seconds; a task that is not settled
-- or extended by then can be claimed again, as its next attempt.
--   select * from pgflow.claim_tasks(array['analyze_document'], 10, gen_random_uuid(), lease => 30);
create function pgflow.claim_tasks(flow_slugs text[], quantity int, worker_id uuid, lease int default 30)
returns setof pgflow.step_task_record
language plpgsql
set search_path = ''
as $$
declare
  messages pgflow.message[] := pgflow.read_messages(claim_tasks.flow_slugs, claim_tasks.quantity, claim_tasks.lease);
begin
  -- A message read for the first time belongs to a task that is open and has attempts left.
  if exists (select from unnest(messages) m where m.read_ct > 1) then
    perform pgflow.end_dead_tasks(messages);
  end if;
  return query select * from pgflow.start_tasks(messages, claim_tasks.worker_id, pgflow.now());
end
$$;
comment on function pgflow.claim_tasks is 'Claims tasks of flows for a worker, each under a lease of some seconds.';

-- Counts an attempt of each task whose message was read, and answers with what its handler needs. Rows come from the
-- locked update, so that no task goes to two workers; a task that is being settled at the moment is left alone.
create function pgflow.start_tasks(messages pgflow.message[], worker_id uuid, now timestamptz)
returns setof pgflow.step_task_record
language sql
set search_path = ''
as $$
  with
    open as (
      select t.run_id, t.step_slug, t.task_index, r.input as run_input,
             coalesce(s.opt_timeout, f.opt_timeout) as timeout
      from unnest(start_tasks.messages) m
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      join pgflow.runs r using (run_id)
      join pgflow.flows f on f.flow_slug = t.flow_slug
      join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
      where t.message_id = m.msg_id
        and t.status in ('queued', 'started')
        and t.attempts_count < coalesce(s.opt_max_attempts, f.opt_max_attempts)
      order by t.run_id, t.step_slug, t.task_index
      for no key update of t skip locked
    ),
    claimed as (
      update pgflow.step_tasks t
      set status = 'started',
          attempts_count = t.attempts_count + 1,
          started_at = start_tasks.now,
          last_worker_id = start_tasks.worker_id
      from open o
      where (t.run_id, t.step_slug, t.task_index) = (o.run_id, o.step_slug, o.task_index)
      returning t.flow_slug, t.run_id, t.step_slug, o.run_input, t.message_id, t.task_index, t.attempts_count, o.timeout
    )
  select c.flow_slug, c.run_id, c.step_slug,
         jsonb_build_object('run', c.run_input) || coalesce(deps.outputs, '{}'),
         c.message_id, c.task_index, c.attempts_count, c.timeout
  from claimed c
  cross join lateral (
    select jsonb_object_agg(d.dep_slug, ss.output) as outputs
    from pgflow.deps d
    join pgflow.step_states ss on ss.run_id = c.run_id and ss.step_slug = d.dep_slug
    where d.flow_slug = c.flow_slug and d.step_slug = c.step_slug and ss.status = 'completed'
  ) deps
  order by c.message_id
$$;

-- Of messages that were read, ends what cannot be claimed: a task that has no attempt left fails for good, because its
-- last one's lease ran out or its options were lowered; the message of a task that is closed already is archived.
create function pgflow.end_dead_tasks(messages pgflow.message[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  expired pgflow.task_result[];
  orphans record;
begin
  select array_agg(row(
    t.run_id, t.step_slug, t.task_index, case t.status when 'started' then t.attempts_count end, null,
    case t.status
      when 'started' then 'lease expired: the worker was lost'
      else coalesce(t.error_message, 'no attempts left')
    end,
    null, true
  )::pgflow.task_result)
  into expired
  from unnest(messages) m
  join pgflow.step_tasks t using (run_id, step_slug, task_index)
  join pgflow.flows f on f.flow_slug = t.flow_slug
  join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
  where t.message_id = m.msg_id
    and t.status in ('queued', 'started')
    and t.attempts_count >= coalesce(s.opt_max_attempts, f.opt_max_attempts);
  if expired is not null then
    perform pgflow.settle(expired);
  end if;

  for orphans in
    select m.queue_name, array_agg(m.msg_id) as msg_ids
    from unnest(messages) m
    where not exists (
      select from pgflow.step_tasks t
      where (t.run_id, t.step_slug, t.task_index) = (m.run_id, m.step_slug, m.task_index)
        and t.message_id = m.msg_id
        and t.status in ('queued', 'started')
    )
    group by m.queue_name
  loop
    perform pgflow.archive_messages(orphans.queue_name, orphans.msg_ids);
  end loop;
end
$$;

-- Settles a batch: tasks, their steps, what these unblock, their runs. Answers with the tasks that it settled; a result
-- that names an older attempt, or whose task or run is closed, changes nothing.
create function pgflow.settle(results pgflow.task_result[])
returns setof pgflow.settled_task
language plpgsql
set search_path = ''
as $$
declare
  now timestamptz;
  settled pgflow.settled_task[];
  started pgflow.step_key[];
begin
  perform from pgflow.runs r
  where r.run_id in (select result.run_id from unnest(results) result)
  order by r.run_id
  for no key update;

  now := pgflow.now();
  settled := array(select s from pgflow.settle_tasks_of_locked_runs(results, now) s);
  if cardinality(settled) = 0 then
    return;
  end if;
  started := pgflow.advance_steps(settled, now);
  if started is not null then
    perform pgflow.create_tasks(started, now);
  end if;
  perform pgflow.advance_runs(settled, now);
  perform pgflow.release_messages(settled);
  return query select * from unnest(settled);
end
$$;

-- The tasks of `settle`: completed, failed, or queued again for another attempt. Of several results for one task the
-- first that is not stale counts.
create function pgflow.settle_tasks_of_locked_runs(results pgflow.task_result[], now timestamptz)
returns setof pgflow.settled_task
language sql
set search_path = ''
as $$
  with
    locked as (
      select r.ordinality as n, t.run_id, t.step_slug, t.task_index, r.output, r.error,
             case
               when r.error is null then 'completed'
               when r.permanent or t.attempts_count >= coalesce(s.opt_max_attempts, f.opt_max_attempts) then 'failed'
               else 'retrying'
             end as outcome,
             now + make_interval(secs => greatest(0, least(31536000, coalesce(
               r.retry_delay,
               pgflow.calculate_retry_delay(coalesce(s.opt_base_delay, f.opt_base_delay), t.attempts_count)
             )))::float8) as retry_at
      from unnest(settle_tasks_of_locked_runs.results) with ordinality r
      join pgflow.runs run on run.run_id = r.run_id and run.status = 'started'
      join pgflow.step_tasks t
        on (t.run_id, t.step_slug, t.task_index) = (r.run_id, r.step_slug, r.task_index)
      join pgflow.flows f on f.flow_slug = t.flow_slug
      join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
      where case
        when r.attempt is null then t.status in ('queued', 'started')
        else t.status = 'started' and t.attempts_count = r.attempt
      end
      order by t.run_id, t.step_slug, t.task_index
      for no key update of t
    ),
    decided as (
      select distinct on (l.run_id, l.step_slug, l.task_index) l.*
      from locked l
      order by l.run_id, l.step_slug, l.task_index, l.n
    )
  update pgflow.step_tasks t
  set status = case d.outcome when 'retrying' then 'queued' else d.outcome end,
      error_message = d.error,
      completed_at = case d.outcome when 'completed' then now end,
      failed_at = case d.outcome when 'failed' then now end
  from decided d
  where (t.run_id, t.step_slug, t.task_index) = (d.run_id, d.step_slug, d.task_index)
  returning d.n, t.run_id, t.step_slug, t.task_index, t.flow_slug, t.message_id, d.outcome,
            coalesce(d.output, 'null'), d.error, d.retry_at
$$;

-- The steps of `settle`, in one update, so that it makes one message a run: the settled ones, their dependents, and
-- everything that is open in a run that fails. Answers with the steps that have started.
create function pgflow.advance_steps(settled pgflow.settled_task[], now timestamptz)
returns pgflow.step_key[]
language sql
set search_path = ''
as $$
  with
    settled as (
      select s.*, bool_or(s.outcome = 'failed') over (partition by s.run_id) as run_fails
      from unnest(advance_steps.settled) s
    ),
    change as (
      select s.run_id, s.step_slug, s.outcome, s.output, s.error, s.retry_at, 0 as deps
      from settled s
      where s.outcome <> 'retrying' or not s.run_fails
      union all
      select s.run_id, d.step_slug, 'unblocked', null, null, null, count(*)
      from settled s
      join pgflow.deps d on d.flow_slug = s.flow_slug and d.dep_slug = s.step_slug
      where s.outcome = 'completed' and not s.run_fails
      group by s.run_id, d.step_slug
      union all
      select ss.run_id, ss.step_slug, 'cancelled', null, null, null, 0
      from (select distinct s.run_id from settled s where s.run_fails) failing
      join pgflow.step_states ss using (run_id)
      where ss.status in ('created', 'started')
        and not exists (
          select from settled s
          where s.outcome <> 'retrying' and (s.run_id, s.step_slug) = (ss.run_id, ss.step_slug)
        )
    ),
    decided as (
      select c.*,
             case
               when c.outcome = 'retrying' then 'started'
               when c.outcome <> 'unblocked' then c.outcome
               when ss.remaining_deps = c.deps then 'started'
               else 'created'
             end as status
      from change c
      join pgflow.step_states ss using (run_id, step_slug)
    ),
    updated as (
      update pgflow.step_states ss
      set status = d.status,
          remaining_deps = ss.remaining_deps - d.deps,
          remaining_tasks = case
            when d.outcome = 'completed' then 0
            when d.outcome = 'unblocked' and d.status = 'started' then 1
            else ss.remaining_tasks
          end,
          initial_tasks = case
            when d.outcome = 'unblocked' and d.status = 'started' then 1
            else ss.initial_tasks
          end,
          output = case d.outcome when 'completed' then d.output end,
          error = case d.outcome when 'cancelled' then ss.error else d.error end,
          retries = ss.retries + (d.outcome = 'retrying')::int,
          retry_at = case d.outcome when 'retrying' then d.retry_at else ss.retry_at end,
          started_at = case when d.outcome = 'unblocked' and d.status = 'started' then now else ss.started_at end,
          completed_at = case d.status when 'completed' then now end,
          failed_at = case d.status when 'failed' then now end
      from decided d
      where (ss.run_id, ss.step_slug) = (d.run_id, d.step_slug)
      returning ss.run_id, ss.step_slug, d.outcome, d.status
    )
  select array_agg(row(u.run_id, u.step_slug)::pgflow.step_key) from updated u
  where u.outcome = 'unblocked' and u.status = 'started'
$$;

-- The output of a run: {leaf_slug: output} over its completed leaf steps.
create function pgflow.run_output(run_id uuid, flow_slug text)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(ss.step_slug, ss.output), '{}')
  from pgflow.step_states ss
  where ss.run_id = run_output.run_id
    and ss.status = 'completed'
    and not exists (
      select from pgflow.deps d where d.flow_slug = run_output.flow_slug and d.dep_slug = ss.step_slug
    )
$$;

-- Cancels the open tasks of runs that have ended, and archives their messages.
create function pgflow.close_tasks(run_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  closed record;
begin
  for closed in
    with task as (
      update pgflow.step_tasks t
      set status = 'cancelled'
      where t.run_id = any (run_ids) and t.status in ('queued', 'started')
      returning t.flow_slug, t.message_id
    )
    select f.queue_name, array_agg(t.message_id) as msg_ids
    from task t join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    perform pgflow.archive_messages(closed.queue_name, closed.msg_ids);
  end loop;
end
$$;

-- The runs of `settle`: fewer steps remain, the last one completes the run, a failed one fails it and closes its tasks.
-- A plain retry does not touch its run.
create function pgflow.advance_runs(settled pgflow.settled_task[], now timestamptz)
returns void
language sql
set search_path = ''
as $$
  with
    done as (
      select s.run_id,
             count(*) filter (where s.outcome = 'completed') as steps,
             min(s.error) filter (where s.outcome = 'failed') as error
      from unnest(advance_runs.settled) s
      where s.outcome <> 'retrying'
      group by s.run_id
    ),
    updated as (
      update pgflow.runs r
      set remaining_steps = r.remaining_steps - d.steps,
          status = next.status,
          error = d.error,
          output = case next.status when 'completed' then pgflow.run_output(r.run_id, r.flow_slug) end,
          completed_at = case next.status when 'completed' then now end,
          failed_at = case next.status when 'failed' then now end
      from done d
      join pgflow.runs before using (run_id)
      cross join lateral (
        select case
          when d.error is not null then 'failed'
          when before.remaining_steps = d.steps then 'completed'
          else 'started'
        end
      ) as next (status)
      where r.run_id = d.run_id
      returning r.run_id, r.status
    )
  select pgflow.close_tasks(array_agg(u.run_id)) from updated u where u.status = 'failed' having count(*) > 0
$$;

-- The messages of `settle`: archived, or hidden until the next attempt.
create function pgflow.release_messages(settled pgflow.settled_task[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  released record;
begin
  for released in
    select f.queue_name,
           array_agg(s.message_id) filter (where s.outcome <> 'retrying') as done,
           array_agg(s.message_id order by s.message_id) filter (where s.outcome = 'retrying') as retrying,
           array_agg(s.retry_at order by s.message_id) filter (where s.outcome = 'retrying') as until
    from unnest(settled) s join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    if released.done is not null then
      perform pgflow.archive_messages(released.queue_name, released.done);
    end if;
    if released.retrying is not null then
      perform pgflow.hide_messages(released.queue_name, released.retrying, released.until);
    end if;
  end loop;
end
$$;

-- Settles a batch of results, completed and failed mixed, of any runs and flows, in one transaction.
--   select * from pgflow.settle_tasks('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1, "output": 42}]');
-- A result has either `output` or `error`, with `retry_delay` (seconds, a year at most) or `permanent`. The answer has a
-- row for each result, in order; applied is false where it was stale.
create function pgflow.settle_tasks(results jsonb)
returns table (run_id uuid, step_slug text, task_index int, attempt int, applied boolean)
language sql
set search_path = ''
as $$
  with
    result as (
      select n,
             (r ->> 'run_id')::uuid as run_id, r ->> 'step_slug' as step_slug,
             (r ->> 'task_index')::int as task_index, (r ->> 'attempt')::int as attempt,
             r -> 'output' as output,
             case when r ? 'output' then null else coalesce(r ->> 'error', 'failed without a message') end as error,
             (r ->> 'retry_delay')::numeric as retry_delay, (r ->> 'permanent')::boolean as permanent
      from jsonb_array_elements(settle_tasks.results) with ordinality as e (r, n)
    ),
    settled as (
      select s.n
      from (
        select array_agg(row(
          r.run_id, r.step_slug, r.task_index, r.attempt, r.output, r.error, r.retry_delay, r.permanent
        )::pgflow.task_result order by r.n) as results
        from result r
      ) batch
      cross join lateral pgflow.settle(batch.results) s
    )
  select r.run_id, r.step_slug, r.task_index, r.attempt, s.n is not null
  from result r
  left join settled s using (n)
  order by r.n
$$;
comment on function pgflow.settle_tasks is 'Settles a batch of task results; tells for each whether it was applied or stale.';

-- Settles one task and answers with its row as it then is.
create function pgflow.settle_task(result pgflow.task_result)
returns setof pgflow.step_tasks
language plpgsql
set search_path = ''
as $$
begin
  perform pgflow.settle(array[result]);
  if found then
    return query select t.* from pgflow.step_tasks t
    where (t.run_id, t.step_slug, t.task_index) = (result.run_id, result.step_slug, result.task_index);
  end if;
end
$$;

-- Completes a task as it stands, whatever its attempt.
--   select * from pgflow.complete_task('…', 'report', 0, '{"ok": true}');
create function pgflow.complete_task(run_id uuid, step_slug text, task_index int, output jsonb)
returns setof pgflow.step_tasks
language sql
set search_path = ''
as $$
  select * from pgflow.settle_task(row(
    complete_task.run_id, complete_task.step_slug, complete_task.task_index, null,
    complete_task.output, null, null, null
  )::pgflow.task_result)
$$;
comment on function pgflow.complete_task is 'Completes one task as it stands; no row where it is closed already.';

-- Fails a task as it stands: another attempt follows while there are any left.
--   select * from pgflow.fail_task('…', 'report', 0, 'the disk is full');
create function pgflow.fail_task(run_id uuid, step_slug text, task_index int, error_message text)
returns setof pgflow.step_tasks
language sql
set search_path = ''
as $$
  select * from pgflow.settle_task(row(
    fail_task.run_id, fail_task.step_slug, fail_task.task_index, null,
    null, coalesce(fail_task.error_message, 'failed without a message'), null, null
  )::pgflow.task_result)
$$;
comment on function pgflow.fail_task is 'Fails one task as it stands; it is retried while it has attempts left.';

-- Claims tasks of one queue, waiting for them up to max_poll_seconds. Each message is hidden for its step's timeout plus
-- two seconds. For workers written in SQL or by hand; ours use claim_tasks, whose leases they extend.
--   select * from pgflow.poll_for_tasks('analyze_document', vt => 30, qty => 10, max_poll_seconds => 0);
create function pgflow.poll_for_tasks(
  queue_name text,
  vt int,
  qty int,
  max_poll_seconds int default 5,
  poll_interval_ms int default 100
)
returns setof pgflow.step_task_record
language plpgsql
set search_path = ''
as $$
declare
  flow_slug text := (select f.flow_slug from pgflow.flows f where f.queue_name = poll_for_tasks.queue_name);
  deadline timestamptz := clock_timestamp() + make_interval(secs => max_poll_seconds);
  tasks pgflow.step_task_record[];
begin
  if flow_slug is null then
    raise exception using
      errcode = 'PT404',
      message = format('no flow has the queue "%s"', queue_name),
      hint = 'The queue of each flow: select flow_slug, queue_name from pgflow.flows.';
  end if;
  loop
    tasks := array(select t from pgflow.claim_tasks(array[flow_slug], qty, null, vt) t);
    exit when cardinality(tasks) > 0 or clock_timestamp() >= deadline;
    perform pg_sleep(poll_interval_ms / 1000.0);
  end loop;
  perform pgflow.hide_messages(
    queue_name, array_agg(t.msg_id), array_agg(clock_timestamp() + make_interval(secs => t.timeout + 2))
  ) from unnest(tasks) t;
  return query select * from unnest(tasks);
end
$$;
comment on function pgflow.poll_for_tasks is 'Claims tasks of one queue, waiting for them if there are none.';

-- Extends the leases of claimed tasks: each is hidden for `lease` seconds from now on.
--   select * from pgflow.extend_leases('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]');
-- A task that is no longer this attempt's answers active = false: its handler should stop.
create function pgflow.extend_leases(tasks jsonb, lease int default 30)
returns table (run_id uuid, step_slug text, task_index int, attempt int, active boolean)
language plpgsql
set search_path = ''
as $$
#variable_conflict use_column
declare
  held record;
begin
  if lease is null or lease < 0 then
    raise exception using
      errcode = 'PT400', message = 'lease is not a number of seconds', hint = 'Give lease in whole seconds; 0 ends it.';
  end if;
  for held in
    select f.queue_name, array_agg(t.message_id) as msg_ids,
           array_agg(clock_timestamp() + make_interval(secs => lease)) as until
    from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
    join pgflow.step_tasks t using (run_id, step_slug, task_index)
    join pgflow.flows f using (flow_slug)
    where t.status = 'started' and t.attempts_count = a.attempt
    group by f.queue_name
  loop
    perform pgflow.hide_messages(held.queue_name, held.msg_ids, held.until);
  end loop;
  return query
    select a.run_id, a.step_slug, a.task_index, a.attempt, coalesce(t.status = 'started', false)
    from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
    left join pgflow.step_tasks t
      on (t.run_id, t.step_slug, t.task_index, t.attempts_count) = (a.run_id, a.step_slug, a.task_index, a.attempt);
end
$$;
comment on function pgflow.extend_leases is 'Extends leases by some seconds from now; tells which tasks are still the caller''s.';

-- The list of workers, for people to look at.
create function pgflow.register_worker(worker_id uuid, name text, flow_slugs text[])
returns void
language sql
set search_path = ''
as $$
  insert into pgflow.workers (worker_id, name, flow_slugs, started_at, last_heartbeat_at)
  values (register_worker.worker_id, register_worker.name, register_worker.flow_slugs, pgflow.now(), pgflow.now())
$$;
comment on function pgflow.register_worker is 'Lists a worker that has started.';

create function pgflow.heartbeat(worker_id uuid)
returns void
language sql
set search_path = ''
as $$
  update pgflow.workers w set last_heartbeat_at = pgflow.now() where w.worker_id = heartbeat.worker_id
$$;
comment on function pgflow.heartbeat is 'Notes that a worker is alive.';

create function pgflow.stop_worker(worker_id uuid)
returns void
language sql
set search_path = ''
as $$
  update pgflow.workers w set stopped_at = pgflow.now() where w.worker_id = stop_worker.worker_id
$$;
comment on function pgflow.stop_worker is 'Notes that a worker has stopped.';
