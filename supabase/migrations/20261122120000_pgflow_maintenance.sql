-- Chapter 27: what has to be done from time to time, by pg_cron or by hand.
--
-- Each call is one small transaction, so that nothing is locked for long; whoever has much to delete calls often.

-- Deletes up to `quantity` runs that ended before `older_than` ago, with everything under them; answers how many. Children are kept as long as
-- their parent goes on, a run while it is undone, and the run that undoes another as long as that is there.
--   select pgflow.prune_runs(interval '30 days');
create function pgflow.prune_runs(older_than interval, quantity int default 1000)
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
  with
    cutoff as (select pgflow.now() - prune_runs.older_than as at),
    ended as (
      select r.run_id
      from pgflow.flows f
      cross join cutoff c
      cross join lateral (
        select r.run_id from pgflow.runs r
        where r.flow_slug = f.flow_slug
          and r.started_at < c.at
          and coalesce(r.completed_at, r.failed_at, r.cancelled_at) < c.at
          and (r.undoes is null or not exists (select from pgflow.runs undone where undone.run_id = r.undoes))
          and (f.undo_flow is null or not pgflow.is_being_undone(r))
          and (r.depth = 0 or not exists (
            select from pgflow.runs parent where parent.run_id = r.parent_run_id and parent.status = 'started'
          ))
        order by r.started_at
        limit prune_runs.quantity
        for update skip locked
      ) r
      limit prune_runs.quantity
    ),
    pruned as (
      delete from pgflow.runs r using ended e where r.run_id = e.run_id returning r.run_id
    )
  select count(*) from pruned
$$;
comment on function pgflow.prune_runs is 'Deletes runs that ended longer ago than an interval, with all that belongs to them.';

-- Deletes up to `quantity` archived messages that are older than `older_than`, of any flows; answers how many.
create function pgflow.prune_archives(older_than interval, quantity int default 10000)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  queue text;
  deleted bigint;
  total bigint := 0;
begin
  for queue in select f.queue_name from pgflow.flows f loop
    exit when total >= quantity;
    begin
      execute format('
        delete from pgmq.%1$I a
        where a.msg_id = any (array(select old.msg_id from pgmq.%1$I old where old.archived_at < $1 limit $2))
      ', 'a_' || queue) using pgflow.now() - older_than, quantity - total;
      get diagnostics deleted = row_count;
      total := total + deleted;
    exception
      when undefined_table then null; -- the queue is lost, or its flow is being deleted
    end;
  end loop;
  return total;
end
$$;

-- When `maintain` last looked for lost messages, in seconds since 1970. A sequence, since it is set without a lock.
create sequence pgflow.last_repair;

-- Settles and starts what is due, for projects in which no worker does. Deletes what nobody needs any more: lapsed watches, workers not heard
-- of for a day, archived messages older than keep_archive, and, if keep_runs is given, runs that ended longer ago; every five
-- minutes also kept results of tasks that have completed, and it repairs queues. Answers how many of each. It ends after about `budget`, and `left` says whether anything may be left. While somebody else is at
-- it, there is nothing to do.
--   select cron.schedule('pgflow', '10 seconds', $$ select pgflow.maintain(keep_runs => '30 days') $$);
create function pgflow.maintain(
  keep_runs interval default null,
  keep_archive interval default '7 days',
  budget interval default '1 second'
)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  as_of timestamptz := pgflow.now();
  deadline timestamptz := clock_timestamp() + budget;
  pruned bigint;
  archived bigint;
  resent bigint := 0;
  runs bigint := 0;
  messages bigint := 0;
  workers bigint := 0;
  watches bigint := 0;
  due bigint := 0;
  kept_results bigint := 0;
  ticked record;
  is_left boolean := false;
begin
  if pg_try_advisory_xact_lock(hashtextextended('pgflow.maintain', 0)) then
    if extract(epoch from as_of) - (select s.last_value from pgflow.last_repair s) not between 0 and 300 then
      perform setval('pgflow.last_repair', greatest(1, extract(epoch from as_of)::bigint));
      resent := (select r.messages from pgflow.repair(10000) r);
      if resent >= 10000 then
        perform setval('pgflow.last_repair', 1); -- the next call goes on
      end if;
      perform pgflow.recheck_limit();
      perform pgflow.recheck_children();
      perform pgflow.recheck_calls();
      kept_results := pgflow.prune_kept_results();
    end if;
    loop
      pruned := case when keep_runs is null then 0 else pgflow.prune_runs(keep_runs) end;
      archived := case when keep_archive is null then 0 else pgflow.prune_archives(keep_archive) end;
      runs := runs + pruned;
      messages := messages + archived;
      is_left := pruned >= 1000 or archived >= 10000;
      exit when not is_left or clock_timestamp() >= deadline;
    end loop;
    delete from pgflow.workers w where w.last_heartbeat_at < as_of - interval '1 day';
    get diagnostics workers = row_count;
    -- The last thing, and never waiting: a run whose watch is held cannot be watched again, nor deleted.
    delete from pgflow.run_watches w
    where (w.run_id, w.topic) in (
      select lapsed.run_id, lapsed.topic from pgflow.run_watches lapsed where lapsed.watched_until < as_of for update skip locked
    );
    get diagnostics watches = row_count;
    delete from pgflow.inbox_watches w
    where w.topic in (select lapsed.topic from pgflow.inbox_watches lapsed where lapsed.watched_until < as_of for update skip locked);
  end if;
  -- Last, since it keeps others from admitting tasks of the keys that it looks at.
  loop
    ticked := pgflow.tick();
    due := due + ticked.settled;
    exit when ticked.settled < 1000 or clock_timestamp() >= deadline;
  end loop;
  return jsonb_build_object(
    'runs', runs, 'messages', messages, 'workers', workers, 'watches', watches, 'resent', resent, 'due', due, 'kept_results', kept_results,
    'left', is_left or resent >= 10000
  );
end
$$;
comment on function pgflow.maintain is
  'Settles what is due, repairs queues, deletes lapsed watches, lost workers, old archived messages and, if asked, old runs, within a time budget.';
