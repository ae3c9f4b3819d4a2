-- Chapter 16: what has to be done from time to time, by a worker, by pg_cron or by hand.

-- Deletes up to `quantity` runs that ended before `older_than` ago, with everything under them; answers how many.
--   select pgflow.prune_runs(interval '30 days');
create function pgflow.prune_runs(older_than interval, quantity int default 10000)
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

-- Deletes what nobody needs any more: lapsed watches, workers not heard of for a day, archived messages older than
-- keep_archive, and, if keep_runs is given, runs that ended longer ago. Answers how many of each. Cheap enough for every
-- few minutes. While somebody else is at it, there is nothing left to do.
--   select cron.schedule('pgflow', '*/5 * * * *', $$ select pgflow.maintain(keep_runs => '30 days') $$);
create function pgflow.maintain(keep_runs interval default null, keep_archive interval default '7 days')
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  now timestamptz := pgflow.now();
  queue text;
  deleted bigint;
  runs bigint := 0;
  messages bigint := 0;
  workers bigint := 0;
  watches bigint := 0;
begin
  if pg_try_advisory_xact_lock(hashtextextended('pgflow.maintain', 0)) then
    if keep_runs is not null then
      runs := pgflow.prune_runs(keep_runs);
    end if;
    for queue in select f.queue_name from pgflow.flows f loop
      execute format('delete from pgmq.%I where archived_at < $1', 'a_' || queue) using now - keep_archive;
      get diagnostics deleted = row_count;
      messages := messages + deleted;
    end loop;
    delete from pgflow.workers w where w.last_heartbeat_at < now - interval '1 day';
    get diagnostics workers = row_count;
    -- The last thing, and never waiting: a run whose watch is held cannot be watched again, nor deleted.
    delete from pgflow.run_watches w
    where w.run_id = any (
      array(select lapsed.run_id from pgflow.run_watches lapsed where lapsed.watched_until < now for update skip locked)
    );
    get diagnostics watches = row_count;
  end if;
  return jsonb_build_object('runs', runs, 'messages', messages, 'workers', workers, 'watches', watches);
end
$$;
comment on function pgflow.maintain is 'Deletes lapsed watches, lost workers, old archived messages and, if asked, old runs.';
