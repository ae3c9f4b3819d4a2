-- Chapter 3: the queues. All that the engine asks of pgmq stands here.
--
-- A message carries ids only. Its invisibility is the task's lease: a dead worker's messages reappear by themselves.
-- Nobody waits for a message's lock (`skip locked` everywhere), so that messages take no part in the lock order. What is
-- skipped that way heals: a task that is retried gets another message, and the next claim archives one that is not its
-- task's, or whose task is closed.

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

-- Archives messages of one queue; those that somebody holds at the moment are left to the next claim.
create function pgflow.archive_messages(queue_name text, msg_ids bigint[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  free bigint[];
begin
  execute format('select array_agg(m.msg_id) from (
    select q.msg_id from pgmq.%I q where q.msg_id = any ($1) for update skip locked
  ) m', 'q_' || queue_name) into free using msg_ids;
  perform pgmq.archive(queue_name, free);
end
$$;

-- Hides messages of one queue, each until its own time, and answers with them; those that somebody holds at the moment
-- are left as they are.
create function pgflow.hide_messages(queue_name text, msg_ids bigint[], until timestamptz[])
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  hidden bigint[];
begin
  execute format('
    with wanted as (select * from unnest($1, $2) as w (msg_id, until)),
         free as (select q.msg_id from pgmq.%1$I q join wanted using (msg_id) for update of q skip locked),
         hidden as (
           update pgmq.%1$I q
           set vt = wanted.until
           from wanted join free using (msg_id)
           where q.msg_id = wanted.msg_id
           returning q.msg_id
         )
    select coalesce(array_agg(msg_id), %2$L) from hidden', 'q_' || queue_name, '{}') into hidden using msg_ids, until;
  return hidden;
end
$$;

-- Reads up to `quantity` visible messages of the flows' queues and hides each for `lease` seconds. The queues are asked in
-- random order, first for an equal share each, then for what is left: a long one does not starve the others. What is in a
-- queue but is not ours is ignored.
create function pgflow.read_messages(flow_slugs text[], quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  queues text[] := array(
    select f.queue_name from pgflow.flows f where f.flow_slug = any (flow_slugs) order by random()
  );
  share int := greatest(1, read_messages.quantity / greatest(1, cardinality(queues)));
  long_queues text[] := '{}';
  queue text;
  found_here pgflow.message[];
  messages pgflow.message[] := '{}';
begin
  if quantity is null or lease is null or lease < 1 then
    raise exception using
      errcode = 'PT400',
      message = 'quantity and lease must be numbers',
      hint = 'Give quantity as a number of tasks and lease in seconds, at least 1.';
  end if;
  foreach queue in array queues loop
    exit when cardinality(messages) >= quantity;
    found_here := pgflow.read_queue(queue, least(share, quantity - cardinality(messages)), lease);
    messages := messages || found_here;
    if cardinality(found_here) = share then
      long_queues := long_queues || queue;
    end if;
  end loop;
  foreach queue in array long_queues loop
    exit when cardinality(messages) >= quantity;
    messages := messages || pgflow.read_queue(queue, quantity - cardinality(messages), lease);
  end loop;
  return messages;
end
$$;

-- The messages of one queue for `read_messages`.
create function pgflow.read_queue(queue_name text, quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(
      queue_name, m.msg_id, m.read_ct, m.message ->> 'run_id', m.message ->> 'step_slug', m.message ->> 'task_index'
    )::pgflow.message
    from pgmq.read(queue_name, lease, quantity) m
    where m.message ->> 'run_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
      and m.message ->> 'task_index' ~ '^[0-9]{1,9}$'
    order by m.msg_id
  );
end
$$;
