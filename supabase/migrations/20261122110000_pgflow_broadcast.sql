-- Chapter 26: events are broadcast over Supabase Realtime, to make clients fast. It is never the source of truth.
--
-- Only runs that somebody watches are broadcast, since Realtime counts every message against the whole project's quota:
-- flows.broadcast says `watched` (default), `always` or `never`. Where there is no Realtime, the log alone remains.
--
-- A watch names the topic to which events are sent: one for each user (or client with a secret key), not one for each run.
-- Realtime allows 100 channels a socket, and each of them costs a join.

-- Watches runs for five minutes, for whoever has joined the topic. A new watch waits for those who are writing to the run at
-- the moment: every transition that a later read does not show is broadcast. With `waits => false`, such runs are not watched
-- yet, and returned: ask again for those.
create function pgflow.watch_runs(run_ids uuid[], topic text, waits boolean default true)
returns uuid[]
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
  as_of timestamptz := pgflow.now();
  aging uuid[];
  unwatched uuid[];
  free uuid[];
begin
  if watch_runs.topic is null then
    return '{}';
  end if;

  -- Those of which a minute has passed. One that somebody else holds is being renewed, or deleted. Each run is looked up by
  -- itself, whatever the planner believes of this table, which is empty when nobody looks.
  aging := array(
    select asked.run_id
    from unnest(watch_runs.run_ids) asked (run_id)
    cross join lateral (
      select from pgflow.run_watches w
      where w.run_id = asked.run_id and w.topic = watch_runs.topic
        and (w.watched_until > as_of and w.watched_until <= as_of + interval '4 minutes') is true
      limit 1
      for no key update skip locked
    ) lasting
  );
  if cardinality(aging) > 0 then
    update pgflow.run_watches w set watched_until = as_of + interval '5 minutes'
    where w.run_id = any (aging) and w.topic = watch_runs.topic;
  end if;

  unwatched := array(
    select r.run_id
    from unnest(watch_runs.run_ids) asked (run_id)
    join pgflow.runs r using (run_id)
    where r.status = 'started' and (
      select w.watched_until > as_of from pgflow.run_watches w where w.run_id = r.run_id and w.topic = watch_runs.topic
    ) is not true
  );
  if cardinality(unwatched) = 0 then
    return '{}';
  end if;
  if watch_runs.waits then
    free := array(
      select r.run_id from pgflow.runs r where r.run_id = any (unwatched) and r.status = 'started' order by r.run_id for share
    );
  else
    free := array(
      select r.run_id from pgflow.runs r where r.run_id = any (unwatched) and r.status = 'started'
      order by r.run_id for share skip locked
    );
  end if;
  insert into pgflow.run_watches (run_id, topic, watched_until)
  select u.run_id, watch_runs.topic, as_of + interval '5 minutes' from unnest(free) u (run_id)
  on conflict on constraint run_watches_pkey do update set watched_until = excluded.watched_until;

  return array(select u.run_id from unnest(unwatched) u (run_id) except select f.run_id from unnest(free) f (run_id));
end
$$;
comment on function pgflow.watch_runs is 'Has the events of runs sent to a topic for the next five minutes.';

-- What versions before 3 called to watch a run: a call that is under way during the upgrade ends without an error.
create function pgflow.watch_run(run_id uuid)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
end
$$;

-- Broadcasts new events: one private message for each topic, split where it would exceed 200 KB, all in one insert, each row
-- with its own microsecond, and with an id that follows the time, so that it does not touch a random page of the key's index.
-- An event that is too large for that (a huge error or progress) is left for clients to fetch; its run comes all the same. A
-- failure here (no partition for today, a changed table) must not fail the transition.
create function pgflow.tg_run_events__after_insert()
returns trigger
language plpgsql
security definer -- row level security closes realtime.messages to whoever caused the transition
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
  as_of timestamptz := pgflow.now();
begin
  if not exists (select from pgflow.run_watches w where w.watched_until > as_of)
     and not exists (select from pgflow.flows f where f.broadcast = 'always')
     or to_regclass('realtime.messages') is null
  then
    return null;
  end if;

  begin
    insert into realtime.messages (id, topic, event, payload, private, extension, inserted_at)
    select (pgflow.new_run_ids())[1], message.topic, 'run_events', jsonb_build_object('runs', message.runs), true, 'broadcast',
           (select clock_timestamp() at time zone 'utc')
           + row_number() over (order by message.topic, message.part) * interval '1 microsecond'
    from (
      select run.topic, run.part,
             jsonb_agg(
               jsonb_build_object('run_id', run.run_id, 'flow_slug', run.flow_slug, 'events', coalesce(run.events, '[]'))
               order by run.run_id
             ) as runs
      from (
        select part.topic, part.part, part.run_id, part.flow_slug,
               jsonb_agg(part.event order by part.seq) filter (where part.event is not null) as events
        from (
          select fitting.*,
                 (sum(fitting.bytes) over (partition by fitting.topic order by fitting.run_id, fitting.seq) - fitting.bytes)
                 / 150000 as part
          from (
            select record.topic, record.run_id, record.flow_slug, record.seq,
                   case when whole.bytes < 48000 then record.event end as event,
                   case when whole.bytes < 48000 then whole.bytes else 0 end
                   + case
                       when lag(record.run_id) over (partition by record.topic order by record.run_id, record.seq)
                            is distinct from record.run_id
                       then 100 + length(record.flow_slug) -- what surrounds the events of a run
                       else 2
                     end as bytes
            from (
              select target.topic, r.run_id, r.flow_slug, n.seq, (
                select shown.event from pgflow.run_event_records shown where shown.run_id = n.run_id and shown.seq = n.seq
              ) as event
              from new_rows n
              join pgflow.runs r using (run_id)
              join pgflow.flows f using (flow_slug)
              cross join lateral (
                select 'pgflow:run:' || r.run_id where f.broadcast = 'always'
                union all
                select w.topic from pgflow.run_watches w
                where w.run_id = r.run_id and (w.watched_until > as_of) is true and f.broadcast <> 'never'
              ) as target (topic)
              offset 0 -- else the event is made anew wherever it is used
            ) record
            cross join lateral (select octet_length(record.event::text)) as whole (bytes)
          ) fitting
        ) part
        group by part.topic, part.part, part.run_id, part.flow_slug
      ) run
      group by run.topic, run.part
    ) message
    order by message.topic, message.part;
  exception
    when others then
      raise warning 'pgflow could not broadcast: %', sqlerrm;
  end;
  return null;
end
$$;

create trigger _900_broadcast after insert on pgflow.run_events
  referencing new table as new_rows
  for each statement execute function pgflow.tg_run_events__after_insert();
