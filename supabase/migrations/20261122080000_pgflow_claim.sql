-- Chapter 13: tasks are claimed.
--
-- Claiming waits for nobody: it skips what is locked, messages, tasks and runs alike. Before it reads messages, it admits tasks that
-- wait for slots, where somebody has given notice that there may be free ones.

create type pgflow.step_task_record as (
  flow_slug text,
  run_id uuid,
  step_slug text,
  input jsonb,
  msg_id bigint,
  task_index int,
  attempt int,
  timeout int,
  refs jsonb
);
comment on type pgflow.step_task_record is
  'A claimed task: attempt is what its settlement must name, timeout is in seconds, input is {"run": …, "<dep>": …} or a map''s item; refs has the version of each value that is left out of it, for fetch_value.';

-- Claims up to `quantity` tasks of the flows. Each is hidden from others for `lease` seconds; a task that is not settled
-- or extended by then can be claimed again, as its next attempt.
--   select * from pgflow.claim_tasks(array['analyze_document'], 10, gen_random_uuid(), lease => 30);
-- With an `inline_limit`, values of more bytes are left out of the input and named in refs, and so is all that a map's
-- task has beside its item. What it claims at once fits into one JSON value, which Postgres limits to 256 MB.
create function pgflow.claim_tasks(
  flow_slugs text[],
  quantity int,
  worker_id uuid,
  lease int default 30,
  inline_limit int default null
)
returns setof pgflow.step_task_record
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
  messages pgflow.message[] := '{}';
begin
  if claim_tasks.quantity > 0 and exists (
    select from pgflow.alarms a where a.due_at <= pgflow.now() and a.kind = 'slot'
  ) then
    messages := pgflow.admit_to_claim(claim_tasks.flow_slugs, claim_tasks.quantity, claim_tasks.lease);
  end if;
  messages := messages || pgflow.read_messages(
    claim_tasks.flow_slugs, claim_tasks.quantity - cardinality(messages), claim_tasks.lease
  );
  if cardinality(messages) = 0 then
    return;
  end if;
  if claim_tasks.inline_limit is null or exists (
    select from pgflow.steps s where s.flow_slug = any (claim_tasks.flow_slugs) and s.step_type in ('map', 'loop')
  ) then
    messages := pgflow.messages_within(messages, 128000000, claim_tasks.inline_limit);
  end if;
  -- A message read for the first time belongs to a task that is open and has attempts left.
  if exists (select from unnest(messages) m where m.read_ct > 1) then
    perform pgflow.end_dead_tasks(messages);
  end if;
  return query
    select * from pgflow.begin_attempts(messages, claim_tasks.worker_id, pgflow.now(), claim_tasks.inline_limit);
end
$$;
comment on function pgflow.claim_tasks is 'Claims tasks of flows for a worker, each under a lease of some seconds.';

-- The first of the messages that were read, as many as have inputs of up to `bytes` together, and at least one. The others
-- are visible again at once, before those that were sent later. Sizes come from how values are stored, without reading them: a compressed one counts as the
-- most that it may have.
create function pgflow.messages_within(messages pgflow.message[], bytes bigint, inline_limit int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  within pgflow.message[];
  rest record;
begin
  -- Mostly they are small; 256 is the most that a value may be compressed.
  if inline_limit is not null and 256 * (
    select coalesce(sum(pg_column_size(t.input)), 0)
    from unnest(messages) m join pgflow.step_tasks t using (run_id, step_slug, task_index)
  ) <= messages_within.bytes then
    return messages;
  end if;
  within := array(
    select m.message
    from (
      select row(m.queue_name, m.msg_id, m.read_ct, m.run_id, m.step_slug, m.task_index)::pgflow.message as message, m.ordinality,
             sum(coalesce(size.bytes, 0)) over (order by m.ordinality) as total
      from unnest(messages) with ordinality m
      left join pgflow.step_tasks t using (run_id, step_slug, task_index)
      left join lateral (
        select sum(pg_column_size(one.value)::bigint * case pg_column_compression(one.value)
                 when 'pglz' then 100 when 'lz4' then 256 else 1
               end) as bytes
        from (
          select t.input as value
          union all
          select r.input from pgflow.runs r
          where t.input is null and messages_within.inline_limit is null and r.run_id = t.run_id
          union all
          select dep.output
          from pgflow.deps d
          join pgflow.step_states dep on dep.run_id = t.run_id and dep.step_slug = d.dep_slug
          where t.input is null and messages_within.inline_limit is null
            and d.flow_slug = t.flow_slug and d.step_slug = t.step_slug
        ) one
      ) size on true
    ) m
    where m.total <= messages_within.bytes or m.ordinality = 1
    order by m.ordinality
  );
  if cardinality(within) < cardinality(messages) then
    for rest in
      select m.queue_name, array_agg(m.msg_id) as msg_ids, array_agg(null::timestamptz) as until
      from unnest(messages) with ordinality m
      where m.ordinality > cardinality(within)
      group by m.queue_name
    loop
      perform pgflow.hide_messages(rest.queue_name, rest.msg_ids, rest.until);
    end loop;
    update pgflow.step_tasks t set status = 'queued', waits_for = null, message_id = m.msg_id, queued_at = pgflow.now()
    from unnest(messages) with ordinality m
    where m.ordinality > cardinality(within) and m.read_ct = 0
      and (t.run_id, t.step_slug, t.task_index) = (m.run_id, m.step_slug, m.task_index);
  end if;
  return within;
end
$$;

-- Names what a value is as of the time at which its step completed or its run started.
create function pgflow.version_of(at timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select extract(epoch from at)::text
$$;

-- Counts an attempt of each task whose message was read, or that was admitted (read_ct is 0), and answers with what its handler needs. Rows come from the
-- locked update, so that no task goes to two workers; a task that is being settled at the moment is left alone.
create function pgflow.begin_attempts(messages pgflow.message[], worker_id uuid, as_of timestamptz, inline_limit int)
returns setof pgflow.step_task_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with
      open as (
        select t.run_id, t.step_slug, t.task_index, m.msg_id, o.timeout
        from unnest(begin_attempts.messages) m
        cross join lateral (
          select t.* from pgflow.step_tasks t
          where (t.run_id, t.step_slug, t.task_index) = (m.run_id, m.step_slug, m.task_index) and case m.read_ct
            when 0 then t.waits_for = 'slot'
            else t.message_id = m.msg_id and t.status in ('queued', 'started')
          end
          for no key update skip locked
        ) t
        cross join lateral (
          select o.max_attempts, o.timeout from pgflow.step_options o
          where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
          offset 0 -- else the view is joined first, for all flows
        ) o
        where t.attempts_count - t.attempts_before < o.max_attempts
      ),
      claimed as (
        update pgflow.step_tasks t
        set status = 'started',
            attempts_count = t.attempts_count + 1,
            started_at = begin_attempts.as_of,
            last_worker_id = begin_attempts.worker_id,
            message_id = o.msg_id,
            queued_at = case t.waits_for when 'slot' then begin_attempts.as_of else t.queued_at end,
            waits_for = null
        from open o
        where (t.run_id, t.step_slug, t.task_index) = (o.run_id, o.step_slug, o.task_index)
        returning t.*, o.timeout
      )
    select c.flow_slug, c.run_id, c.step_slug, coalesce(c.input, v.input, '{}'),
           c.message_id, c.task_index, c.attempts_count, c.timeout, v.refs
    from claimed c
    cross join lateral (
      select jsonb_object_agg(value.name, value.value) filter (where not value.is_left_out) as input,
             jsonb_object_agg(value.name, pgflow.version_of(value.at)) filter (where value.is_left_out) as refs
      from (
        select one.*, case
            when begin_attempts.inline_limit is null then false
            -- The stored size is known without reading the value, but it may be compressed.
            else c.input is not null or pg_column_size(one.value) > begin_attempts.inline_limit
              or octet_length(one.value::text) > begin_attempts.inline_limit
          end as is_left_out
        from (
          select 'run' as name, r.input as value, r.started_at as at
          from pgflow.runs r
          where r.run_id = c.run_id
          union all
          select d.dep_slug, dep.output, dep.completed_at
          from pgflow.deps d
          join pgflow.step_states dep on dep.run_id = c.run_id and dep.step_slug = d.dep_slug
          where d.flow_slug = c.flow_slug and d.step_slug = c.step_slug and dep.status = 'completed'
        ) one
        offset 0 -- else each value is written as text twice
      ) value
      where c.input is null or begin_attempts.inline_limit is not null
    ) v
    order by c.message_id;
end
$$;

-- Of messages that were read, ends what cannot be claimed: a task that has no attempt left fails for good, because its
-- last one's lease ran out or its options were lowered; the message of a task that is closed already is archived.
create function pgflow.end_dead_tasks(messages pgflow.message[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  expired pgflow.task_result[];
  orphans record;
begin
  select array_agg(row(
    t.run_id, t.step_slug, t.task_index, case t.status when 'started' then t.attempts_count end,
    case t.status
      when 'started' then 'lease expired: the worker was lost'
      else coalesce(t.error_message, 'no attempts left')
    end,
    null, true, null
  )::pgflow.task_result)
  into expired
  from unnest(messages) m
  join pgflow.step_tasks t using (run_id, step_slug, task_index)
  where t.message_id = m.msg_id
    and t.status in ('queued', 'started')
    and t.attempts_count - t.attempts_before >= (
      select o.max_attempts from pgflow.step_options o where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
    );
  if expired is not null then
    perform pgflow.settle(expired, wait => false);
  end if;

  for orphans in
    select m.queue_name, array_agg(m.msg_id) as msg_ids
    from unnest(messages) m
    where m.read_ct > 1 and not exists (
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

-- Claims tasks of one queue, waiting for them up to max_poll_seconds. Each message is hidden for its step's timeout plus
-- two seconds, whatever `vt` says; a `qty` of 0 answers at once, with nothing. For workers written in SQL or by hand; ours
-- use claim_tasks, whose leases they extend.
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
set search_path = pg_catalog, pg_temp
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
    tasks := array(select t from pgflow.claim_tasks(array[flow_slug], qty, null, case vt when 0 then 1 else vt end) t);
    exit when cardinality(tasks) > 0 or qty = 0 or clock_timestamp() >= deadline;
    perform pg_sleep(poll_interval_ms / 1000.0);
  end loop;
  perform pgflow.hide_messages(
    queue_name, array_agg(t.msg_id), array_agg(clock_timestamp() + make_interval(secs => t.timeout + 2.0))
  ) from unnest(tasks) t;
  return query select * from unnest(tasks);
end
$$;
comment on function pgflow.poll_for_tasks is 'Claims tasks of one queue, waiting for them if there are none.';
