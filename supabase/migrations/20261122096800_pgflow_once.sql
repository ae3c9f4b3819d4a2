-- Chapter 21: what a handler does once. Results are kept by name over the attempts of a task; its writes and its completion commit together.
--
-- Both are fenced by the attempt: what is not the task's current one gets PT409, and changes nothing.

-- Locks a task and raises unless this attempt has it.
create function pgflow.assert_attempt(run_id uuid, step_slug text, task_index int, attempt int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  task record;
begin
  if num_nulls(assert_attempt.run_id, assert_attempt.step_slug, assert_attempt.task_index, assert_attempt.attempt) > 0 then
    raise exception using
      errcode = 'PT400',
      message = 'run_id, step_slug, task_index or attempt is missing',
      hint = 'Give those of the claimed task; a handler has them in its context.';
  end if;
  select t.status, t.attempts_count into task
  from pgflow.step_tasks t
  where (t.run_id, t.step_slug, t.task_index) = (assert_attempt.run_id, assert_attempt.step_slug, assert_attempt.task_index)
  for no key update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('there is no task %s of step "%s" in run %s', task_index, step_slug, run_id),
      hint = 'The run may have been deleted. Give the ids of a claimed task.';
  end if;
  if task.status <> 'started' or task.attempts_count <> assert_attempt.attempt then
    raise exception using
      errcode = 'PT409',
      message = format('attempt %s of task %s of step "%s" in run %s is not its current one', attempt, task_index, step_slug, run_id),
      detail = format('The task is %s, and its last attempt is %s.', task.status, task.attempts_count),
      hint = 'Roll back and stop: whoever has the task now does its work, or nobody needs its result any more.';
  end if;
end
$$;

-- Keeps a result by a name, for this attempt of a task and for later ones, and answers with what is kept: the first value of a name
-- stays. A value has 1 MB of JSON at most; a task has 1,000 names and 32 MB.
--   select pgflow.keep_result('…', 'pay', 0, 1, 'charge', '{"id": "ch_1"}');
create function pgflow.keep_result(run_id uuid, step_slug text, task_index int, attempt int, name text, value jsonb)
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
  kept jsonb := coalesce(keep_result.value, 'null');
  size int := octet_length(kept::text);
  others record;
begin
  if length(keep_result.name) between 1 and 255 is not true then
    raise exception using
      errcode = 'PT400', message = 'the name of a kept result has not 1 to 255 characters', hint = 'Give it a short name.';
  end if;
  if size > 1048576 then
    raise exception using
      errcode = 'PT413',
      message = format('the result "%s" has %s bytes of JSON: at most 1048576 are kept', keep_result.name, size),
      hint = 'Store it elsewhere, for instance in Supabase Storage, and keep where it is.';
  end if;
  perform pgflow.assert_attempt(
    keep_result.run_id, keep_result.step_slug, keep_result.task_index, keep_result.attempt
  );
  select k.value into others
  from pgflow.kept_results k
  where (k.run_id, k.step_slug, k.task_index, k.name)
    = (keep_result.run_id, keep_result.step_slug, keep_result.task_index, keep_result.name);
  if found then
    return others.value;
  end if;
  select count(*) as names, coalesce(sum(k.bytes), 0) as bytes into others
  from pgflow.kept_results k
  where (k.run_id, k.step_slug, k.task_index) = (keep_result.run_id, keep_result.step_slug, keep_result.task_index);
  if others.names >= 1000 or others.bytes + size > 33554432 then
    raise exception using
      errcode = 'PT413',
      message = format('the result "%s" is too much: a task keeps 1000 results and 33554432 bytes at most', keep_result.name),
      detail = format('The task keeps %s results of %s bytes.', others.names, others.bytes),
      hint = 'Keep less, or store it elsewhere, for instance in Supabase Storage, and keep where it is.';
  end if;
  insert into pgflow.kept_results (run_id, step_slug, task_index, name, value, bytes, attempt, kept_at)
  values (
    keep_result.run_id, keep_result.step_slug, keep_result.task_index, keep_result.name, kept, size, keep_result.attempt, pgflow.now()
  );
  return kept;
end
$$;
comment on function pgflow.keep_result is
  'Keeps a result of a task by a name, unless one is kept already; answers with the one that is kept.';

-- What a task has kept, as {"<name>": value}.
--   select pgflow.kept_results_of('…', 'pay', 0);
create function pgflow.kept_results_of(run_id uuid, step_slug text, task_index int)
returns jsonb
language plpgsql
stable
security definer -- workers with a secret key have no rights on the tables
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return (
    select coalesce(jsonb_object_agg(k.name, k.value), '{}')
    from pgflow.kept_results k
    where (k.run_id, k.step_slug, k.task_index) = (kept_results_of.run_id, kept_results_of.step_slug, kept_results_of.task_index)
  );
end
$$;
comment on function pgflow.kept_results_of is 'The kept results of a task, by their names.';

-- Completes a task in the caller's transaction, with which it commits or rolls back: the caller's writes and the completion happen
-- both or not at all. It holds the run's lock until then, so it comes last. Above `read committed` it raises a serialization failure
-- if the run has gone on since the transaction's snapshot. The session is a user's: whatever its planner settings are, they have no effect
-- here, and stay.
--   begin;
--   insert into public.orders …;
--   select pgflow.complete_in_transaction('…', 'pay', 0, 1, '{"paid": true}');
--   commit;
create function pgflow.complete_in_transaction(run_id uuid, step_slug text, task_index int, attempt int, output jsonb)
returns void
language plpgsql
security definer -- functions that users call with a secret key complete tasks, too
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_indexscan = on
set enable_indexonlyscan = on
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_nestloop = on
set enable_mergejoin = off
set enable_material = off
set join_collapse_limit = 1
set jit = off
as $$
declare
  result pgflow.task_result;
  results jsonb := jsonb_build_array(jsonb_build_object('output', complete_in_transaction.output));
  violated text;
begin
  result.run_id := complete_in_transaction.run_id;
  result.step_slug := complete_in_transaction.step_slug;
  result.task_index := complete_in_transaction.task_index;
  result.attempt := complete_in_transaction.attempt;
  if num_nulls(run_id, step_slug, task_index, attempt) > 0 then
    perform pgflow.assert_attempt(run_id, step_slug, task_index, attempt);
  end if;
  if current_setting('transaction_isolation') = 'read committed' then
    perform pgflow.settle(array[result], outputs => results);
  else
    -- An event that this snapshot does not see has the next number.
    begin
      perform pgflow.settle(array[result], outputs => results);
    exception
      when unique_violation then
        get stacked diagnostics violated = constraint_name;
        if violated <> 'run_events_pkey' then
          raise;
        end if;
        raise exception using
          errcode = '40001',
          message = format('could not complete a task of run %s, which has gone on since this transaction began', run_id),
          hint = 'Repeat the transaction.';
    end;
  end if;
  if not found then
    perform pgflow.assert_attempt(run_id, step_slug, task_index, attempt);
    raise exception using
      errcode = 'PT409',
      message = format('run %s has ended', run_id),
      hint = 'Roll back and stop: nobody needs the result any more.';
  end if;
end
$$;
comment on function pgflow.complete_in_transaction is
  'Completes a task with the caller''s transaction; raises PT409 unless the attempt is its current one.';

-- Deletes what tasks have kept that will not run again: completed ones, and those of completed runs; a failed or cancelled run may be
-- retried, and keeps it until it is deleted. It looks at up to `quantity` kept results, from a place by chance on, and answers how many it
-- has deleted.
create function pgflow.prune_kept_results(quantity int default 10000)
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
  place uuid;
  deleted bigint;
begin
  -- Between the first run and the last one: ids of runs begin with their time.
  select (lpad(to_hex(first.at + floor(random() * (last.at - first.at + 1))::bigint), 12, '0') || repeat('0', 20))::uuid into place
  from (select k.run_id from pgflow.kept_results k order by k.run_id limit 1) lowest
  cross join (select k.run_id from pgflow.kept_results k order by k.run_id desc limit 1) highest
  cross join lateral (select ('x' || left(translate(lowest.run_id::text, '-', ''), 12))::bit(48)::bigint) as first (at)
  cross join lateral (select ('x' || left(translate(highest.run_id::text, '-', ''), 12))::bit(48)::bigint) as last (at);
  with
    looked as materialized (
      (
        select k.run_id, k.step_slug, k.task_index, k.name from pgflow.kept_results k
        where k.run_id >= place
        order by k.run_id, k.step_slug, k.task_index, k.name
        limit quantity
      )
      union all
      (
        select k.run_id, k.step_slug, k.task_index, k.name from pgflow.kept_results k
        where k.run_id < place
        order by k.run_id, k.step_slug, k.task_index, k.name
        limit quantity
      )
      limit quantity
    ),
    unneeded as materialized (
      select l.* from looked l
      left join pgflow.step_tasks t using (run_id, step_slug, task_index)
      where t.status is null or t.status = 'completed' or (
        select r.status from pgflow.runs r where r.run_id = l.run_id
      ) = 'completed'
    ),
    locked as materialized (
      select k.run_id, k.step_slug, k.task_index, k.name
      from unneeded u
      join pgflow.kept_results k using (run_id, step_slug, task_index, name)
      for update of k skip locked -- a run that is being deleted
    )
  delete from pgflow.kept_results k
  using locked l
  where (k.run_id, k.step_slug, k.task_index, k.name) = (l.run_id, l.step_slug, l.task_index, l.name);
  get diagnostics deleted = row_count;
  return deleted;
end
$$;
