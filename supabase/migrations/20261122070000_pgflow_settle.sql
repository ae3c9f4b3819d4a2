-- Chapter 13: tasks are settled, in batches.
--
-- One lock order everywhere: run, step state, task. Settling locks the runs first and looks at every status after that.

create type pgflow.task_result as (
  run_id uuid,
  step_slug text,
  task_index int,
  attempt int,
  error text,
  retry_delay numeric,
  permanent boolean,
  uncounted boolean
);
comment on type pgflow.task_result is
  'How a task ended: failed where error is not null, else completed; its output stays in the JSON that it came in. An attempt that is null means the task as it stands; uncounted means that the failed attempt does not count against max_attempts.';

create type pgflow.settled_task as (
  n bigint,
  run_id uuid,
  step_slug text,
  task_index int,
  flow_slug text,
  message_id bigint,
  outcome text,
  is_item boolean,
  error text,
  retry_at timestamptz,
  slot_keys text[]
);
comment on type pgflow.settled_task is
  'What became of a task, which is a map''s item or a single step; n is the place of its result in the batch. The outcome is completed, failed or retrying; or held, where another transaction has locked the run. slot_keys are the keys of the slots that it has given up.';

-- Locks those of the runs that are started, and answers with them. Without `wait` it leaves out what somebody else holds;
-- else it waits for one run at a time, and holds no other meanwhile: all locks are taken at once, or let go.
create function pgflow.lock_runs(run_ids uuid[], wait boolean)
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locked uuid[];
  missing uuid;
begin
  if wait and cardinality(run_ids) = 1 then
    return array(select r.run_id from pgflow.runs r where r.run_id = run_ids[1] and r.status = 'started' for no key update);
  end if;
  if not wait then
    return array(
      select r.run_id from pgflow.runs r
      where r.run_id = any (run_ids) and r.status = 'started'
      for no key update skip locked
    );
  end if;
  loop
    begin
      perform from pgflow.runs r where r.run_id = missing and r.status = 'started' for no key update;
      locked := pgflow.lock_runs(run_ids, wait => false);
      missing := (
        select r.run_id from pgflow.runs r
        where r.run_id = any (run_ids) and r.status = 'started' and r.run_id <> all (locked)
        limit 1
      );
      if missing is null then
        return locked;
      end if;
      raise sqlstate 'PT000'; -- what is locked is let go
    exception
      when sqlstate 'PT000' then null;
    end;
  end loop;
end
$$;

-- Settles a batch: tasks, their steps and all that follows, their runs. Answers with the tasks that it settled; a result
-- that names an older attempt, or whose task or run is closed, changes nothing. Without `wait`, runs that somebody else
-- holds are left alone; their results are answered as held. `outputs` is a JSON array with an object for each result, whose
-- `output` is read from there only where it is stored: a large one would be copied by each statement that it passes.
create function pgflow.settle(results pgflow.task_result[], wait boolean default true, outputs jsonb default '[]')
returns setof pgflow.settled_task
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
declare
  run_ids uuid[] := array(select distinct result.run_id from unnest(results) result where result.run_id is not null);
  locked uuid[] := pgflow.lock_runs(run_ids, wait);
  as_of timestamptz := pgflow.now();
  settled pgflow.settled_task[];
begin
  settled := array(select s from pgflow.record_results(locked, results, outputs, as_of) s);
  if cardinality(settled) > 0 then
    perform pgflow.advance(pgflow.changes_of(settled, outputs), as_of, outputs => outputs);
    perform pgflow.release_messages(settled);
  end if;
  return query select * from unnest(settled);
  if cardinality(locked) < cardinality(run_ids) and not wait then
    return query
      select r.ordinality, r.run_id, r.step_slug, r.task_index, run.flow_slug, null::bigint, 'held', null::boolean,
             null, null::timestamptz, null::text[]
      from unnest(results) with ordinality r
      join pgflow.runs run using (run_id)
      where r.run_id <> all (locked) and run.status = 'started';
  end if;
end
$$;

-- The tasks of `settle`: completed, failed, or queued again for another attempt. Of several results for one task the
-- first that is not stale counts. An error is cut to 10,000 characters. A task that fails without having been claimed has used an attempt, too.
create function pgflow.record_results(run_ids uuid[], results pgflow.task_result[], outputs jsonb, as_of timestamptz)
returns setof pgflow.settled_task
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with
      result as (
        select r.ordinality as n, t.run_id, t.step_slug, t.task_index, r.attempt, left(r.error, 10000) as error, r.uncounted,
               t.message_id, t.slot_keys, t.waits_for is not distinct from 'sql' as is_call,
               case
                 when r.error is null then 'completed'
                 when r.permanent or t.child_run_id is not null
                   or t.status = 'waiting' and t.slot_keys is null and t.waits_for <> 'sql' or used.attempts >= (
                   select o.max_attempts from pgflow.step_options o
                   where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
                 ) then 'failed'
                 else 'retrying'
               end as outcome,
               case when r.error is not null then
                 as_of + make_interval(secs => greatest(0, least(31536000, coalesce(
                   r.retry_delay,
                   (
                     select pgflow.calculate_retry_delay(o.base_delay, used.attempts)
                     from pgflow.step_options o
                     where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
                   )
                 )))::float8)
               end as retry_at
        from unnest(record_results.results) with ordinality r
        cross join lateral (
          select t.* from pgflow.step_tasks t
          where (t.run_id, t.step_slug, t.task_index) = (r.run_id, r.step_slug, r.task_index)
          offset 0 -- else all tasks may be held against the results, where statistics know of none
        ) t
        cross join lateral (
          select t.attempts_count - t.attempts_before
               + case when t.status in ('waiting', 'queued') then 1 else 0 end - case when r.uncounted then 1 else 0 end
        ) as used (attempts)
        where r.run_id = any (record_results.run_ids) and case
          when r.attempt is null then t.status in ('waiting', 'queued', 'started')
          else t.status = 'started' and t.attempts_count = r.attempt
        end
      ),
      -- Materialized: a plan that is made while there are few tasks may look through it for each of them.
      decided as materialized (
        select distinct on (r.run_id, r.step_slug, r.task_index) r.*,
               r.outcome = 'retrying' and (r.slot_keys is not null or r.is_call) as waits_again
        from result r
        order by r.run_id, r.step_slug, r.task_index, r.n
      )
    update pgflow.step_tasks t
    set status = case
          when d.waits_again then 'waiting'
          when d.outcome = 'retrying' then 'queued'
          else d.outcome
        end,
        attempts_count = t.attempts_count + case
          when d.error is not null and (
            t.status = 'queued' or t.status = 'waiting' and d.slot_keys is not null and t.waits_for <> 'run'
          ) or d.is_call then 1
          else 0
        end,
        attempts_before = t.attempts_before + case
          when d.uncounted and d.error is not null and (
            t.status <> 'waiting' or d.slot_keys is not null and t.waits_for <> 'run' or d.is_call
          ) then 1 else 0
        end,
        output = case
          when t.input is not null and d.outcome = 'completed' then coalesce(outputs -> (d.n - 1)::int -> 'output', 'null')
        end,
        error_message = d.error,
        -- One of a limited step gives its slots up, and waits for others when its next attempt is due; a call has an alarm then.
        message_id = case when not d.waits_again then t.message_id end,
        waits_for = case when d.waits_again and d.is_call then 'sql' when d.waits_again then 'time' end,
        due_at = case when d.waits_again and not d.is_call then d.retry_at end,
        slot_keys = case when d.waits_again then d.slot_keys end,
        slot_rank = case when d.waits_again and not d.is_call then pgflow.slot_rank(t.run_id, d.retry_at) end,
        completed_at = case d.outcome when 'completed' then as_of end,
        failed_at = case d.outcome when 'failed' then as_of end
    from decided d
    where (t.run_id, t.step_slug, t.task_index) = (d.run_id, d.step_slug, d.task_index)
      -- Again, of the row as it is once the update has its lock: a claim may have been faster.
      and case
        when d.attempt is null then t.status in ('waiting', 'queued', 'started')
        else t.status = 'started' and t.attempts_count = d.attempt
      end
    returning d.n, t.run_id, t.step_slug, t.task_index, t.flow_slug, d.message_id, d.outcome,
              t.input is not null, d.error, d.retry_at, d.slot_keys;
end
$$;

-- What settled tasks mean for their steps: a step whose last task completed completes, one with a task that failed for
-- good fails or is skipped, unless it is a map that collects failures. A loop takes another turn.
create function pgflow.changes_of(settled pgflow.settled_task[], outputs jsonb default '[]')
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changes pgflow.step_change[];
  items_failed boolean;
  items_completed boolean;
begin
  select array_agg(row(c.*)::pgflow.step_change), bool_or(b.is_map and b.fatal is not null), bool_or(b.is_map and c.change = 'completed')
  into changes, items_failed, items_completed
  from (
    select s.run_id, s.flow_slug, s.step_slug,
           bool_or(s.is_item) as is_map,
           count(*) filter (where s.outcome = 'completed')::int as completed,
           count(*) filter (where s.outcome = 'retrying')::int as retries,
           min(s.n) filter (where s.outcome = 'completed') as result_n,
           min(s.error) filter (where s.outcome = 'failed') as fatal,
           (array_agg(s.error order by s.n desc) filter (where s.outcome = 'retrying'))[1] as error,
           max(s.retry_at) filter (where s.outcome = 'retrying') as retry_at,
           bool_or(s.slot_keys is not null) as is_limited
    from unnest(changes_of.settled) s
    group by s.run_id, s.flow_slug, s.step_slug
  ) b
  cross join lateral (
    select case when b.fatal is not null then (
      select s.when_exhausted from pgflow.steps s where s.flow_slug = b.flow_slug and s.step_slug = b.step_slug
    ) end
    offset 0 -- else it is looked up anew wherever it is used, and so is the next
  ) as option (when_exhausted)
  cross join lateral (
    select option.when_exhausted, case
      when option.when_exhausted = 'fail' then 'failed'
      when b.fatal is not null then 'skipped'
      when not b.is_map and b.completed = 1 then 'completed'
      when b.completed = (
        select ss.remaining_tasks from pgflow.step_states ss where ss.run_id = b.run_id and ss.step_slug = b.step_slug
      ) then 'completed'
      else 'working'
    end
    offset 0
  ) as next (when_exhausted, change)
  cross join lateral (
    select b.run_id, b.flow_slug, b.step_slug, next.change,
           case when next.change = 'completed' and not b.is_map then b.result_n end as result_n,
           coalesce(b.fatal, b.error) as error,
           case next.change when 'skipped' then 'attempts_exhausted' end as skip_reason,
           next.when_exhausted = 'skip-cascade' as cascade,
           b.completed as tasks,
           null::int as items,
           -- A step that closes is not tried again, whatever else was in the batch.
           case next.change when 'working' then b.retries end as retries,
           case next.change when 'working' then b.retry_at end as retry_at,
           case when next.change = 'working' and b.is_limited and b.retries > 0 and not (b.is_map and (
             select s.step_type = 'map' from pgflow.steps s where s.flow_slug = b.flow_slug and s.step_slug = b.step_slug
           )) then 'slot' end as waits_for,
           null::timestamptz as due_at
  ) c;
  if items_failed then
    changes := pgflow.tolerate_failures(changes, settled);
  end if;
  if items_completed and exists (
    select from unnest(changes) c join pgflow.steps s using (flow_slug, step_slug) where c.change = 'completed' and s.step_type = 'loop'
  ) then
    return pgflow.take_turns(changes, settled, outputs);
  end if;
  return changes;
end
$$;

-- Of changes after which steps complete, those of loops: one ends if the output of its turn contains loop_until; else it takes the next
-- turn, unless it has taken loop_max. Then when_exceeded says whether it completes, or fails like one whose attempts are exhausted.
create function pgflow.take_turns(changes pgflow.step_change[], settled pgflow.settled_task[], outputs jsonb)
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select c from unnest(take_turns.changes) c
    where c.change <> 'completed' or not exists (
      select from pgflow.steps s where s.flow_slug = c.flow_slug and s.step_slug = c.step_slug and s.step_type = 'loop'
    )
    union all
    select row(c.*)::pgflow.step_change
    from unnest(take_turns.settled) t
    join pgflow.steps s using (flow_slug, step_slug)
    cross join lateral (
      select case
        when coalesce(outputs -> (t.n - 1)::int -> 'output', 'null') @> s.loop_until then 'completed'
        when t.task_index + 1 < s.loop_max then 'turned'
        when s.when_exceeded = 'complete' then 'completed'
        when s.when_exhausted = 'fail' then 'failed'
        else 'skipped'
      end as change
      offset 0
    ) next
    cross join lateral (
      select t.run_id, t.flow_slug, t.step_slug, next.change,
             case next.change when 'completed' then t.n end as result_n,
             case when next.change in ('failed', 'skipped') then pgflow.error_of_loop(t.step_slug, t.task_index + 1) end as error,
             case next.change when 'skipped' then 'attempts_exhausted' end as skip_reason,
             next.change = 'skipped' and s.when_exhausted = 'skip-cascade' as cascade,
             t.task_index + 1 as tasks,
             s.loop_max as items,
             0 as retries,
             null::timestamptz as retry_at,
             case when next.change = 'turned' and s.is_limited then 'slot' end as waits_for,
             null::timestamptz as due_at
    ) c
    where t.is_item and t.outcome = 'completed' and s.step_type = 'loop'
  );
end
$$;

-- Why a loop that has taken so many turns fails.
create function pgflow.error_of_loop(step_slug text, turns int)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('step "%s" has not ended after %s %s', step_slug, turns, case turns when 1 then 'turn' else 'turns' end);
end
$$;

-- Of changes after which steps fail, or are skipped, those of maps that collect failures: failed items are done like completed ones,
-- until there are more of them than the map tolerates.
create function pgflow.tolerate_failures(changes pgflow.step_change[], settled pgflow.settled_task[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    with
      map as (
        select c.run_id, c.flow_slug, c.step_slug, c.change, c.skip_reason, c.cascade, ss.initial_tasks, ss.remaining_tasks,
               coalesce(s.tolerate_count, floor(s.tolerate_share * ss.initial_tasks)) as tolerated
        from unnest(tolerate_failures.changes) c
        join pgflow.steps s on s.flow_slug = c.flow_slug and s.step_slug = c.step_slug
        join pgflow.step_states ss on ss.run_id = c.run_id and ss.step_slug = c.step_slug
        where c.change in ('failed', 'skipped') and s.when_item_fails = 'collect'
      ),
      counted as (
        select m.*, batch.*,
               -- Not where so few are done that there cannot be too many.
               case when m.initial_tasks - m.remaining_tasks + batch.done > m.tolerated then (
                 select count(*) from pgflow.step_tasks t
                 where t.run_id = m.run_id and t.step_slug = m.step_slug and t.failed_at is not null
               ) end as failed
        from map m
        cross join lateral (
          select count(*) filter (where s.outcome <> 'retrying')::int as done,
                 count(*) filter (where s.outcome = 'retrying')::int as retries,
                 (array_agg(s.error order by s.n desc) filter (where s.outcome = 'retrying'))[1] as error,
                 max(s.retry_at) filter (where s.outcome = 'retrying') as retry_at
          from unnest(tolerate_failures.settled) s
          where s.run_id = m.run_id and s.step_slug = m.step_slug
        ) batch
      )
    select c from unnest(tolerate_failures.changes) c
    where not exists (select from map m where m.run_id = c.run_id and m.step_slug = c.step_slug)
    union all
    select row(c.*)::pgflow.step_change
    from counted m
    cross join lateral (
      select case
        when m.failed > m.tolerated then m.change
        when m.done = m.remaining_tasks then 'completed'
        else 'working'
      end
    ) as next (change)
    cross join lateral (
      select m.run_id, m.flow_slug, m.step_slug, next.change, null::bigint as result_n,
             case
               when next.change = 'working' then m.error
               when next.change <> 'completed' then left(
                 format('step "%s" failed: %s of its %s items failed, and it tolerates %s; the first error: %s',
                   m.step_slug, m.failed, m.initial_tasks, m.tolerated, (
                     select pgflow.item_error(t.step_slug, t.error_message) from pgflow.step_tasks t
                     where t.run_id = m.run_id and t.step_slug = m.step_slug and t.failed_at is not null
                     order by t.failed_at, t.task_index
                     limit 1
                   )),
                 10000
               )
             end as error,
             case when next.change = m.change then m.skip_reason end as skip_reason,
             next.change = m.change and m.cascade as cascade,
             m.done as tasks,
             null::int as items,
             case next.change when 'working' then m.retries end as retries,
             case next.change when 'working' then m.retry_at end as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) c
  );
end
$$;

-- The messages of `settle`: archived, or hidden until the next attempt; a wait has none, but has asked somebody. One that a claim holds at the moment cannot be
-- hidden; its task gets another, so that no failure loses its delay.
create function pgflow.release_messages(settled pgflow.settled_task[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  released record;
  hidden bigint[];
begin
  for released in
    select f.queue_name, f.flow_slug,
           array_agg(s.message_id)
             filter (where (s.outcome <> 'retrying' or s.slot_keys is not null) and s.message_id is not null) as done,
           array_agg(row(s.run_id, s.step_slug)::pgflow.step_key) filter (where s.message_id is null) as waits,
           array_agg(s.message_id order by s.message_id)
             filter (where s.outcome = 'retrying' and s.slot_keys is null and s.message_id is not null) as retrying,
           array_agg(s.retry_at order by s.message_id)
             filter (where s.outcome = 'retrying' and s.slot_keys is null and s.message_id is not null) as until,
           array_agg(s) filter (where s.outcome = 'retrying' and s.slot_keys is null and s.message_id is null) as calls,
           array_agg(s.slot_keys[1]) filter (where s.slot_keys is not null) || array_agg(s.slot_keys[2]) filter (where s.slot_keys is not null)
             || array_agg(s.slot_keys[3]) filter (where s.slot_keys is not null) as slot_keys
    from unnest(settled) s join pgflow.flows f using (flow_slug)
    group by f.queue_name, f.flow_slug
  loop
    if released.done is not null then
      perform pgflow.archive_messages(released.queue_name, released.done);
    end if;
    if released.waits is not null then
      perform pgflow.close_waits(released.waits);
      perform pgflow.give_up_children(array( -- of tasks that somebody has settled by hand
        select t.child_run_id
        from unnest(settled) s
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where s.message_id is null and s.flow_slug = released.flow_slug and t.child_run_id is not null
      ));
    end if;
    if released.retrying is not null then
      hidden := pgflow.hide_messages(released.queue_name, released.retrying, released.until);
      if cardinality(hidden) < cardinality(released.retrying) then
        perform pgflow.replace_messages(released.queue_name, array(
          select s from unnest(settled) s
          where s.flow_slug = released.flow_slug and s.outcome = 'retrying' and s.slot_keys is null and s.message_id <> all (hidden)
        ));
      end if;
    end if;
    if released.calls is not null then
      insert into pgflow.alarms (due_at, kind, run_id, step_slug)
      select c.retry_at, 'sql', c.run_id, c.step_slug from unnest(released.calls) c;
    end if;
    if released.slot_keys is not null then
      perform pgflow.look_at_slots(released.slot_keys, pgflow.now());
    end if;
  end loop;
end
$$;

-- Gives retried tasks another message, hidden until then, unless the batch has closed them after all. The old messages
-- are archived when they are next claimed.
create function pgflow.replace_messages(queue_name text, retried pgflow.settled_task[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  msg_ids bigint[];
  until timestamptz[];
begin
  -- Not within the statement, since it changes tasks.
  perform pgflow.create_queue(queue_name) where to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null;
  with
    batch as (
      select run.priority,
             array_agg(r.run_id) as run_ids, array_agg(r.step_slug) as step_slugs, array_agg(r.task_index) as task_indexes,
             array_agg(r.retry_at) as until, array_agg(jsonb_build_object(
               'flow_slug', r.flow_slug, 'run_id', r.run_id, 'step_slug', r.step_slug, 'task_index', r.task_index
             )) as messages
      from unnest(retried) r
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      join pgflow.runs run using (run_id)
      where t.status = 'queued'
      group by run.priority
    ),
    sent as materialized (
      select s.*
      from batch b
      cross join lateral rows from (
        unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), unnest(b.until),
        pgflow.send_messages(replace_messages.queue_name, b.messages, 0, b.priority)
      ) as s (run_id, step_slug, task_index, retry_at, msg_id)
    ),
    task as (
      update pgflow.step_tasks t
      set message_id = s.msg_id
      from sent s
      where (t.run_id, t.step_slug, t.task_index) = (s.run_id, s.step_slug, s.task_index)
      returning s.msg_id, s.retry_at
    )
  select array_agg(t.msg_id), array_agg(t.retry_at) into msg_ids, until from task t;
  perform pgflow.hide_messages(queue_name, msg_ids, until);
end
$$;

-- Settles a batch of results, completed and failed mixed, of any runs and flows, in one transaction.
--   select * from pgflow.settle_tasks('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1, "output": 42}]');
-- A result has either `output` or `error`, with `retry_delay` (seconds, a year at most) or `permanent`, or `uncounted`: the
-- attempt does not count against max_attempts. The answer has a row for each result, in order. applied is false where it was stale, where `problem` says what is wrong with the result,
-- and, without `wait`, where held: another transaction has locked its run, and the result has to be sent again.
create function pgflow.settle_tasks(results jsonb, wait boolean default true)
returns table (
  run_id uuid, step_slug text, task_index int, attempt int, applied boolean, held boolean, problem text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  batch pgflow.task_result[];
  problems text[];
  settled bigint[];
  held bigint[];
begin
  if jsonb_typeof(results) <> 'array' then
    raise exception using
      errcode = 'PT400',
      message = format('the results are %s, not an array', jsonb_typeof(results)),
      hint = 'Give one object for each result: {"run_id", "step_slug", "task_index", "attempt", and "output" or "error"}.';
  end if;
  begin
    batch := array(
      select row(
        r ->> 'run_id', r ->> 'step_slug', r ->> 'task_index', r ->> 'attempt',
        case when r ? 'output' then null else coalesce(r ->> 'error', 'failed without a message') end,
        r ->> 'retry_delay', r ->> 'permanent', r ->> 'uncounted'
      )::pgflow.task_result
      from generate_series(0, jsonb_array_length(settle_tasks.results) - 1) as n
      cross join lateral (select settle_tasks.results -> n as r offset 0) as result -- once, and not into a file
      order by n
    );
  exception
    when data_exception then -- one of them cannot be read
      select array_agg(r.result order by r.n), array_agg(r.problem order by r.n) into batch, problems
      from pgflow.parsed_results(settle_tasks.results) r;
  end;
  if cardinality(batch) = 0 then
    return;
  end if;
  select array_agg(s.n) filter (where s.outcome <> 'held'), array_agg(s.n) filter (where s.outcome = 'held')
  into settled, held
  from pgflow.settle(batch, settle_tasks.wait, settle_tasks.results) s;
  return query
    select r.run_id, r.step_slug, r.task_index, r.attempt, s.n is not null, h.n is not null,
           coalesce(problems[r.ordinality], case
             when r.run_id is null or r.step_slug is null or r.task_index is null
             then 'run_id, step_slug or task_index is missing'
           end)
    from unnest(batch) with ordinality r
    left join unnest(settled) as s (n) on s.n = r.ordinality
    left join unnest(held) as h (n) on h.n = r.ordinality
    order by r.ordinality;
end
$$;
comment on function pgflow.settle_tasks is
  'Settles a batch of task results; tells for each whether it was applied, or why not.';

-- The results of `settle_tasks`, of which some cannot be read: such a one has a problem, and is empty, so that it settles
-- nothing.
create function pgflow.parsed_results(results jsonb)
returns table (n bigint, result pgflow.task_result, problem text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select e.n,
         case when p.problem is null then row(
           e.r ->> 'run_id', e.r ->> 'step_slug', e.r ->> 'task_index', e.r ->> 'attempt',
           case when e.r ? 'output' then null else coalesce(e.r ->> 'error', 'failed without a message') end,
           e.r ->> 'retry_delay', e.r ->> 'permanent', e.r ->> 'uncounted'
         )::pgflow.task_result end,
         p.problem
  from jsonb_array_elements(parsed_results.results) with ordinality as e (r, n)
  cross join lateral (
    select case
      when jsonb_typeof(e.r) <> 'object' then 'it is not an object'
      when pgflow.is_readable(e.r ->> 'run_id', 'uuid') is not true then 'run_id is not a uuid'
      when jsonb_typeof(e.r -> 'step_slug') is distinct from 'string' then 'step_slug is not a text'
      when pgflow.is_readable(e.r ->> 'task_index', 'int') is not true then 'task_index is not a whole number'
      when pgflow.is_readable(e.r ->> 'attempt', 'int') is false then 'attempt is not a whole number'
      when pgflow.is_readable(e.r ->> 'retry_delay', 'numeric') is false then 'retry_delay is not a number of seconds'
      when pgflow.is_readable(e.r ->> 'permanent', 'boolean') is false then 'permanent is not true or false'
      when pgflow.is_readable(e.r ->> 'uncounted', 'boolean') is false then 'uncounted is not true or false'
    end
  ) as p (problem);
end
$$;

-- Whether a text can be read as a value of a type; null for null. (As pg_input_is_valid, which Postgres has from version 16 on.)
create function pgflow.is_readable(value text, type regtype)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if value is null then
    return null;
  end if;
  execute format('select %L::%s', value, type);
  return true;
exception
  when data_exception then
    return false;
end
$$;

-- Settles one task and answers with its row as it then is.
create function pgflow.apply_result(result pgflow.task_result, output jsonb default null)
returns setof pgflow.step_tasks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.settle(array[result], outputs => jsonb_build_array(jsonb_build_object('output', apply_result.output)));
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
set search_path = pg_catalog, pg_temp
as $$
  select * from pgflow.apply_result(
    row(
      complete_task.run_id, complete_task.step_slug, complete_task.task_index, null, null, null, null, null
    )::pgflow.task_result,
    complete_task.output
  )
$$;
comment on function pgflow.complete_task is 'Completes one task as it stands; no row where it is closed already.';

-- Fails a task as it stands. That counts as an attempt, whether the task was claimed or not: another one follows while
-- there are any left. For good at once: pgflow.settle_tasks('[{…, "error": "…", "permanent": true}]'), without `attempt`.
--   select * from pgflow.fail_task('…', 'report', 0, 'the disk is full');
create function pgflow.fail_task(run_id uuid, step_slug text, task_index int, error_message text)
returns setof pgflow.step_tasks
language sql
set search_path = pg_catalog, pg_temp
as $$
  select * from pgflow.apply_result(row(
    fail_task.run_id, fail_task.step_slug, fail_task.task_index, null,
    coalesce(fail_task.error_message, 'failed without a message'), null, null, null
  )::pgflow.task_result)
$$;
comment on function pgflow.fail_task is 'Fails one task as it stands; it is retried while it has attempts left.';

