-- Chapter 15: events are broadcast over Supabase Realtime, to make clients fast. It is never the source of truth.
--
-- Only runs that somebody watches are broadcast, since Realtime counts every message against the whole project's quota:
-- flows.broadcast says `watched` (default), `always` or `never`. Where there is no Realtime, the log alone remains.

-- Watches a run for five minutes. Once this returns, every transition that a later read does not show is broadcast:
-- a new watch waits for whoever is writing to the run at the moment.
create function pgflow.watch_run(run_id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  now timestamptz := pgflow.now();
begin
  if exists (
    select from pgflow.run_watches w where w.run_id = watch_run.run_id and w.watched_until > now + interval '4 minutes'
  ) then
    return;
  end if;
  perform from pgflow.runs r where r.run_id = watch_run.run_id and r.status = 'started' for share;
  if found then
    insert into pgflow.run_watches (run_id, watched_until)
    values (watch_run.run_id, now + interval '5 minutes')
    on conflict on constraint run_watches_pkey do update set watched_until = excluded.watched_until;
  end if;
end
$$;
comment on function pgflow.watch_run is 'Has a run''s events broadcast for the next five minutes.';

-- Broadcasts new events: one private message for each run, split where it would exceed 200 KB, all in one insert, each
-- row with its own microsecond. An event that is too large for that (a huge error or progress) is left for clients to
-- fetch. A failure here (no partition for today, a changed table) must not fail the transition.
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
  audience uuid[];
begin
  select array_agg(r.run_id) into audience
  from (select distinct n.run_id from new_rows n) changed
  join pgflow.runs r using (run_id)
  join pgflow.flows f using (flow_slug)
  where case f.broadcast
      when 'always' then true
      when 'watched' then exists (
        select from pgflow.run_watches w where w.run_id = r.run_id and w.watched_until > pgflow.now()
      )
      else false
    end;
  if audience is null or to_regclass('realtime.messages') is null then
    return null;
  end if;

  begin
    insert into realtime.messages (topic, event, payload, private, extension, inserted_at)
    select 'pgflow:run:' || m.run_id, 'run_events',
           jsonb_build_object('run_id', m.run_id, 'flow_slug', r.flow_slug, 'events', m.events),
           true, 'broadcast',
           (select clock_timestamp() at time zone 'utc')
           + row_number() over (order by m.run_id, m.part) * interval '1 microsecond'
    from (
      select e.run_id, e.part, jsonb_agg(e.event order by e.seq) as events
      from (
        select record.run_id, record.seq, record.event,
               (sum(size.bytes) over (partition by record.run_id order by record.seq) - size.bytes) / 150000 as part
        from (
          select n.run_id, n.seq, (
            select r.event from pgflow.run_event_records r where r.run_id = n.run_id and r.seq = n.seq
          ) as event
          from new_rows n
          where n.run_id = any (audience)
          offset 0 -- else the event is made anew wherever it is used
        ) record
        cross join lateral (select octet_length(record.event::text)) as size (bytes)
        where size.bytes < 48000
      ) e
      group by e.run_id, e.part
    ) m
    join pgflow.runs r using (run_id)
    order by m.run_id, m.part;
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
