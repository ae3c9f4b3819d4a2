-- Chapter 3: the queues. All that the engine asks of pgmq stands here.
--
-- A message carries ids only. Its invisibility is the task's lease: a dead worker's messages reappear by themselves.
-- Nobody waits for a message's lock (`skip locked` everywhere), so that messages take no part in the lock order. What is
-- skipped that way heals: a task that is retried gets another message, and the next claim archives one that is not its
-- task's, or whose task is closed.
--
-- A queue is read in the order of `vt`, from when on messages are visible. So a priority is a time: a high message has been
-- visible for an hour when it is sent, a low one since two thousand years before. By these years low messages are told from
-- others, behind which they are read; after an hour they are moved among them (`age_messages`). Messages with a delay, and those of
-- tasks that are tried again, have their turn from when they are due.
--
-- A queue can be lost: dropped, purged, or left out of a backup. A missing one stops no other flow: sending and claiming
-- create it again, and `repair` gives open tasks their messages back.

create type pgflow.step_key as (
  run_id uuid,
  step_slug text
);

create type pgflow.message as (
  queue_name text,
  msg_id bigint,
  read_ct int,
  run_id uuid,
  step_slug text,
  task_index int
);

-- The queue of a new flow: its slug where that is safe, else a shortened and hashed name. pgmq folds case, allows 47
-- characters, and the queue must not be somebody else's.
create function pgflow.queue_name_for(flow_slug text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when flow_slug ~ '^[a-z_][a-z0-9_]{0,46}$'
     and not exists (select from pgmq.list_queues() q where lower(q.queue_name) = flow_slug)
    then flow_slug
    else left(lower(flow_slug), 30) || '_' || left(md5(flow_slug), 16)
  end
$$;

-- Makes the queue of a flow. It is vacuumed whenever something was removed from it: where all is archived it then has no pages,
-- which a claim sees without reading it.
create function pgflow.make_queue(queue_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgmq.create(queue_name);
  execute format('alter table pgmq.%I set (autovacuum_vacuum_threshold = 0)', 'q_' || queue_name);
end
$$;

-- Creates the queue of a flow again, with a message for each of its open tasks. Message numbers go on from the time in
-- microseconds, so that no task has the number of another one's message.
create function pgflow.create_queue(queue_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- One lock for all queues, since several may be missing, and are looked for in any order.
  perform pg_advisory_xact_lock(hashtextextended('pgflow.create_queue', 0));
  if to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null then
    perform pgflow.make_queue(queue_name);
    execute format(
      'alter table pgmq.%I alter column msg_id restart with %s',
      'q_' || queue_name, (extract(epoch from clock_timestamp()) * 1000000)::bigint
    );
    perform pgflow.resend_messages(array(select f.flow_slug from pgflow.flows f where f.queue_name = create_queue.queue_name));
  end if;
end
$$;

-- The `vt` of a message that is sent at a time, without a delay. The years are given in hours, which have the same length in all
-- time zones.
create function pgflow.queue_rank(priority text, at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case priority
    when 'high' then at - interval '1 hour'
    when 'low' then at - interval '17531640 hours'
    else at
  end
$$;

-- Sends messages to one queue, visible after `delay` seconds; answers with their numbers, in order. As pgmq.send_batch does,
-- without the functions that it calls.
create function pgflow.send_messages(
  queue_name text, messages jsonb[], delay int, priority text default 'normal', read_ct int default 0
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  visible_at timestamptz := clock_timestamp() + make_interval(secs => delay);
begin
  if priority <> 'normal' then
    messages := array(
      select m.message || jsonb_build_object('priority', send_messages.priority)
      from unnest(messages) with ordinality m (message, n) order by m.n
    );
    if delay = 0 then
      visible_at := pgflow.queue_rank(priority, visible_at);
    end if;
  end if;
  if to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null then
    perform pgflow.create_queue(queue_name);
  end if;
  return query execute format(
    'insert into pgmq.%I (vt, read_ct, message) select $2, $3, m.message from unnest($1) as m (message) returning msg_id',
    'q_' || queue_name
  ) using messages, visible_at, send_messages.read_ct;
end
$$;

-- Archives messages of one queue; those that somebody holds at the moment are left to the next claim. Which columns a queue has
-- depends on the version of pgmq.
create function pgflow.archive_messages(queue_name text, msg_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  columns text := (
    select string_agg(quote_ident(a.attname), ', ')
    from pg_attribute a
    where a.attrelid = to_regclass(format('pgmq.%I', 'q_' || queue_name)) and a.attnum > 0 and not a.attisdropped
  );
begin
  if columns is null then
    return;
  end if;
  execute format('
    with
      free as (select q.msg_id from pgmq.%1$I q where q.msg_id = any ($1) for update skip locked),
      archived as (delete from pgmq.%1$I q using free where q.msg_id = free.msg_id returning %4$s)
    insert into pgmq.%2$I (%3$s) select %3$s from archived',
    'q_' || queue_name, 'a_' || queue_name, columns, 'q.' || replace(columns, ', ', ', q.')
  ) using msg_ids;
end
$$;

-- Hides messages of one queue, each until its own time, and answers with them; those that somebody holds at the moment
-- are left as they are. Where the time is null, a message is visible again, where it was before it was claimed.
create function pgflow.hide_messages(queue_name text, msg_ids bigint[], until timestamptz[])
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  hidden bigint[];
begin
  if to_regclass(format('pgmq.%I', 'q_' || queue_name)) is null then
    return '{}';
  end if;
  execute format('
    with wanted as (select * from unnest($1, $2) as w (msg_id, until)),
         free as (select q.msg_id from pgmq.%1$I q join wanted using (msg_id) for update of q skip locked),
         hidden as (
           update pgmq.%1$I q
           set vt = coalesce(wanted.until, pgflow.queue_rank(q.message ->> ''priority'', q.enqueued_at))
           from wanted join free using (msg_id)
           where q.msg_id = wanted.msg_id
           returning q.msg_id
         )
    select coalesce(array_agg(msg_id), %2$L) from hidden', 'q_' || queue_name, '{}') into hidden using msg_ids, until;
  return hidden;
end
$$;

-- Those of the queues that have visible messages, in the same order; also those that are missing. One statement asks them all.
create function pgflow.due_queues(queues text[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  due text[];
begin
  execute (
    select format('select array_remove(array[%s], null)', string_agg(
      case
        when to_regclass(format('pgmq.%I', 'q_' || q.name)) is null then quote_literal(q.name)
        else format('case when exists (select from pgmq.%I where vt <= $1) then %L end', 'q_' || q.name, q.name)
      end, ', ' order by q.ordinality
    ))
    from unnest(queues) with ordinality q (name)
  ) into due using clock_timestamp();
  return due;
exception
  when undefined_table then -- one of them was dropped meanwhile: all are read
    return queues;
end
$$;

-- Reads up to `quantity` visible messages of the flows' queues and hides each for `lease` seconds. The queues are asked in
-- random order, first for an equal share each, then for what is left: a long one does not starve the others. Messages of low
-- priority come last, after those of all queues. A queue that is missing is created again. Most queues of many are empty: a table
-- without pages costs 5 µs, nearly all of it for the sizes of files (a join of pg_class by name takes longer). Of more than a hundred
-- others, each claim asks a hundred, since it locks them.
create function pgflow.read_messages(flow_slugs text[], quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  queues text[];
  share int;
  long_queues text[] := '{}';
  low_queues text[] := '{}';
  old_queues text[] := '{}';
  queue text;
  found_here record;
  messages pgflow.message[] := '{}';
begin
  if quantity is null or lease is null or lease < 1 then
    raise exception using
      errcode = 'PT400',
      message = 'quantity and lease must be numbers',
      hint = 'Give quantity as a number of tasks and lease in seconds, at least 1.';
  end if;
  if quantity < 1 then
    return messages;
  end if;
  queues := array(
    select f.queue_name from pgflow.flows f
    where f.flow_slug = any (flow_slugs)
      and pg_relation_size(to_regclass(format('pgmq.%I', 'q_' || f.queue_name))) is distinct from 0
    order by random()
    limit 100
  );
  if cardinality(queues) > 1 then
    queues := pgflow.due_queues(queues);
  end if;
  share := greatest(1, quantity / greatest(1, cardinality(queues)));
  foreach queue in array queues loop
    exit when cardinality(messages) >= quantity;
    if to_regclass(format('pgmq.%I', 'q_' || queue)) is null then
      perform pgflow.create_queue(queue);
    end if;
    found_here := pgflow.read_queue(queue, least(share, quantity - cardinality(messages)), lease);
    messages := messages || found_here.messages;
    if cardinality(found_here.messages) = share then
      long_queues := long_queues || queue;
    end if;
    if found_here.first_low is not null then
      low_queues := low_queues || queue;
      if found_here.first_low < pgflow.queue_rank('low', clock_timestamp() - interval '1 hour') then
        old_queues := old_queues || queue;
      end if;
    end if;
  end loop;
  -- Where there is one queue, its share was all.
  if cardinality(queues) > 1 then
    foreach queue in array long_queues loop
      exit when cardinality(messages) >= quantity;
      messages := messages || (pgflow.read_queue(queue, quantity - cardinality(messages), lease)).messages;
    end loop;
  end if;
  foreach queue in array low_queues loop
    exit when cardinality(messages) >= quantity;
    messages := messages || (pgflow.read_queue(queue, quantity - cardinality(messages), lease, low => true)).messages;
  end loop;
  if cardinality(messages) >= quantity then
    perform pgflow.age_messages(old, quantity) from unnest(old_queues) old;
  end if;
  return messages;
end
$$;

-- The messages of one queue for `read_messages`, in the order in which they became visible: those of low priority, or the others. Also
-- the `vt` of the first one of low priority. pgmq.read asks by number, and so reads all hidden messages before it finds a visible one; by
-- the index on `vt` they are not in the way.
create function pgflow.read_queue(
  queue_name text, quantity int, lease int, low boolean default false, out messages pgflow.message[], out first_low timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  has_read_time boolean := exists (
    select from pg_attribute a
    where a.attrelid = to_regclass(format('pgmq.%I', 'q_' || queue_name)) and a.attname = 'last_read_at' and not a.attisdropped
  );
  as_of timestamptz := clock_timestamp();
  msg_ids bigint[];
  read_cts int[];
  run_ids text[];
  step_slugs text[];
  task_indexes text[];
begin
  execute format('
    with read as (
      update pgmq.%1$I q
      set vt = $2 + make_interval(secs => $3), read_ct = q.read_ct + 1 %2$s
      where q.msg_id = any (array(
        select due.msg_id from pgmq.%1$I due where due.vt >= $4 and due.vt <= $5 order by due.vt limit $1 for update skip locked
      ))
      returning q.msg_id, q.read_ct, q.message ->> ''run_id'' as run_id, q.message ->> ''step_slug'' as step_slug,
                q.message ->> ''task_index'' as task_index
    )
    select array_agg(r.msg_id), array_agg(r.read_ct), array_agg(r.run_id), array_agg(r.step_slug), array_agg(r.task_index),
           (select due.vt from pgmq.%1$I due where due.vt < ''epoch'' order by due.vt limit 1)
    from read r', 'q_' || queue_name, case when has_read_time then ', last_read_at = $2' end)
  into msg_ids, read_cts, run_ids, step_slugs, task_indexes, first_low
  using quantity, as_of, lease,
        case when low then '-infinity' else 'epoch'::timestamptz end,
        case when low then 'epoch'::timestamptz - interval '1 microsecond' else as_of end;
  messages := '{}';
  if msg_ids is null then
    return;
  end if;
  begin
    messages := array(
      select row(read_queue.queue_name, m.msg_id, m.read_ct, m.run_id, m.step_slug, m.task_index)::pgflow.message
      from unnest(msg_ids, read_cts, run_ids, step_slugs, task_indexes) as m (msg_id, read_ct, run_id, step_slug, task_index)
      where m.run_id is not null and m.task_index is not null
    );
  exception
    when data_exception then null; -- one of them is not ours
  end;
  if cardinality(messages) < cardinality(msg_ids) then
    messages := pgflow.messages_of_tasks(queue_name, msg_ids, read_cts, run_ids, step_slugs, task_indexes);
  end if;
end
$$;

-- Moves up to `quantity` messages of low priority that have waited for an hour among the others: before those that were sent more
-- than an hour after them. Each claim that has found some, but had no room for them, does so for as many as it may read; so none is left
-- behind. A message that somebody gave the time -infinity stays where it is.
create function pgflow.age_messages(queue_name text, quantity int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('
    update pgmq.%1$I q
    set vt = q.vt + ($2 - pgflow.queue_rank(''low'', $2)) + interval ''1 hour''
    where q.msg_id = any (array(
      select old.msg_id from pgmq.%1$I old
      where old.vt >= ''0001-01-01 UTC'' and old.vt < pgflow.queue_rank(''low'', $2 - interval ''1 hour'')
      order by old.vt limit $1 for update skip locked
    ))', 'q_' || queue_name) using quantity, clock_timestamp();
end
$$;

-- What `read_queue` has read from a queue in which others put messages, too: theirs are archived.
create function pgflow.messages_of_tasks(
  queue_name text, msg_ids bigint[], read_cts int[], run_ids text[], step_slugs text[], task_indexes text[]
)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  ours pgflow.message[];
  others bigint[];
begin
  select array_agg(
           row(messages_of_tasks.queue_name, m.msg_id, m.read_ct, m.run_id, m.step_slug, m.task_index)::pgflow.message
         ) filter (where is_ours.so),
         array_agg(m.msg_id) filter (where is_ours.so is not true)
  into ours, others
  from unnest(msg_ids, read_cts, run_ids, step_slugs, task_indexes) as m (msg_id, read_ct, run_id, step_slug, task_index)
  cross join lateral (
    select pgflow.is_readable(m.run_id, 'uuid') and pgflow.is_readable(m.task_index, 'int')
    offset 0 -- so that it is evaluated once
  ) as is_ours (so);
  perform pgflow.archive_messages(queue_name, others);
  return coalesce(ours, '{}');
end
$$;

-- Creates queues that are missing, and gives every open task that has lost its message another one. Safe at any time, beside
-- workers that claim and settle: whoever has lost nothing notices nothing. With a `quantity` it ends when it has sent about that
-- many, and another call goes on: their tasks are locked until the transaction ends.
--   select * from pgflow.repair();
create function pgflow.repair(quantity int default null, out queues bigint, out messages bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing text[] := array(
    select f.queue_name from pgflow.flows f
    where to_regclass(format('pgmq.%I', 'q_' || f.queue_name)) is null
       or to_regclass(format('pgmq.%I', 'a_' || f.queue_name)) is null
  );
begin
  queues := cardinality(missing);
  perform pgmq.create(archive) from unnest(missing) archive
  where to_regclass(format('pgmq.%I', 'q_' || archive)) is not null;
  perform pgflow.create_queue(queue) from unnest(missing) queue;
  messages := pgflow.resend_messages(array(select f.flow_slug from pgflow.flows f), quantity);
end
$$;
comment on function pgflow.repair is 'Creates queues that are missing, and sends the messages that open tasks have lost again.';

-- Sends the messages that open tasks of the flows have lost again, and answers how many; it ends when it has sent `quantity`. A task
-- that is being claimed or settled at the moment is left alone. A new message is visible when the old one would have been: one of a
-- task that is claimed when its lease is over, at the latest, unless its worker extends it.
--
-- Open tasks are found by their runs, in the order of ids. A statement looks at 10,000 runs and 5,000 tasks at most, so that each takes
-- some 10 ms however many there are. Only tasks that have lost their messages are locked.
create function pgflow.resend_messages(flow_slugs text[], quantity int default null)
returns bigint
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
  -- What was looked at last: tasks of this run up to a step and index, or all of its tasks where these are null.
  last_run uuid := '00000000-0000-0000-0000-000000000000';
  last_step text := '';
  last_index int := -1;
  slice record;
  open record;
  run_ids uuid[];
  sent bigint := 0;
begin
  loop
    with
      run as materialized (
        select r.run_id, r.flow_slug, r.status,
               case r.run_id when last_run then last_step else '' end as after_step,
               case r.run_id when last_run then last_index else -1 end as after_index
        from pgflow.runs r
        where r.run_id >= last_run
        order by r.run_id
        limit 10000
      ),
      task as materialized (
        select r.flow_slug, t.run_id, t.step_slug, t.task_index
        from run r
        cross join lateral (
          select t.run_id, t.step_slug, t.task_index
          from pgflow.step_tasks t
          where t.run_id = r.run_id and t.status in ('queued', 'started')
            and (t.step_slug, t.task_index) > (r.after_step, r.after_index)
          order by t.step_slug, t.task_index
          limit 5000
        ) t
        where r.status = 'started' and r.flow_slug = any (resend_messages.flow_slugs)
        limit 5000
      )
    select (select count(*) from run) as runs, (select r.run_id from run r order by r.run_id desc limit 1) as last_run, count(*) as tasks,
           array_agg(t.flow_slug) as flow_slugs, array_agg(t.run_id) as run_ids, array_agg(t.step_slug) as step_slugs,
           array_agg(t.task_index) as task_indexes
    into slice
    from task t;
    for open in
      select f.queue_name, array_agg(t.run_id) as run_ids, array_agg(t.step_slug) as step_slugs,
             array_agg(t.task_index) as task_indexes
      from unnest(slice.flow_slugs, slice.run_ids, slice.step_slugs, slice.task_indexes) as t (flow_slug, run_id, step_slug, task_index)
      join pgflow.flows f using (flow_slug)
      group by f.queue_name
    loop
      run_ids := pgflow.resend_to_queue(open.queue_name, open.run_ids, open.step_slugs, open.task_indexes);
      sent := sent + cardinality(run_ids);
      perform pgflow.notify_workers(run_ids);
    end loop;
    exit when sent >= quantity or slice.tasks < 5000 and slice.runs < 10000;
    if slice.tasks = 5000 then
      last_run := slice.run_ids[5000];
      last_step := slice.step_slugs[5000];
      last_index := slice.task_indexes[5000];
    else
      last_run := slice.last_run;
      last_step := null;
    end if;
  end loop;
  return sent;
end
$$;

-- The messages of one queue for `resend_messages`; answers with the run of each. One statement sees tasks and messages as
-- they are at one time; a task that has got another message meanwhile is left out by the lock.
--
-- Bitmap scans alone look up each task by its key, never all tasks: to the statistics the table is empty where it was analyzed
-- before the transaction that fills it had ended.
create function pgflow.resend_to_queue(queue_name text, run_ids uuid[], step_slugs text[], task_indexes int[])
returns uuid[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_indexscan = off
set enable_indexonlyscan = off
set enable_bitmapscan = on
as $$
declare
  resent uuid[];
begin
  execute format($resend$
    with
      lost as materialized (
        select t.run_id, t.step_slug, t.task_index, t.message_id
        from unnest($1, $2, $3) as open (run_id, step_slug, task_index)
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where t.status in ('queued', 'started') and not exists (
          select from pgmq.%I q
          where q.msg_id = t.message_id
            and (q.message ->> 'run_id', q.message ->> 'step_slug', q.message ->> 'task_index')
              = (t.run_id::text, t.step_slug, t.task_index::text)
        )
      ),
      task as materialized (
        select t.*
        from lost l
        join pgflow.step_tasks t using (run_id, step_slug, task_index)
        where t.status in ('queued', 'started') and t.message_id is not distinct from l.message_id
        order by t.run_id, t.step_slug, t.task_index
        for no key update of t skip locked
      ),
      batch as (
        select due.delay, due.priority,
               array_agg(t.run_id order by t.run_id, t.step_slug, t.task_index) as run_ids,
               array_agg(t.step_slug order by t.run_id, t.step_slug, t.task_index) as step_slugs,
               array_agg(t.task_index order by t.run_id, t.step_slug, t.task_index) as task_indexes,
               array_agg(jsonb_build_object(
                 'flow_slug', t.flow_slug, 'run_id', t.run_id, 'step_slug', t.step_slug, 'task_index', t.task_index
               ) order by t.run_id, t.step_slug, t.task_index) as messages
        from task t
        join pgflow.step_states ss using (run_id, step_slug)
        join pgflow.steps s on s.flow_slug = t.flow_slug and s.step_slug = t.step_slug
        cross join lateral (
          select case
            when t.status = 'started' and exists (select from pgflow.workers w where w.worker_id = t.last_worker_id)
            then clock_timestamp() + interval '1 minute'
            when t.status = 'started' then t.started_at + make_interval(secs => 2.0 + (
              select o.timeout from pgflow.step_options o where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
            ))
            when t.attempts_count > t.attempts_before then ss.retry_at
            else t.queued_at + make_interval(secs => coalesce(s.opt_start_delay, 0))
          end
        ) as visible (at)
        cross join lateral (
          select greatest(0, least(2147483647, ceil(extract(epoch from visible.at - clock_timestamp()))))::int,
                 (select r.priority from pgflow.runs r where r.run_id = t.run_id)
        ) as due (delay, priority)
        group by due.delay, due.priority
      ),
      sent as materialized (
        select m.run_id, m.step_slug, m.task_index, m.msg_id
        from batch b
        cross join lateral rows from (
          unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), pgflow.send_messages(%L, b.messages, b.delay, b.priority)
        ) as m (run_id, step_slug, task_index, msg_id)
      ),
      resent as (
        update pgflow.step_tasks t
        set message_id = s.msg_id
        from sent s
        where (t.run_id, t.step_slug, t.task_index) = (s.run_id, s.step_slug, s.task_index)
        returning t.run_id
      )
    select coalesce(array_agg(r.run_id), '{}') from resent r
  $resend$, 'q_' || queue_name, queue_name)
  into resent
  using run_ids, step_slugs, task_indexes;
  return resent;
end
$$;
