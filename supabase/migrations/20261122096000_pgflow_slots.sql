-- Chapter 18: slots. Tasks of limited steps wait for a free slot of each of their keys.
--
-- A key is `<limit>:<value>`, the value being that at the limit's path in the input of the step; or `:<run>:<step>`, for the
-- concurrency of a map. A task that is ready waits as a row (`waits_for` = slot), without a message. It holds a slot of each of its
-- keys from when it is admitted, which gives it a message, until it is closed or its attempt has failed. One whose next attempt
-- is due later waits for the time first.
--
-- How many slots of a key are taken is counted from the rows of the tasks, never kept: what holds no slot has no key, as a check
-- constraint says, so that none can leak, whatever dies.
--
-- Whoever may have made room (ends a task, creates one that waits, changes a limit) writes an alarm for the key, and waits for
-- nobody. The next claim or tick takes it and admits tasks: one transaction at a time for a key, by a lock in memory that nobody waits for.
-- If another transaction has it, the alarm is set again, some milliseconds later. So no free slot is forgotten: what that
-- transaction has not seen has an alarm of its own.

-- The place of a task among those that wait for a key, from when it is ready: high priority an hour ahead, low one an hour behind.
create function pgflow.slot_rank(run_id uuid, ready_at timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return ready_at + (
    select case r.priority when 'high' then interval '-1 hour' when 'low' then interval '1 hour' else interval '0' end
    from pgflow.runs r where r.run_id = slot_rank.run_id
  );
end
$$;

-- What a limit's key says of a value: the text of a scalar, else its JSON; long ones by their hash.
create function pgflow.slot_value(value jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  text text := coalesce(value #>> '{}', '');
begin
  return case when length(text) <= 200 then text else md5(text) end;
end
$$;

-- The keys of the tasks of a step of a run: of the limits of its flow and its own, and of its concurrency.
create function pgflow.slot_keys_of(run_id uuid, step pgflow.steps)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  keys text[];
begin
  select array_agg(distinct u.limit_slug || ':' || case when u.by_path is null then '' else pgflow.slot_value((
    select i.input #> string_to_array(u.by_path, '.') from pgflow.step_inputs i
    where i.run_id = slot_keys_of.run_id and i.step_slug = step.step_slug
  )) end)
  into keys
  from pgflow.limit_uses u
  where u.flow_slug = step.flow_slug and u.step_slug in ('*', step.step_slug);
  if step.opt_concurrency is not null then
    keys := keys || concat_ws(':', '', slot_keys_of.run_id, step.step_slug);
  end if;
  return coalesce(keys[1:3], '{:}'); -- a limit that was removed at this moment
end
$$;

-- The tasks of limited steps that have started: they wait for a slot, or for the time first where there is a delay.
create function pgflow.create_slot_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  alarm record;
begin
  for alarm in
    with
      step as (
        select ss.run_id, s as step, s.step_slug, s.flow_slug, ready.at, pgflow.slot_keys_of(ss.run_id, s) as keys,
               pgflow.slot_rank(ss.run_id, ready.at) as rank
        from unnest(create_slot_tasks.steps) k
        join pgflow.step_states ss using (run_id, step_slug)
        join pgflow.steps s using (flow_slug, step_slug)
        cross join lateral (
          select create_slot_tasks.as_of
               + make_interval(secs => coalesce(s.opt_start_delay, 0)::float8 + create_slot_tasks.delay) as at
        ) ready
        where ss.status = 'started' and s.is_limited
      ),
      task as (
        insert into pgflow.step_tasks as old (
          run_id, step_slug, task_index, flow_slug, status, waits_for, due_at, slot_keys, slot_rank, input, queued_at, child_run_id
        )
        select s.run_id, s.step_slug, item.task_index, s.flow_slug, 'waiting',
               case when s.at > create_slot_tasks.as_of then 'time' else 'slot' end,
               case when s.at > create_slot_tasks.as_of then s.at end,
               s.keys, s.rank + item.task_index * interval '1 microsecond', item.input, create_slot_tasks.as_of,
               case when (s.step).child_flow is not null then (pgflow.new_run_ids(1, create_slot_tasks.as_of))[1] end
        from step s
        cross join lateral pgflow.items_of(s.run_id, s.step) item
        on conflict (run_id, step_slug, task_index) do update
        set status = 'waiting',
            message_id = null,
            child_run_id = case
              -- One that was undone is over; another takes its place.
              when (select c.undo from pgflow.runs c where c.run_id = old.child_run_id) = 'begun' then excluded.child_run_id
              else old.child_run_id
            end,
            waits_for = excluded.waits_for,
            due_at = excluded.due_at,
            slot_keys = excluded.slot_keys,
            slot_rank = excluded.slot_rank,
            attempts_before = old.attempts_count,
            error_message = null,
            queued_at = excluded.queued_at,
            failed_at = null
      )
    select s.at, array_agg(s.keys[cardinality(s.keys)]) as keys from step s group by s.at
  loop
    perform pgflow.look_at_slots(alarm.keys, alarm.at);
  end loop;
end
$$;

-- Gives notice that there may be free slots of keys, from a time on. Where that is now, idle workers are notified.
create function pgflow.look_at_slots(keys text[], at timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgflow.alarms (due_at, kind, slot_key)
  select distinct look_at_slots.at, 'slot', key from unnest(look_at_slots.keys) key where key is not null;
  if look_at_slots.at <= pgflow.now() and exists (
    select from pgflow.workers w where w.waiting_until > pgflow.now()
  ) then
    perform pgflow.notify_workers(array(
      select pgflow.run_that_waits(k.key)
      from (select distinct key from unnest(look_at_slots.keys) key where key is not null) k
    ));
  end if;
end
$$;

-- A run of which a task waits for a slot of a key; null where none does.
create function pgflow.run_that_waits(key text)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select t.run_id from pgflow.step_tasks t where t.slot_keys[1] = key and t.waits_for = 'slot'
    union all
    select t.run_id from pgflow.step_tasks t where t.slot_keys[2] = key and t.waits_for = 'slot'
    union all
    select t.run_id from pgflow.step_tasks t where t.slot_keys[3] = key and t.waits_for = 'slot'
    limit 1
  );
end
$$;

-- Lets the keys of a limit be looked at after it has changed, or all keys that tasks wait for.
create function pgflow.recheck_limit(limit_slug text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgflow.look_at_slots(array_agg(k.key), pgflow.now())
  from (
    select distinct key
    from pgflow.step_tasks t
    cross join unnest(t.slot_keys) key
    where t.slot_keys[1] is not null and t.waits_for = 'slot'
  ) k
  where recheck_limit.limit_slug is null or split_part(k.key, ':', 1) = recheck_limit.limit_slug;
end
$$;

create type pgflow.slot_task as (
  run_id uuid,
  step_slug text,
  task_index int,
  slot_keys text[],
  slot_rank timestamptz,
  is_child boolean
);
comment on type pgflow.slot_task is
  'A task that waits for a slot of each of its keys, its place among those that do, and whether it then waits for a run of a sub-flow.';

create type pgflow.slot_room as (
  key text,
  room int,
  next_at timestamptz,
  spacing interval
);
comment on type pgflow.slot_room is
  'How many tasks a key may admit now; null where nothing limits it. Of a rate, from when on it may admit the next, and how far apart they are.';

create type pgflow.slot_locks as (
  locked text[],
  busy text[]
);
comment on type pgflow.slot_locks is 'The keys that a transaction has locked, and those that another one has.';

-- Admits tasks that wait for slots, of the keys whose alarms are due, up to about `quantity`; answers how many.
create function pgflow.admit_tasks(quantity int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  admitted pgflow.slot_task[] := pgflow.admitted_tasks(quantity, as_of);
begin
  perform pgflow.send_admitted(admitted, as_of);
  return cardinality(admitted);
end
$$;

-- The same for a claim: tasks of its flows begin at once, without being queued, as the messages that it answers with. These are hidden for `lease`
-- seconds, as if they had been read.
create function pgflow.admit_to_claim(flow_slugs text[], quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  admitted pgflow.slot_task[] := pgflow.admitted_tasks(1000, as_of);
  messages pgflow.message[] := pgflow.send_claimed(admitted, admit_to_claim.flow_slugs, admit_to_claim.quantity, admit_to_claim.lease);
begin
  if cardinality(messages) < cardinality(admitted) then
    perform pgflow.send_admitted(array(
      select row(a.*)::pgflow.slot_task from unnest(admitted) a
      where not exists (
        select from unnest(messages) m
        where (m.run_id, m.step_slug, m.task_index) = (a.run_id, a.step_slug, a.task_index)
      )
    ), as_of);
  end if;
  return messages;
end
$$;

-- The tasks that get a slot of each of their keys now, of the keys whose alarms are due, without those of sub-flows. The caller gives them
-- their messages.
create function pgflow.admitted_tasks(quantity int, as_of timestamptz)
returns pgflow.slot_task[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  due_keys text[];
  locks pgflow.slot_locks;
  rooms pgflow.slot_room[];
  combinations jsonb;
  candidates pgflow.slot_task[] := '{}';
  admitted pgflow.slot_task[] := '{}';
  busy_keys text[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    return '{}'; -- it would count what was there when the transaction began
  end if;
  due_keys := pgflow.take_slot_alarms(as_of);
  if due_keys is null then
    return '{}';
  end if;
  locks := pgflow.lock_slots(due_keys);
  busy_keys := locks.busy;
  rooms := pgflow.rooms_of(locks.locked, as_of);
  combinations := (
    select jsonb_agg(distinct to_jsonb(c.slot_keys))
    from unnest(rooms) r
    cross join lateral pgflow.waiting_combinations(r.key, pgflow.looks_for(r.room)) c (slot_keys)
    where coalesce(r.room, 1) > 0
  );
  if combinations is not null then
    locks := pgflow.lock_slots(array(
      select jsonb_array_elements_text(c) from jsonb_array_elements(combinations) c
      except
      select unnest(due_keys)
    ));
    busy_keys := busy_keys || locks.busy;
    rooms := rooms || pgflow.rooms_of(locks.locked, as_of);
    candidates := pgflow.slot_candidates(combinations, rooms, quantity);
    admitted := pgflow.admissible(candidates, rooms);
  end if;
  if cardinality(admitted) > 0 then
    select coalesce(a.admitted, '{}'), busy_keys || a.busy into admitted, busy_keys from pgflow.admit(admitted, as_of) a;
  end if;
  if exists (select from unnest(rooms) r where r.spacing is not null) then
    perform pgflow.take_rates(admitted, rooms);
  end if;
  if busy_keys is not null or cardinality(candidates) >= quantity or exists (
    select from unnest(rooms) r where r.spacing is not null or coalesce(r.room, quantity) > cardinality(admitted)
  ) then
    perform pgflow.look_again(coalesce(combinations, '[]'), rooms, admitted, as_of);
    insert into pgflow.alarms (due_at, kind, slot_key)
    select distinct as_of + interval '20 milliseconds', 'slot', key from unnest(busy_keys) key
    union all
    select as_of, 'slot', key from unnest(due_keys) key where cardinality(candidates) >= quantity;
  end if;
  return pgflow.admit_children(admitted, as_of);
end
$$;

-- Tries to lock keys for this transaction: those that it has now, and those in which another one admits tasks at the moment.
create function pgflow.lock_slots(keys text[])
returns pgflow.slot_locks
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  locks pgflow.slot_locks;
begin
  select array_agg(k.key) filter (where k.is_locked), array_agg(k.key) filter (where not k.is_locked) into locks
  from (
    select key, pg_try_advisory_xact_lock(hashtextextended('pgflow.slot:' || key, 0)) as is_locked from unnest(keys) key
  ) k;
  return locks;
end
$$;

-- How many combinations with a key are looked at, for the room that it has: more than can be admitted, since other keys may have none.
create function pgflow.looks_for(room int)
returns int
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return least(50, greatest(10, 2 * coalesce(room, 50)));
end
$$;

-- Sets alarms for tasks that still wait: where a rate lets the next one pass later; where there is room for another, since its row
-- was locked by somebody who may let it go; and where not all combinations of a key were looked at, and it has room left.
create function pgflow.look_again(combinations jsonb, rooms pgflow.slot_room[], admitted pgflow.slot_task[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgflow.alarms (due_at, kind, slot_key)
  select next.at, 'slot', r.key
  from unnest(rooms) r
  cross join lateral (
    select count(*) as tasks from unnest(look_again.admitted) a where r.key = any (a.slot_keys)
  ) taken
  cross join lateral (
    select case
      when r.next_at + taken.tasks * r.spacing > look_again.as_of then r.next_at + taken.tasks * r.spacing
      when (r.room is null or r.room > taken.tasks) and (
        select count(*) from jsonb_array_elements(look_again.combinations) c where c ? r.key
      ) >= pgflow.looks_for(r.room) then look_again.as_of + interval '250 milliseconds'
    end
  ) next (at)
  where next.at is not null and pgflow.run_that_waits(r.key) is not null
  union all
  select look_again.as_of + interval '1 second', 'slot', c.keys[cardinality(c.keys)]
  from (
    select array(select jsonb_array_elements_text(e)) as keys from jsonb_array_elements(look_again.combinations) e
  ) c
  cross join lateral (
    select count(r.key) as known, bool_and(
             r.room is null or r.room > (select count(*) from unnest(look_again.admitted) a where r.key = any (a.slot_keys))
           ) as has_room
    from unnest(c.keys) key
    left join unnest(look_again.rooms) r using (key)
  ) room
  where room.has_room and room.known = cardinality(c.keys) and exists (
    select from pgflow.step_tasks t where t.slot_keys[1] = c.keys[1] and t.waits_for = 'slot' and t.slot_keys = c.keys
  );
end
$$;

-- The keys whose alarms are due, without the alarms; null where there are none. Tasks whose delay is over now wait for a slot.
create function pgflow.take_slot_alarms(as_of timestamptz)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  keys text[];
  ready text[];
begin
  with
    due as (
      select a.due_at, a.alarm_id from pgflow.alarms a
      where a.due_at <= as_of and a.kind = 'slot'
      order by a.due_at, a.alarm_id
      limit 200
      for update skip locked
    ),
    taken as (
      delete from pgflow.alarms a using due d where (a.due_at, a.alarm_id) = (d.due_at, d.alarm_id) returning a.slot_key
    )
  select array_agg(distinct t.slot_key) into keys from taken t;
  with
    due as (
      select t.run_id, t.step_slug, t.task_index from pgflow.step_tasks t
      where t.due_at <= as_of and t.slot_keys is not null
      order by t.due_at
      limit 1000
      for no key update skip locked
    ),
    task as (
      update pgflow.step_tasks t set waits_for = 'slot', due_at = null
      from due d
      where (t.run_id, t.step_slug, t.task_index) = (d.run_id, d.step_slug, d.task_index)
      returning t.slot_keys
    )
  select array_agg(distinct t.slot_keys[cardinality(t.slot_keys)]) into ready from task t;
  return case when ready is null then keys else array(select distinct key from unnest(keys || ready) key) end;
end
$$;

-- The combinations of keys with a key in them that tasks wait for, each once; of many, `quantity` at a time, in turn. By the indexes on
-- slot_keys, from one combination to the next.
create function pgflow.waiting_combinations(key text, quantity int)
returns setof text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  last text[] := (select k.last_keys from pgflow.limit_keys k where k.slot_key = waiting_combinations.key);
  next text[] := coalesce(last, '{}');
  has_wrapped boolean := last is null;
  found_here int := 0;
begin
  loop
    next := (
      select least(
        (select t.slot_keys from pgflow.step_tasks t where t.slot_keys[1] = key and t.waits_for = 'slot' and t.slot_keys > next
         order by t.slot_keys limit 1),
        (select t.slot_keys from pgflow.step_tasks t where t.slot_keys[2] = key and t.waits_for = 'slot' and t.slot_keys > next
         order by t.slot_keys limit 1),
        (select t.slot_keys from pgflow.step_tasks t where t.slot_keys[3] = key and t.waits_for = 'slot' and t.slot_keys > next
         order by t.slot_keys limit 1)
      )
    );
    if next is null and not has_wrapped then
      has_wrapped := true;
      next := '{}';
      continue;
    end if;
    exit when next is null or has_wrapped and next > last;
    return next next;
    found_here := found_here + 1;
    if found_here = waiting_combinations.quantity then
      insert into pgflow.limit_keys as k (slot_key, last_keys) values (waiting_combinations.key, next)
      on conflict on constraint limit_keys_pkey do update set last_keys = excluded.last_keys;
      return;
    end if;
  end loop;
end
$$;

-- How many tasks each key may admit: its limit less those that hold a slot, as do those whose child runs, and what its rate lets pass. A rate spreads its
-- tasks evenly; a look that comes late makes up for a twentieth of the period, for which they are that much further apart, so
-- that no period ever has more than the limit says.
create function pgflow.rooms_of(keys text[], as_of timestamptz)
returns pgflow.slot_room[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  child text := 'run'; -- a variable, since Postgres would read all of the index of tasks that wait for runs
begin
  return array(
    select row(k.key, (least(
             l.running - case when l.running is not null then (
               select count(*) from pgflow.step_tasks t where t.slot_keys[1] = k.key and t.waits_for is null
             ) + (
               select count(*) from pgflow.step_tasks t where t.slot_keys[2] = k.key and t.waits_for is null
             ) + (
               select count(*) from pgflow.step_tasks t where t.slot_keys[3] = k.key and t.waits_for is null
             ) + (
               select count(*) from pgflow.step_tasks t where t.slot_keys[1] = k.key and t.waits_for = child
             ) + (
               select count(*) from pgflow.step_tasks t where t.slot_keys[2] = k.key and t.waits_for = child
             ) + (
               select count(*) from pgflow.step_tasks t where t.slot_keys[3] = k.key and t.waits_for = child
             ) end,
             case when rate.next_at <= as_of then 1 + floor(extract(epoch from as_of - rate.next_at) / extract(epoch from rate.spacing)) end,
             case when rate.next_at > as_of then 0 end
           ))::int, rate.next_at, rate.spacing)::pgflow.slot_room
    from unnest(rooms_of.keys) k (key)
    left join lateral (
      select l.running, l.rate_count, l.rate_period from pgflow.limits l where l.limit_slug = split_part(k.key, ':', 1)
      union all
      select s.opt_concurrency, null, null
      from pgflow.runs r
      join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = split_part(k.key, ':', 3)
      where k.key like ':_%' and r.run_id::text = split_part(k.key, ':', 2)
    ) l on true
    left join lateral (
      select least(
               greatest(
                 (select n.next_at from pgflow.limit_keys n where n.slot_key = k.key),
                 as_of - make_interval(secs => l.rate_period / 20.0)
               ),
               as_of + spacing.by -- later only if the rate has been raised since
             ) as next_at, spacing.by as spacing
      from (select make_interval(secs => l.rate_period * 1.05 / l.rate_count)) spacing (by)
      where l.rate_count is not null
    ) rate on true
  );
end
$$;

-- Tasks that could be admitted: of each combination of keys the first, as many as each of its keys has room for. They are locked;
-- what others have locked is left out. A combination with a key that has no room, or that is not among the keys, has none.
create function pgflow.slot_candidates(combinations jsonb, rooms pgflow.slot_room[], quantity int)
returns pgflow.slot_task[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(t.run_id, t.step_slug, t.task_index, c.keys, t.slot_rank, t.is_child)::pgflow.slot_task
    from (
      select array(select jsonb_array_elements_text(e)) as keys from jsonb_array_elements(slot_candidates.combinations) e
    ) c
    cross join lateral (
      select count(r.key) as known, coalesce(min(r.room), quantity) as room
      from unnest(c.keys) key left join unnest(slot_candidates.rooms) r using (key)
    ) least
    cross join lateral (
      select t.run_id, t.step_slug, t.task_index, t.slot_rank, t.child_run_id is not null as is_child
      from pgflow.step_tasks t
      where t.slot_keys[1] = c.keys[1] and t.waits_for = 'slot' and t.slot_keys = c.keys
      order by t.slot_rank
      limit case when least.known = cardinality(c.keys) then greatest(0, least(least.room, quantity)) else 0 end
      for no key update skip locked
    ) t
    order by t.slot_rank, t.run_id
    limit quantity
  );
end
$$;

-- Those of the candidates that may be admitted together, in their order: no key more than it has room for. Each takes of the room
-- of its keys, which the next ones find.
create function pgflow.admissible(candidates pgflow.slot_task[], rooms pgflow.slot_room[])
returns pgflow.slot_task[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  keys text[];
  room int[];
  places int[];
  place int;
  chosen int[] := '{}';
  candidate record;
begin
  if not exists (select from unnest(candidates) c where cardinality(c.slot_keys) > 1) then
    return candidates;
  end if;
  select array_agg(r.key order by r.key), array_agg(r.room order by r.key) into keys, room from unnest(rooms) r;
  for candidate in
    select c.n, array(select array_position(keys, key) from unnest(c.slot_keys) key) as places
    from unnest(candidates) with ordinality c (run_id, step_slug, task_index, slot_keys, slot_rank, is_child, n)
  loop
    places := candidate.places;
    continue when room[places[1]] <= 0 or room[places[2]] <= 0 or room[places[3]] <= 0;
    foreach place in array places loop
      room[place] := room[place] - 1;
    end loop;
    chosen := chosen || candidate.n::int;
  end loop;
  return array(select candidates[n] from unnest(chosen) n);
end
$$;

-- Those of the tasks that are admitted now. A step that is no map says that it waits, which only the run's holder may change: where
-- somebody else holds the run, the task waits on, and its keys are busy.
create function pgflow.admit(tasks pgflow.slot_task[], as_of timestamptz, out admitted pgflow.slot_task[], out busy text[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  steps pgflow.step_key[] := array(
    select row(ss.run_id, ss.step_slug)::pgflow.step_key
    from unnest(tasks) t
    join pgflow.step_states ss using (run_id, step_slug)
    where ss.waits_for = 'slot'
  );
  held uuid[] := array(
    select r.run_id from pgflow.runs r
    where r.run_id = any (array(select k.run_id from unnest(steps) k)) and r.status = 'started'
    for no key update skip locked
  );
begin
  select array_agg(row(t.*)::pgflow.slot_task) filter (where not waits.on_its_run),
         array_agg(t.slot_keys[cardinality(t.slot_keys)]) filter (where waits.on_its_run)
  into admitted, busy
  from unnest(tasks) t
  cross join lateral (
    select t.run_id <> all (held) and exists (
      select from unnest(steps) k where k.run_id = t.run_id and k.step_slug = t.step_slug
    )
  ) waits (on_its_run);
  if admitted is null then
    return;
  end if;
  if cardinality(held) > 0 then
    update pgflow.step_states ss
    set waits_for = case when exists (
          select from unnest(tasks) t where t.is_child and (t.run_id, t.step_slug) = (k.run_id, k.step_slug)
        ) then 'run' end
    from unnest(steps) k
    where (ss.run_id, ss.step_slug) = (k.run_id, k.step_slug) and k.run_id = any (held);
  end if;
end
$$;

-- Messages for those of the admitted tasks that a claim of some flows takes at once, up to `quantity`: sent as if they had been read.
-- In the answer their read_ct is 0: begin_attempts begins their tasks.
create function pgflow.send_claimed(tasks pgflow.slot_task[], flow_slugs text[], quantity int, lease int)
returns pgflow.message[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  batch record;
  messages pgflow.message[] := '{}';
begin
  for batch in
    select f.queue_name, array_agg(t.run_id order by t.n) as run_ids, array_agg(t.step_slug order by t.n) as step_slugs,
           array_agg(t.task_index order by t.n) as task_indexes, f.flow_slug
    from (
      select a.n, t.run_id, t.step_slug, t.task_index, t.flow_slug
      from unnest(send_claimed.tasks) with ordinality a (run_id, step_slug, task_index, slot_keys, slot_rank, is_child, n)
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      where t.flow_slug = any (send_claimed.flow_slugs) and t.attempts_count - t.attempts_before < (
        select o.max_attempts from pgflow.step_options o where o.flow_slug = t.flow_slug and o.step_slug = t.step_slug
      )
      order by a.n
      limit send_claimed.quantity
    ) t
    join pgflow.flows f using (flow_slug)
    group by f.queue_name, f.flow_slug
  loop
    messages := messages || array(
      select row(batch.queue_name, m.msg_id, 0, m.run_id, m.step_slug, m.task_index)::pgflow.message
      from rows from (
        unnest(batch.run_ids), unnest(batch.step_slugs), unnest(batch.task_indexes),
        pgflow.send_messages(batch.queue_name, array(
          select jsonb_build_object('flow_slug', batch.flow_slug, 'run_id', k.run_id, 'step_slug', k.step_slug, 'task_index', k.task_index)
          from unnest(batch.run_ids, batch.step_slugs, batch.task_indexes) with ordinality k (run_id, step_slug, task_index, n)
          order by k.n
        ), send_claimed.lease, read_ct => 1)
      ) as m (run_id, step_slug, task_index, msg_id)
    );
  end loop;
  return messages;
end
$$;

-- The messages of tasks that are admitted, for any worker.
create function pgflow.send_admitted(tasks pgflow.slot_task[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(tasks) = 0 then
    return;
  end if;
  -- Not within the statement, since it changes tasks.
  perform pgflow.create_queue(f.queue_name)
  from (
    select distinct t.flow_slug
    from unnest(send_admitted.tasks) a join pgflow.step_tasks t using (run_id, step_slug, task_index)
  ) t
  join pgflow.flows f using (flow_slug)
  where to_regclass(format('pgmq.%I', 'q_' || f.queue_name)) is null;
  with
    task as (
      select a.n, t.run_id, t.step_slug, t.task_index, t.flow_slug, f.queue_name,
             (select r.priority from pgflow.runs r where r.run_id = t.run_id) as priority
      from unnest(send_admitted.tasks) with ordinality a (run_id, step_slug, task_index, slot_keys, slot_rank, is_child, n)
      join pgflow.step_tasks t using (run_id, step_slug, task_index)
      join pgflow.flows f using (flow_slug)
    ),
    batch as (
      select t.queue_name, t.priority,
             array_agg(t.run_id order by t.n) as run_ids, array_agg(t.step_slug order by t.n) as step_slugs,
             array_agg(t.task_index order by t.n) as task_indexes,
             array_agg(
               jsonb_build_object(
                 'flow_slug', t.flow_slug, 'run_id', t.run_id, 'step_slug', t.step_slug, 'task_index', t.task_index
               ) order by t.n
             ) as messages
      from task t
      group by t.queue_name, t.priority
    ),
    sent as materialized (
      select s.*
      from batch b
      cross join lateral rows from (
        unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), pgflow.send_messages(b.queue_name, b.messages, 0, b.priority)
      ) as s (run_id, step_slug, task_index, msg_id)
    )
  update pgflow.step_tasks t
  set status = 'queued', waits_for = null, message_id = s.msg_id, queued_at = send_admitted.as_of
  from sent s
  where (t.run_id, t.step_slug, t.task_index) = (s.run_id, s.step_slug, s.task_index);
  perform pgflow.notify_workers(array(select t.run_id from unnest(tasks) t));
end
$$;

-- Notes of the keys with a rate from when on they may admit the next task; of a rate that was raised, too.
create function pgflow.take_rates(admitted pgflow.slot_task[], rooms pgflow.slot_room[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pgflow.limit_keys as k (slot_key, next_at)
  select r.key, r.next_at + taken.tasks * r.spacing
  from unnest(take_rates.rooms) r
  cross join lateral (select count(*) as tasks from unnest(admitted) a where r.key = any (a.slot_keys)) taken
  where r.spacing is not null and (taken.tasks > 0 or r.next_at < (
    select k.next_at from pgflow.limit_keys k where k.slot_key = r.key
  ))
  on conflict on constraint limit_keys_pkey do update set next_at = excluded.next_at;
end
$$;

-- The keys of limits that tasks hold slots of, or wait for. Of the concurrency of a map, limit_slug is null, and value its run and
-- step.
--   select * from pgflow.limits_now where waiting > 0 order by oldest_waiting_since;
create view pgflow.limits_now
with (security_invoker = true)
as
select nullif(split_part(k.key, ':', 1), '') as limit_slug, substr(k.key, strpos(k.key, ':') + 1) as value, k.running,
       coalesce(l.running, (
         select s.opt_concurrency
         from pgflow.runs r join pgflow.steps s using (flow_slug)
         where k.key like ':_%' and r.run_id::text = split_part(k.key, ':', 2) and s.step_slug = split_part(k.key, ':', 3)
       )) as running_limit,
       l.rate_count, l.rate_period, k.waiting, k.oldest_waiting_since, k.key as slot_key
from (
  select key, count(*) filter (where t.waits_for is null or t.waits_for = 'run') as running,
         count(*) filter (where t.waits_for <> 'run') as waiting,
         min(t.queued_at) filter (where t.waits_for <> 'run') as oldest_waiting_since
  from pgflow.step_tasks t
  cross join unnest(t.slot_keys) key
  where t.slot_keys[1] is not null
  group by key
) k
left join pgflow.limits l on l.limit_slug = split_part(k.key, ':', 1);
comment on view pgflow.limits_now is
  'The keys of limits in use: how many tasks hold a slot (running), of how many, how many wait, and since when the oldest does.';
