-- Chapter 15: what workers ask for.
--
-- A worker needs no session: each call stands for itself. It settles and claims in one call, and beats while it holds
-- tasks. Leases do not depend on the table of workers; it is for people to look at, and says who waits for tasks.

-- Settles a batch and claims the next, in one transaction and one round trip: what a busy worker does.
--   select * from pgflow.settle_and_claim('[…]', array['analyze_document'], 10, '…');
-- JSON arrays: `stale` has the results that changed nothing, with a `problem` where one cannot be read; `held` those whose
-- runs another transaction has locked, to be sent again; `tasks` the claimed tasks. It waits for nobody. A failed result may
-- have `thrown`, with name, message and stack. A worker that says `waiting` and gets no task is notified of the next ones.
create function pgflow.settle_and_claim(
  results jsonb,
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  inline_limit int default null,
  waiting boolean default false,
  out stale jsonb,
  out held jsonb,
  out tasks jsonb
)
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
declare
  applied bigint[];
  settled uuid[];
begin
  stale := '[]';
  held := '[]';
  if results <> '[]' then
    select coalesce(jsonb_agg(
             jsonb_build_object(
               'run_id', s.run_id, 'step_slug', s.step_slug, 'task_index', s.task_index, 'attempt', s.attempt
             ) || case when s.problem is null then '{}' else jsonb_build_object('problem', s.problem) end
           ) filter (where not s.applied and not s.held), '[]'),
           coalesce(jsonb_agg(
             jsonb_build_object(
               'run_id', s.run_id, 'step_slug', s.step_slug, 'task_index', s.task_index, 'attempt', s.attempt
             )
           ) filter (where s.held), '[]'),
           array_agg(s.n) filter (where s.applied),
           array_agg(s.run_id) filter (where s.applied)
    into stale, held, applied, settled
    from pgflow.settle_tasks(results, wait => false) with ordinality
      as s (run_id, step_slug, task_index, attempt, applied, held, problem, n);
    if results @? '$[*].thrown' then
      perform pgflow.store_errors(results, applied);
    end if;
  end if;
  if exists (
    select from pgflow.alarms a where a.due_at <= pgflow.now() and a.kind in ('begin', 'child', 'ended', 'cancel', 'retried')
  ) then
    perform pgflow.try_to_begin_runs();
    perform pgflow.try_to_tend_children();
  end if;
  tasks := (
    select coalesce(jsonb_agg(to_jsonb(t)), '[]')
    from pgflow.claim_tasks(
      case
        when cardinality(flow_slugs) <= 20 then flow_slugs
        else pgflow.flows_to_ask(flow_slugs, settled, worker_id)
      end,
      quantity, worker_id, lease, inline_limit
    ) t
  );
  perform pgflow.note_worker(worker_id, waiting and tasks = '[]');
end
$$;
comment on function pgflow.settle_and_claim is 'Settles a batch of results and claims the next tasks, in one round trip.';

-- The flows that a call for many flows asks for tasks. Each costs some microseconds, so a call that has settled results asks those
-- of the settled runs, whose next steps may have started, and ten others by chance. Where nothing was settled, and where this
-- session has not asked all for the worker for a second, it asks all.
create function pgflow.flows_to_ask(flow_slugs text[], settled uuid[], worker_id uuid)
returns text[]
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
  at float8 := extract(epoch from clock_timestamp());
  asked text := current_setting('pgflow.all_flows_asked', true);
begin
  if settled is null or asked is null or split_part(asked, ' ', 1) is distinct from worker_id::text
    or split_part(asked, ' ', 2)::float8 < at - 1
  then
    perform set_config('pgflow.all_flows_asked', concat(worker_id, ' ', at), false);
    return flow_slugs;
  end if;
  return array(
    select r.flow_slug from pgflow.runs r where r.run_id = any (settled) and r.flow_slug = any (flow_slugs)
    union
    select flow_slugs[1 + floor(random() * cardinality(flow_slugs))::int] from generate_series(1, 10)
  );
end
$$;

-- Keeps what was thrown with the tasks of failed results that were applied, by their places in the batch; of more than
-- 64 KB, its beginning.
create function pgflow.store_errors(results jsonb, applied bigint[])
returns void
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
begin
  update pgflow.step_tasks t
  set last_error = case
      when octet_length(r.thrown::text) <= 65536 then r.thrown
      else jsonb_build_object(
        'name', left(r.thrown ->> 'name', 200), 'message', left(r.thrown ->> 'message', 10000),
        'stack', left(r.thrown ->> 'stack', 10000)
      )
    end
  from unnest(applied) as a (n)
  cross join lateral (select results -> (a.n - 1)::int) as e (result)
  cross join lateral jsonb_to_record(e.result) as r (run_id uuid, step_slug text, task_index int, thrown jsonb)
  where (t.run_id, t.step_slug, t.task_index) = (r.run_id, r.step_slug, r.task_index)
    and r.thrown is not null
    and t.error_message is not null;
end
$$;

-- Extends the leases of claimed tasks: each is hidden for `lease` seconds from now on.
--   select * from pgflow.extend_leases('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]');
-- A task that is no longer this attempt's answers active = false: its handler should stop. The status is the task's,
-- null where another attempt has it.
create function pgflow.extend_leases(tasks jsonb, lease int default 30)
returns table (run_id uuid, step_slug text, task_index int, attempt int, active boolean, status text)
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
    select a.run_id, a.step_slug, a.task_index, a.attempt, coalesce(t.status = 'started', false), t.status
    from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
    left join pgflow.step_tasks t
      on (t.run_id, t.step_slug, t.task_index, t.attempts_count) = (a.run_id, a.step_slug, a.task_index, a.attempt);
end
$$;
comment on function pgflow.extend_leases is 'Extends leases by some seconds from now; tells which tasks are still the caller''s.';

-- Gives claimed tasks back, for others to claim at once, before those that were sent later; the attempt does not count as one.
-- Answers how many it were.
--   select pgflow.hand_back('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]');
create function pgflow.hand_back(tasks jsonb)
returns int
language plpgsql
security definer -- workers with a secret key have no rights on the tables
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
  returned record;
  quantity int := 0;
begin
  for returned in
    with
      held as (
        select t.run_id, t.step_slug, t.task_index
        from jsonb_to_recordset(tasks) as a (run_id uuid, step_slug text, task_index int, attempt int)
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where t.status = 'started' and t.attempts_count = a.attempt
        order by t.run_id, t.step_slug, t.task_index
        for no key update of t skip locked
      ),
      task as (
        update pgflow.step_tasks t
        set status = 'queued', attempts_before = t.attempts_before + 1
        from held h
        where (t.run_id, t.step_slug, t.task_index) = (h.run_id, h.step_slug, h.task_index)
        returning t.run_id, t.flow_slug, t.message_id
      )
    select f.queue_name, array_agg(t.message_id) as msg_ids, array_agg(null::timestamptz) as until,
           array_agg(t.run_id) as run_ids
    from task t join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    perform pgflow.hide_messages(returned.queue_name, returned.msg_ids, returned.until);
    perform pgflow.notify_workers(returned.run_ids);
    quantity := quantity + cardinality(returned.msg_ids);
  end loop;
  return quantity;
end
$$;
comment on function pgflow.hand_back is 'Gives claimed tasks back at once; the attempt does not count.';

-- Keeps how far handlers are as the progress of their steps: {"value": …, "data": …}, and of a map also the task_index.
-- What the engine keeps there of a map (done, total) stays. An attempt that is no longer the task's reports nothing.
-- Answers with the tasks whose runs another transaction has locked, as a JSON array: what they report is not kept.
--   select pgflow.report_progress('[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1, "progress": {"value": 0.5}}]');
create function pgflow.report_progress(reports jsonb)
returns jsonb
language plpgsql
security definer -- workers with a secret key have no rights on the tables
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
  locked uuid[] := pgflow.lock_runs(
    array(select distinct (report ->> 'run_id')::uuid from jsonb_array_elements(reports) report), wait => false
  );
begin
  with
    latest as (
      select distinct on (t.run_id, t.step_slug) t.run_id, t.step_slug, e.report -> 'progress' as progress
      from jsonb_array_elements(reports) with ordinality as e (report, n)
      join pgflow.step_tasks t
        on t.run_id = (e.report ->> 'run_id')::uuid and t.step_slug = e.report ->> 'step_slug'
        and t.task_index = (e.report ->> 'task_index')::int
      where t.run_id = any (locked)
        and t.status = 'started' and t.attempts_count = (e.report ->> 'attempt')::int
      order by t.run_id, t.step_slug, e.n desc
    )
  update pgflow.step_states ss
  set progress = l.progress || case jsonb_typeof(ss.progress)
      when 'object' then ss.progress - array['value', 'data', 'task_index']
      else '{}'
    end
  from latest l
  where (ss.run_id, ss.step_slug) = (l.run_id, l.step_slug) and ss.status = 'started';

  return (
    select coalesce(jsonb_agg(e.report - 'progress'), '[]')
    from jsonb_array_elements(reports) as e (report)
    join pgflow.runs r on r.run_id = (e.report ->> 'run_id')::uuid
    where r.status = 'started' and r.run_id <> all (locked)
  );
end
$$;
comment on function pgflow.report_progress is 'Keeps the latest progress of handlers with their steps; it becomes step:progress.';

-- A value that a claim left out: the input of a run (`run`), or the output of a step. The version is that of the claim's
-- refs; under it the value never changes.
--   select pgflow.fetch_value('…', 'toc', '1750000000.123456');
create function pgflow.fetch_value(run_id uuid, name text, version text)
returns jsonb
language plpgsql
stable
security definer -- workers with a secret key have no rights on the tables
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
  value jsonb;
begin
  if fetch_value.name = 'run' then
    select r.input into value from pgflow.runs r
    where r.run_id = fetch_value.run_id and pgflow.version_of(r.started_at) = fetch_value.version;
  else
    select ss.output into value from pgflow.step_states ss
    where ss.run_id = fetch_value.run_id and ss.step_slug = fetch_value.name and ss.status = 'completed'
      and pgflow.version_of(ss.completed_at) = fetch_value.version;
  end if;
  if value is null then
    raise exception using
      errcode = 'PT404',
      message = format('the value "%s" of run %s is gone', fetch_value.name, fetch_value.run_id),
      hint = 'The run was deleted or changed by hand.';
  end if;
  return value;
end
$$;
comment on function pgflow.fetch_value is 'A value that a claim left out of an input.';

-- Notifies workers that wait for tasks of the runs' flows; `pgflow_tasks` names the flow. NOTIFY takes a lock of the
-- whole database at commit, so it is used only while somebody waits. A worker that begins to wait at this moment may
-- miss it: it polls all the same.
create function pgflow.notify_workers(run_ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  if exists (select from pgflow.workers w where w.waiting_until > as_of) then
    perform pg_notify('pgflow_tasks', flow.flow_slug)
    from (select distinct r.flow_slug from unnest(run_ids) run_id join pgflow.runs r using (run_id)) flow
    where exists (
      select from pgflow.workers w where w.waiting_until > as_of and flow.flow_slug = any (w.flow_slugs)
    );
  end if;
end
$$;

-- Lists a worker that has started.
create function pgflow.register_worker(worker_id uuid, name text, flow_slugs text[])
returns void
language sql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
  insert into pgflow.workers (worker_id, name, flow_slugs, started_at, last_heartbeat_at)
  values (register_worker.worker_id, register_worker.name, register_worker.flow_slugs, pgflow.now(), pgflow.now())
$$;
comment on function pgflow.register_worker is 'Lists a worker that has started.';

-- Notes that a worker is alive, and whether it waits to be notified, at most every few seconds.
create function pgflow.note_worker(worker_id uuid, is_waiting boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
begin
  update pgflow.workers w
  set last_heartbeat_at = as_of, waiting_until = case when is_waiting then as_of + interval '5 seconds' end
  where w.worker_id = note_worker.worker_id
    and (
      w.last_heartbeat_at < as_of - interval '5 seconds'
      or is_waiting <> (w.waiting_until is not null)
      or w.waiting_until < as_of + interval '2 seconds'
    );
end
$$;

-- What a worker that holds tasks calls every few seconds: it is alive, and extends their leases. Answers as
-- extend_leases does.
--   select * from pgflow.heartbeat('…', '[{"run_id": "…", "step_slug": "a", "task_index": 0, "attempt": 1}]', lease => 30);
create function pgflow.heartbeat(worker_id uuid, tasks jsonb default '[]', lease int default 30)
returns table (run_id uuid, step_slug text, task_index int, attempt int, active boolean, status text)
language plpgsql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
begin
  update pgflow.workers w set last_heartbeat_at = pgflow.now() where w.worker_id = heartbeat.worker_id;
  return query select * from pgflow.extend_leases(heartbeat.tasks, heartbeat.lease);
end
$$;
comment on function pgflow.heartbeat is 'Notes that a worker is alive and extends its leases; tells which tasks are still its own.';

create function pgflow.stop_worker(worker_id uuid)
returns void
language sql
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
as $$
  update pgflow.workers w set stopped_at = pgflow.now(), waiting_until = null where w.worker_id = stop_worker.worker_id
$$;
comment on function pgflow.stop_worker is 'Notes that a worker has stopped.';
