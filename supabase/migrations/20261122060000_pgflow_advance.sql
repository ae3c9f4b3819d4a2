-- Chapter 12: runs move forward.
--
-- Whatever closes a step goes through `advance`, which works in waves until nothing changes: a wave closes and starts
-- steps in one update (so it makes one message a run), and decides what becomes of those whose deps are closed now.
-- Skips, empty maps and conditions so reach one fix-point together. Callers hold the runs' locks.

-- What a step works on: its combined input {"run": …, "<dep>": …} over completed deps, and a map's array of items.
create view pgflow.step_inputs
with (security_invoker = true)
as
select ss.run_id, ss.step_slug,
       jsonb_build_object('run', r.input) || coalesce(
         (
           select jsonb_object_agg(d.dep_slug, dep.output)
           from pgflow.deps d
           join pgflow.step_states dep on dep.run_id = ss.run_id and dep.step_slug = d.dep_slug
           where d.flow_slug = ss.flow_slug and d.step_slug = ss.step_slug and dep.status = 'completed'
         ),
         '{}'
       ) as input,
       (
         select case s.map_source
           when 'run' then r.input
           else (
             select source.output from pgflow.step_states source
             where source.run_id = ss.run_id and source.step_slug = s.map_source and source.status = 'completed'
           )
         end #> coalesce(string_to_array(s.map_path, '.'), '{}')
         from pgflow.steps s
         where s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
       ) as items
from pgflow.step_states ss
join pgflow.runs r using (run_id);
comment on view pgflow.step_inputs is 'The inputs of steps as their deps stand, and the items of maps.';

create type pgflow.step_change as (
  run_id uuid,
  flow_slug text,
  step_slug text,
  change text,
  result_n bigint,
  error text,
  skip_reason text,
  cascade boolean,
  tasks int,
  items int,
  retries int,
  retry_at timestamptz,
  waits_for text,
  due_at timestamptz
);
comment on type pgflow.step_change is
  'What happens to a step: completed, failed, skipped (cascade: its dependents too), started with tasks of items (a wait or sleep: what it waits for, until when), or working: tasks completed, retries; turned, of a loop that goes on: tasks done, of items at most. result_n is the place of the result with the output of a completed step; it is null where its tasks have the output.';

-- Applies changes and all that follows from them. `started` are steps that have started already, and get their tasks, as loops that
-- have turned get their next one;
-- messages are visible after `delay` seconds. `outputs` has the results that the changes name.
create function pgflow.advance(
  changes pgflow.step_change[],
  as_of timestamptz,
  started pgflow.step_key[] default '{}',
  delay int default 0,
  outputs jsonb default '[]'
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  wave pgflow.step_change[] := changes;
  applied pgflow.step_change[] := '{}';
  started_now pgflow.step_key[];
  ready pgflow.step_key[];
  closes boolean;
  failed_runs uuid[];
  exhausted pgflow.step_key[];
begin
  while cardinality(wave) > 0 loop
    select c.started, c.ready into started_now, ready from pgflow.change_steps(wave, outputs, as_of) c;
    started := started || started_now;
    applied := applied || wave;
    wave := case when ready is not null then pgflow.decide(ready, as_of, delay) end
      || case when exists (select from unnest(wave) w where w.cascade) then pgflow.cascade_skips(wave) end;
  end loop;
  if cardinality(started) > 0 then
    perform pgflow.create_tasks(started, as_of, delay);
    perform pgflow.notify_workers(array(select s.run_id from unnest(started) s));
  end if;
  if cardinality(applied) = 0 then
    return;
  end if;
  select bool_or(a.change in ('completed', 'failed', 'skipped')),
         array_agg(distinct a.run_id) filter (where a.change = 'failed'),
         array_agg(row(a.run_id, a.step_slug)::pgflow.step_key) filter (where a.skip_reason = 'attempts_exhausted')
  into closes, failed_runs, exhausted
  from unnest(applied) a;
  if closes then
    perform pgflow.close_tasks(coalesce(failed_runs, '{}'), coalesce(exhausted, '{}'));
    perform pgflow.end_runs(applied, as_of);
  end if;
end
$$;

-- One wave: the steps that change, their dependents, and everything that is open in a run that fails, in one update.
-- Answers with the steps that have started, and those whose deps are all closed now and that have to be decided. What a change
-- writes; other columns stay as they are:
--
--   change     status     remaining_deps  remaining_tasks  initial_tasks  values                        time
--   freed      created    less deps
--   started    started    less deps       tasks            items          error = null; of waits and    started_at, if null
--                                                                         sleeps waits_for, due_at
--   working    started                    less tasks                      progress; of retries: error,
--                                                                         retries, retry_at
--   turned     started                                     plus 1         progress; if limited, waits_for
--   completed  completed                  0                0, if null     output, error = null          started_at, if null;
--                                                                                                       completed_at
--   failed     failed                                                     error                         failed_at
--   skipped    skipped                                                    error, skip_reason            skipped_at
--   cancelled  cancelled
create function pgflow.change_steps(
  changes pgflow.step_change[],
  outputs jsonb,
  as_of timestamptz,
  out started pgflow.step_key[],
  out ready pgflow.step_key[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with
    change as (
      select c.*, bool_or(c.change = 'failed') over (partition by c.run_id) as run_fails
      from unnest(change_steps.changes) c
    ),
    freed as (
      select c.run_id, c.flow_slug, d.step_slug, count(*)::int as deps
      from change c
      join pgflow.deps d on d.flow_slug = c.flow_slug and d.dep_slug = c.step_slug
      where not c.run_fails
        and (c.change = 'completed' or c.change = 'skipped' and not c.cascade)
      group by c.run_id, c.flow_slug, d.step_slug
    ),
    candidate as (
      select 1 as rank, c.run_id, c.step_slug, c.change, c.result_n, c.error, c.skip_reason, c.tasks, c.items, c.retries,
             c.retry_at, c.waits_for, c.due_at, 0 as deps
      from change c
      where not c.run_fails or c.change in ('completed', 'failed', 'skipped')
      union all
      select 2, f.run_id, f.step_slug,
             case when s.is_plain and ss.remaining_deps = f.deps then 'started' else 'freed' end,
             null, null, null, 1, 1, 0, null, null, null, f.deps
      from freed f
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s on s.flow_slug = f.flow_slug and s.step_slug = f.step_slug
      where ss.status = 'created'
      union all
      select 3, ss.run_id, ss.step_slug, 'cancelled', null, null, null, 0, 0, 0, null, null, null, 0
      from (select distinct c.run_id from change c where c.run_fails) failing
      join pgflow.step_states ss using (run_id)
      where ss.status in ('created', 'started')
    ),
    -- A step that changes by itself is not also freed or cancelled.
    next as (
      select distinct on (c.run_id, c.step_slug) c.* from candidate c order by c.run_id, c.step_slug, c.rank
    ),
    updated as (
      update pgflow.step_states ss
      set status = case when n.change = 'freed' then 'created' when n.change in ('working', 'turned') then 'started' else n.change end,
          remaining_deps = ss.remaining_deps - n.deps,
          initial_tasks = case n.change
            when 'started' then n.items
            when 'completed' then coalesce(ss.initial_tasks, 0)
            when 'turned' then ss.initial_tasks + 1
            else ss.initial_tasks
          end,
          remaining_tasks = case n.change
            when 'started' then n.tasks
            when 'completed' then 0
            when 'working' then ss.remaining_tasks - n.tasks
            else ss.remaining_tasks
          end,
          -- Of a map at most 20 times, and not at its end.
          progress = case
            when n.change = 'turned' then jsonb_build_object('done', n.tasks, 'total', n.items)
            when n.change = 'working'
             and 20 * (ss.initial_tasks - ss.remaining_tasks + n.tasks) / ss.initial_tasks
               > 20 * (ss.initial_tasks - ss.remaining_tasks) / ss.initial_tasks
            then jsonb_build_object('done', ss.initial_tasks - ss.remaining_tasks + n.tasks, 'total', ss.initial_tasks)
            else ss.progress
          end,
          output = case
            when n.change <> 'completed' then null
            when n.result_n is null then pgflow.output_of_tasks(ss.run_id, ss.flow_slug, ss.step_slug)
            else coalesce(outputs -> (n.result_n - 1)::int -> 'output', 'null')
          end,
          error = case
            when n.change in ('freed', 'turned', 'cancelled') or n.change = 'working' and n.retries = 0 then ss.error
            else n.error
          end,
          skip_reason = n.skip_reason,
          retries = ss.retries + coalesce(n.retries, 0),
          retry_at = coalesce(n.retry_at, ss.retry_at),
          waits_for = coalesce(n.waits_for, ss.waits_for),
          due_at = coalesce(n.due_at, ss.due_at),
          started_at = case when n.change in ('started', 'completed') then coalesce(ss.started_at, as_of) else ss.started_at end,
          completed_at = case n.change when 'completed' then as_of end,
          failed_at = case n.change when 'failed' then as_of end,
          skipped_at = case n.change when 'skipped' then as_of end
      from next n
      where (ss.run_id, ss.step_slug) = (n.run_id, n.step_slug)
      returning ss.run_id, ss.step_slug, n.change, ss.remaining_deps
    )
  select array_agg(row(u.run_id, u.step_slug)::pgflow.step_key) filter (where u.change in ('started', 'turned')),
         array_agg(row(u.run_id, u.step_slug)::pgflow.step_key) filter (where u.change = 'freed' and u.remaining_deps = 0)
  into started, ready
  from updated u;
end
$$;

-- The output of a step that completes without a result: of a map its items' outputs, in their order, or what became of each where it
-- collects failures; of a loop that of its last turn; of a wait the value that it was completed with before it began; else null.
create function pgflow.output_of_tasks(run_id uuid, flow_slug text, step_slug text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  when_item_fails text := (
    select s.when_item_fails from pgflow.steps s
    where s.flow_slug = output_of_tasks.flow_slug and s.step_slug = output_of_tasks.step_slug and s.step_type = 'map'
  );
begin
  if when_item_fails = 'fail' then
    return (
      select coalesce(jsonb_agg(t.output order by t.task_index), '[]')
      from pgflow.step_tasks t
      where t.run_id = output_of_tasks.run_id and t.step_slug = output_of_tasks.step_slug
    );
  elsif when_item_fails = 'collect' then
    return (
      select coalesce(jsonb_agg(case t.status
               when 'completed' then jsonb_build_object('status', 'completed', 'value', t.output)
               else jsonb_build_object('status', 'failed', 'error', pgflow.item_error(t.step_slug, t.error_message))
             end order by t.task_index), '[]')
      from pgflow.step_tasks t
      where t.run_id = output_of_tasks.run_id and t.step_slug = output_of_tasks.step_slug
    );
  end if;
  return coalesce((
    select t.output from pgflow.step_tasks t
    where t.run_id = output_of_tasks.run_id and t.step_slug = output_of_tasks.step_slug and t.status = 'completed'
    order by t.task_index desc
    limit 1
  ), 'null');
end
$$;

-- The error of a map's item, without the name of its step, with which a worker begins it.
create function pgflow.item_error(step_slug text, error text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  prefix text := format('step "%s" failed: ', step_slug);
begin
  return case when starts_with(error, prefix) then substr(error, length(prefix) + 1) else error end;
end
$$;

-- What becomes of steps whose deps are all closed: their conditions are looked at, a map's items, and what waits wait for. `delay`
-- is that of runs that start.
create function pgflow.decide(ready pgflow.step_key[], as_of timestamptz, delay int default 0)
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  changes pgflow.step_change[];
begin
  if ready is null then
    return '{}'; -- as mostly: a plain step starts without a decision
  end if;
  changes := (
    -- With offset 0: else each value is looked up wherever it is used, by two hundred parts of a plan.
    with
      step as (
        select s.*, ss.run_id,
               case when s.run_if is not null or s.run_unless is not null then (
                 select i.input from pgflow.step_inputs i where i.run_id = ss.run_id and i.step_slug = ss.step_slug
               ) end as input,
               case when s.step_type = 'map' then (
                 select i.items from pgflow.step_inputs i where i.run_id = ss.run_id and i.step_slug = ss.step_slug
               ) end as items
        from unnest(decide.ready) k
        join pgflow.step_states ss using (run_id, step_slug)
        join pgflow.steps s using (flow_slug, step_slug)
        where ss.status = 'created'
        offset 0
      ),
      judged as (
        select s.*,
               (s.run_if is null or s.input @> s.run_if) and (s.run_unless is null or not s.input @> s.run_unless) as is_met,
               case
                 when s.step_type = 'loop' then kept.tasks + 1
                 when s.step_type <> 'map' then 1
                 when jsonb_typeof(s.items) = 'array' then jsonb_array_length(s.items)
               end as total,
               s.items is null and exists (
                 select from pgflow.step_states source
                 where source.run_id = s.run_id and source.step_slug = s.map_source and source.status = 'skipped'
               ) as has_no_source,
               kept.tasks as kept
        from step s
        -- Where the run was retried, completed items and turns are kept; a wait may be completed before it begins.
        cross join lateral (
          select count(*)::int as tasks from pgflow.step_tasks t
          where t.run_id = s.run_id and t.step_slug = s.step_slug and t.status = 'completed'
        ) kept
        offset 0
      ),
      decided as (
        select j.*, case
          when not j.is_met then case j.when_unmet when 'fail' then 'failed' else 'skipped' end
          when j.total is null and not j.has_no_source then 'failed'
          when coalesce(j.total, 0) = j.kept then 'completed'
          when j.kept >= j.loop_max then case j.when_exceeded when 'complete' then 'completed' else 'failed' end
          when j.step_type in ('wait', 'sleep') then 'waiting'
          else 'started'
        end as change
        from judged j
        offset 0
      )
    select coalesce(array_agg(row(c.*)::pgflow.step_change), '{}')
    from decided d
    cross join lateral (
      select d.run_id, d.flow_slug, d.step_slug, d.change,
             null::bigint as result_n,
             case
               when d.change <> 'failed' then null
               when not d.is_met then format('step "%s" does not run: its condition is not met', d.step_slug)
               when d.step_type = 'loop' then pgflow.error_of_loop(d.step_slug, d.kept)
               else format('step "%s" cannot map %s: it is %s, not an array', d.step_slug,
                 concat_ws('.', d.map_source, d.map_path), coalesce(jsonb_typeof(d.items), 'missing'))
             end as error,
             case d.change when 'skipped' then 'condition_unmet' end as skip_reason,
             d.change = 'skipped' and d.when_unmet = 'skip-cascade' as cascade,
             case when d.change in ('started', 'waiting') then d.total - d.kept when d.change = 'completed' then 0 end as tasks,
             case when d.change in ('started', 'waiting') then d.total when d.change = 'completed' then 0 end as items,
             0 as retries,
             null::timestamptz as retry_at,
             case
               when d.change <> 'started' then null
               when d.is_limited and d.step_type <> 'map' then 'slot'
               when d.child_flow is not null and d.step_type = 'single' then 'run'
               when d.step_type = 'sql' then 'sql'
             end as waits_for,
             null::timestamptz as due_at
    ) c
  );
  if exists (select from unnest(changes) c where c.change = 'waiting') then
    return pgflow.begin_waits(changes, as_of, delay);
  end if;
  return changes;
end
$$;

-- The dependents of steps that were skipped with all that depends on them.
create function pgflow.cascade_skips(changes pgflow.step_change[])
returns pgflow.step_change[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array_agg(distinct row(skipped.*)::pgflow.step_change), '{}')
    from unnest(cascade_skips.changes) c
    join pgflow.deps d on d.flow_slug = c.flow_slug and d.dep_slug = c.step_slug
    join pgflow.step_states ss on ss.run_id = c.run_id and ss.step_slug = d.step_slug
    cross join lateral (
      select c.run_id, c.flow_slug, d.step_slug, 'skipped' as change, null::bigint as result_n, null as error,
             'dep_skipped' as skip_reason, true as cascade, null::int as tasks, null::int as items, 0 as retries,
             null::timestamptz as retry_at,
             null::text as waits_for,
             null::timestamptz as due_at
    ) skipped
    where c.change = 'skipped' and c.cascade and ss.status = 'created'
  );
end
$$;

-- Creates the tasks of steps that have started at `now`, one for each item of a map, the next turn of a loop, and sends their messages, visible
-- after the steps' own delay plus `delay` seconds. Nearly always all of them are single steps that have never had one.
create function pgflow.create_tasks(steps pgflow.step_key[], as_of timestamptz, delay int default 0)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  created bigint;
begin
  with
    step as (
      select ss.run_id, s.step_slug, s.step_index, s.flow_slug, f.queue_name,
             least(2147483647, coalesce(s.opt_start_delay, 0)::bigint + create_tasks.delay)::int as delay,
             -- All runs are looked up at once, in a fourth of the time; most are normal.
             coalesce((
               select jsonb_object_agg(r.run_id, r.priority)
               from pgflow.runs r
               where r.run_id = any (array(select k.run_id from unnest(create_tasks.steps) k)) and r.priority <> 'normal'
             ) ->> ss.run_id::text, 'normal') as priority
      from unnest(create_tasks.steps) k
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s using (flow_slug, step_slug)
      join pgflow.flows f using (flow_slug)
      where ss.status = 'started' and s.step_type = 'single' and s.child_flow is null and not s.is_limited and s.opt_deadline is null and (
        select t.status from pgflow.step_tasks t
        where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.task_index = 0
      ) is null
    ),
    batch as (
      select s.queue_name, s.delay, s.priority, s.flow_slug,
             array_agg(s.run_id order by s.run_id, s.step_index) as run_ids,
             array_agg(s.step_slug order by s.run_id, s.step_index) as step_slugs,
             array_agg(
               jsonb_build_object('flow_slug', s.flow_slug, 'run_id', s.run_id, 'step_slug', s.step_slug, 'task_index', 0)
               order by s.run_id, s.step_index
             ) as messages
      from step s
      where (select count(*) from step) = cardinality(create_tasks.steps)
      group by s.queue_name, s.delay, s.priority, s.flow_slug
    )
  insert into pgflow.step_tasks (run_id, step_slug, task_index, flow_slug, message_id, queued_at)
  select t.run_id, t.step_slug, 0, b.flow_slug, t.msg_id, create_tasks.as_of
  from batch b
  cross join lateral rows from (
    unnest(b.run_ids), unnest(b.step_slugs), pgflow.send_messages(b.queue_name, b.messages, b.delay, b.priority)
  ) as t (run_id, step_slug, msg_id);
  get diagnostics created = row_count;
  if created = 0 then
    perform pgflow.create_other_tasks(create_tasks.steps, create_tasks.as_of, create_tasks.delay);
  end if;
end
$$;

-- The tasks that a step of a run needs next, with their inputs: one, or of a map one for each item that has not completed. A loop needs its
-- next turn, whose input is the output of the last one; or that one again, if it has failed.
create function pgflow.items_of(run_id uuid, step pgflow.steps)
returns table (task_index int, input jsonb)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  if step.step_type = 'map' then
    return query
      select e.n::int - 1, e.item
      from jsonb_array_elements((
        select i.items from pgflow.step_inputs i where i.run_id = items_of.run_id and i.step_slug = step.step_slug
      )) with ordinality as e (item, n)
      where (
        select t.status from pgflow.step_tasks t
        where t.run_id = items_of.run_id and t.step_slug = step.step_slug and t.task_index = e.n::int - 1
      ) is distinct from 'completed';
  elsif step.step_type = 'loop' then
    return query
      select t.task_index + case t.status when 'completed' then 1 else 0 end, case t.status when 'completed' then t.output else t.input end
      from pgflow.step_tasks t
      where t.run_id = items_of.run_id and t.step_slug = step.step_slug
      order by t.task_index desc
      limit 1;
    if not found then
      return query
        select 0, coalesce((
          select i.items from pgflow.step_inputs i where i.run_id = items_of.run_id and i.step_slug = step.step_slug
        ), 'null');
    end if;
  else
    return query select 0, null::jsonb;
  end if;
end
$$;

-- The same where some of the steps are maps, wait or are limited, have deadlines, or start again. Of a map that starts again, completed tasks
-- are kept. A loop is among them at each of its turns.
create function pgflow.create_other_tasks(steps pgflow.step_key[], as_of timestamptz, delay int)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  with
    step as (
      select ss.run_id, s as step, s.step_slug, s.step_index, s.flow_slug, f.queue_name,
             case when s.step_type <> 'loop' or ss.started_at = create_other_tasks.as_of then s.opt_deadline end as opt_deadline,
             least(2147483647, coalesce(s.opt_start_delay, 0)::bigint + create_other_tasks.delay)::int as delay,
             (select r.priority from pgflow.runs r where r.run_id = ss.run_id) as priority
      from unnest(create_other_tasks.steps) k
      join pgflow.step_states ss using (run_id, step_slug)
      join pgflow.steps s using (flow_slug, step_slug)
      join pgflow.flows f using (flow_slug)
      where ss.status = 'started'
    ),
    deadline as (
      insert into pgflow.alarms (due_at, kind, run_id, step_slug)
      select create_other_tasks.as_of + make_interval(secs => create_other_tasks.delay::float8 + s.opt_deadline), 'deadline',
             s.run_id, s.step_slug
      from step s
      where s.opt_deadline is not null
    ),
    task as (
      select s.*, item.task_index, item.input
      from step s
      cross join lateral pgflow.items_of(s.run_id, s.step) item
      where (s.step).step_type in ('single', 'map', 'loop') and (s.step).child_flow is null and not (s.step).is_limited
    ),
    batch as (
      select t.queue_name, t.delay, t.priority, t.flow_slug,
             array_agg(t.run_id order by t.run_id, t.step_index, t.task_index) as run_ids,
             array_agg(t.step_slug order by t.run_id, t.step_index, t.task_index) as step_slugs,
             array_agg(t.task_index order by t.run_id, t.step_index, t.task_index) as task_indexes,
             array_agg(t.input order by t.run_id, t.step_index, t.task_index) as inputs,
             array_agg(
               jsonb_build_object(
                 'flow_slug', t.flow_slug, 'run_id', t.run_id, 'step_slug', t.step_slug, 'task_index', t.task_index
               ) order by t.run_id, t.step_index, t.task_index
             ) as messages
      from task t
      group by t.queue_name, t.delay, t.priority, t.flow_slug
    )
  insert into pgflow.step_tasks as old (run_id, step_slug, task_index, flow_slug, message_id, input, queued_at)
  select t.run_id, t.step_slug, t.task_index, b.flow_slug, t.msg_id, t.input, create_other_tasks.as_of
  from batch b
  cross join lateral rows from (
    unnest(b.run_ids), unnest(b.step_slugs), unnest(b.task_indexes), unnest(b.inputs),
    pgflow.send_messages(b.queue_name, b.messages, b.delay, b.priority)
  ) as t (run_id, step_slug, task_index, input, msg_id)
  on conflict (run_id, step_slug, task_index) do update
  set status = 'queued',
      message_id = excluded.message_id,
      attempts_before = old.attempts_count,
      error_message = null,
      queued_at = excluded.queued_at,
      failed_at = null;
  perform pgflow.create_waiting_tasks(create_other_tasks.steps, create_other_tasks.as_of);
  perform pgflow.create_child_tasks(create_other_tasks.steps, create_other_tasks.as_of, create_other_tasks.delay);
  perform pgflow.create_sql_tasks(create_other_tasks.steps, create_other_tasks.as_of, create_other_tasks.delay);
  perform pgflow.create_slot_tasks(create_other_tasks.steps, create_other_tasks.as_of, create_other_tasks.delay);
end
$$;

-- The runs in which steps have closed: a failed step fails its run, and one without open steps is completed. A run's row is written
-- when it starts and when it ends, not in between, since every update writes the whole row, its input included, to the log. The
-- output of a run is {leaf_slug: output} over its completed leaf steps.
create function pgflow.end_runs(changes pgflow.step_change[], as_of timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  completed uuid[];
begin
  if exists (select from unnest(end_runs.changes) c where c.change = 'failed') then
    update pgflow.runs r
    set status = 'failed', error = failed.error, failed_at = as_of
    from (
      select c.run_id, min(c.error) as error from unnest(end_runs.changes) c where c.change = 'failed' group by c.run_id
    ) failed
    where r.run_id = failed.run_id;
  end if;

  select array_agg(c.run_id) into completed
  from (select distinct c.run_id from unnest(end_runs.changes) c where c.change in ('completed', 'skipped')) c
  where not exists (
    select from pgflow.step_states ss where ss.run_id = c.run_id and ss.status not in ('completed', 'skipped')
  );
  if completed is null then
    return;
  end if;
  update pgflow.runs r
  set status = 'completed',
      completed_at = as_of,
      output = (
        select coalesce(jsonb_object_agg(ss.step_slug, ss.output), '{}')
        from pgflow.step_states ss
        where ss.run_id = r.run_id
          and ss.status = 'completed'
          and not exists (
            select from pgflow.deps dependent where dependent.flow_slug = r.flow_slug and dependent.dep_slug = ss.step_slug
          )
      )
  where r.run_id = any (completed);
end
$$;

-- Closes the open tasks of runs that have ended and of steps that were skipped, and archives their messages.
create function pgflow.close_tasks(run_ids uuid[], skipped pgflow.step_key[] default '{}')
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  closed record;
begin
  if cardinality(run_ids) = 0 and cardinality(skipped) = 0 then
    return;
  end if;
  for closed in
    with
      -- Materialized: a task that a claim changes meanwhile is looked at again by the update, which a union would prevent.
      open as materialized (
        select t.run_id, t.step_slug, t.task_index, 'cancelled' as status, t.waits_for, t.slot_keys
        from pgflow.step_tasks t
        where t.run_id = any (run_ids) and t.status in ('waiting', 'queued', 'started')
        union all
        select t.run_id, t.step_slug, t.task_index, 'skipped', t.waits_for, t.slot_keys
        from unnest(skipped) k
        join pgflow.step_tasks t using (run_id, step_slug)
        where t.run_id <> all (run_ids) and t.status in ('waiting', 'queued', 'started')
      ),
      task as (
        update pgflow.step_tasks t
        set status = o.status, waits_for = null, due_at = null, slot_keys = null, slot_rank = null
        from open o
        where (t.run_id, t.step_slug, t.task_index) = (o.run_id, o.step_slug, o.task_index)
          and t.status in ('waiting', 'queued', 'started')
        returning t.flow_slug, t.message_id, o.run_id, o.step_slug, o.waits_for, o.slot_keys, t.child_run_id
      )
    select f.queue_name, array_agg(t.message_id) filter (where t.message_id is not null) as msg_ids,
           array_agg(row(t.run_id, t.step_slug)::pgflow.step_key) filter (where t.waits_for = 'signal') as waits,
           array_agg(t.slot_keys[1]) filter (where t.slot_keys is not null) || array_agg(t.slot_keys[2]) filter (where t.slot_keys is not null)
             || array_agg(t.slot_keys[3]) filter (where t.slot_keys is not null) as slot_keys,
           array_agg(t.child_run_id) filter (where t.child_run_id is not null) as children
    from task t join pgflow.flows f using (flow_slug)
    group by f.queue_name
  loop
    if closed.msg_ids is not null then
      perform pgflow.archive_messages(closed.queue_name, closed.msg_ids);
    end if;
    if closed.waits is not null then
      perform pgflow.close_waits(closed.waits);
    end if;
    if closed.slot_keys is not null then
      perform pgflow.look_at_slots(closed.slot_keys, pgflow.now());
    end if;
    if closed.children is not null then
      perform pgflow.give_up_children(closed.children);
    end if;
  end loop;
end
$$;
