-- Chapter 8: workers claim tasks and hold them.
--
-- Claiming waits for nobody: it skips what is locked, messages, tasks and runs alike.

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
language plpgsql
set search_path = ''
as $$
begin
  return query
    with
      open as (
        select t.run_id, t.step_slug, t.task_index, s.step_type, coalesce(s.opt_timeout, f.opt_timeout) as timeout
        from unnest(start_tasks.messages) m
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        join pgflow.flows f on f.flow_slug = t.flow_slug
        join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
        where t.message_id = m.msg_id
          and t.status in ('queued', 'started')
          and t.attempts_count - t.attempts_before < coalesce(s.opt_max_attempts, f.opt_max_attempts)
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
        returning t.*, o.step_type, o.timeout
      )
    select c.flow_slug, c.run_id, c.step_slug,
           case c.step_type when 'map' then c.input else (
             select i.input from pgflow.step_inputs i where i.run_id = c.run_id and i.step_slug = c.step_slug
           ) end,
           c.message_id, c.task_index, c.attempts_count, c.timeout
    from claimed c
    order by c.message_id;
end
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
    and t.attempts_count - t.attempts_before >= coalesce(s.opt_max_attempts, f.opt_max_attempts);
  if expired is not null then
    perform pgflow.settle(expired, wait => false);
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

-- Settles a batch and claims the next, in one transaction and one round trip: what a busy worker does.
--   select * from pgflow.settle_and_claim('[…]', array['analyze_document'], 10, '…');
-- `stale` has the results that changed nothing, `tasks` the claimed tasks, as JSON arrays.
create function pgflow.settle_and_claim(
  results jsonb,
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  out stale jsonb,
  out tasks jsonb
)
language plpgsql
set search_path = ''
as $$
begin
  stale := (
    select coalesce(jsonb_agg(to_jsonb(s) - 'applied'), '[]')
    from pgflow.settle_tasks(results) s
    where not s.applied
  );
  tasks := (
    select coalesce(jsonb_agg(to_jsonb(t)), '[]')
    from pgflow.claim_tasks(flow_slugs, quantity, worker_id, lease) t
  );
end
$$;
comment on function pgflow.settle_and_claim is 'Settles a batch of results and claims the next tasks, in one round trip.';

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
    with task as (
      select t.flow_slug, t.message_id
      from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      where t.status = 'started' and t.attempts_count = a.attempt
      for share of t skip locked -- the message of a task that is being settled is not ours to hide
    )
    select f.queue_name, array_agg(t.message_id) as msg_ids,
           array_agg(clock_timestamp() + make_interval(secs => lease)) as until
    from task t join pgflow.flows f using (flow_slug)
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
