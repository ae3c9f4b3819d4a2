import type { Sql } from 'postgres'

export interface Violation {
  rule: string
  run_id: string | null
  found: string
}

/*
 * What is true of every run, whoever raced over it and whatever crashed, as soon as nobody works any more. Each rule
 * is a query for what breaks it; `run`, `state` and `task` hold the rows of the flows in question.
 */
const rules = {
  'a run has the steps of its flow': `
    select run_id, step_slug from run join pgflow.steps s using (flow_slug)
    full join state using (run_id, flow_slug, step_slug)
    where s.step_index is null or state.status is null`,
  'events are numbered 1 to n without gaps': `
    select run_id, string_agg(seq::text, ' ' order by seq) from event
    group by run_id having min(seq) <> 1 or max(seq) <> count(*)`,
  'the first event is run:started': `
    select run_id, e.type from run left join event e using (run_id, flow_slug)
    where coalesce(e.seq, 1) = 1 and e.type is distinct from 'run:started'`,
  'the last event of a run says what it is': `
    select run_id, format('%s after %s', run.status, last.type) from run cross join lateral (
      select e.type from event e where e.run_id = run.run_id and e.step_slug is null order by e.seq desc limit 1
    ) last
    where last.type <> 'run:' || run.status and not (
      run.status = 'started' and last.type in ('run:retried', case when run.waits_for is null then 'run:begun' else 'run:waiting' end)
    )`,
  'the last event of a step says what it is': `
    select run_id, format('%s: %s after %s', state.step_slug, state.status, last.type)
    from state left join lateral (
      select e.type from event e
      where e.run_id = state.run_id and e.step_slug = state.step_slug order by e.seq desc limit 1
    ) last on true
    where case state.status
      when 'created' then last.type not in ('step:failed', 'step:cancelled')
      when 'started' then coalesce(last.type, '') not in ('step:started', 'step:admitted', 'step:retrying', 'step:progress')
      else last.type is distinct from 'step:' || state.status
    end`,
  'every event follows from the one before': `
    select run_id, format('%s %s: %s after %s', seq, step_slug, type, before) from (
      select e.*, lag(type) over (partition by run_id, step_slug order by seq) as before from event e
    ) e
    where not coalesce(type = any (case
      when before is null then '{run:started,step:started,step:failed,step:skipped,step:cancelled}'
      when before in ('step:started', 'step:admitted', 'step:retrying', 'step:progress')
        then '{step:admitted,step:retrying,step:progress,step:completed,step:failed,step:skipped,step:cancelled}'
      when before in ('step:failed', 'step:cancelled') then '{step:started,step:failed,step:skipped,step:cancelled}'
      when before in ('run:started', 'run:waiting')
        then '{run:waiting,run:begun,run:completed,run:failed,run:cancelled}'
      when before in ('run:retried', 'run:begun') then '{run:completed,run:failed,run:cancelled}'
      when before in ('run:failed', 'run:cancelled') then '{run:retried}'
    end::text[]), false)`,
  'a run that ended says nothing more': `
    select run_id, format('%s after %s', next, type) from (
      select e.*, lead(type) over (partition by run_id order by seq) as next from event e
    ) e
    where type = 'run:completed' and next is not null
       or type in ('run:failed', 'run:cancelled') and next <> 'run:retried'`,
  'nothing is open under a run that ended': `
    select run_id, format('%s is %s in a %s run', state.step_slug, state.status, run.status)
    from run join state using (run_id) where run.status <> 'started' and state.status in ('created', 'started')`,
  'no task is open under a step that is not': `
    select run_id, format('%s %s is %s in a %s step', step_slug, task_index, task.status, state.status)
    from task join state using (run_id, step_slug)
    where state.status <> 'started' and task.status in ('waiting', 'queued', 'started')`,
  'a run that goes on has work': `
    select run_id, status from run
    where status = 'started' and waits_for is null
      and not exists (select from task where task.run_id = run.run_id and task.status in ('waiting', 'queued', 'started'))`,
  'of a key at most one run goes on': `
    select min(run_id::text)::uuid, format('%s runs of %s', count(*), pgflow.singleton_key(f, run.input))
    from run join pgflow.flows f using (flow_slug)
    where f.singleton_when_busy is not null and run.status = 'started' and run.waits_for is null
    group by f.alias, pgflow.singleton_key(f, run.input) having count(*) > 1`,
  'a run that waits has another one before it, or a time': `
    select run.run_id, concat_ws(' ', run.waits_for, s.begins_at) from run left join pgflow.run_singletons s on s.waiting_run_id = run.run_id
    where run.status = 'started' and run.waits_for is not null and (s.begins_at > pgflow.now()) is not true and not exists (
      select from pgflow.runs r where r.run_id = s.run_id and r.status = 'started'
    )`,
  'an open task has its message': `
    select run_id, format('%s %s has no message %s', step_slug, task_index, message_id) from task
    where status in ('queued', 'started') and not exists (
      select from message m where m.queue = task.flow_slug and m.msg_id = task.message_id
    )`,
  'a task that waits for a call has its alarm': `
    select run_id, step_slug from task
    where waits_for = 'sql' and not exists (
      select from pgflow.alarms a where a.kind = 'sql' and a.run_id = task.run_id and a.step_slug = task.step_slug
    )`,
  'a message has its open task': `
    select (m.message ->> 'run_id')::uuid, format('%s, read %s times', m.message, m.read_ct) from message m
    where not exists (
      select from task
      where task.flow_slug = m.queue and task.message_id = m.msg_id and task.status in ('queued', 'started')
    )`,
  'what belongs to a run is deleted with it': `
    select run_id, 'a step state' from state where not exists (select from run where run.run_id = state.run_id)
    union all
    select run_id, 'a task' from task where not exists (
      select from state where state.run_id = task.run_id and state.step_slug = task.step_slug
    )
    union all
    select run_id, 'an event' from pgflow.run_events e where not exists (
      select from pgflow.runs r where r.run_id = e.run_id
    )`,
  'remaining_deps counts the deps that are not closed': `
    select run_id, format('%s: %s, not %s', step_slug, remaining_deps, open) from state cross join lateral (
      select count(*) as open from pgflow.deps d join state dep on dep.step_slug = d.dep_slug
      where d.flow_slug = state.flow_slug and d.step_slug = state.step_slug
        and dep.run_id = state.run_id and dep.status not in ('completed', 'skipped')
    ) counted
    where status in ('created', 'started', 'completed') and remaining_deps <> open`,
  'remaining_tasks counts the tasks that are open': `
    select run_id, format('%s: %s of %s, not %s of %s', step_slug, remaining_tasks, initial_tasks, open, tasks)
    from state cross join lateral (
      select count(*) as tasks, count(*) filter (where task.status in ('waiting', 'queued', 'started')) as open
      from task where task.run_id = state.run_id and task.step_slug = state.step_slug
    ) counted
    where status in ('started', 'completed')
      and (remaining_tasks, initial_tasks) is distinct from (open::int, tasks::int)
      -- A wait that was completed before it began has its task already.
      and (initial_tasks, tasks, open) <> (0, 1, 0)`,
  'who is asked agrees with what waits': `
    select run_id, format('%s is %s', step_slug, task.status)
    from task join pgflow.steps s using (flow_slug, step_slug)
    where s.completed_by = 'authenticated' and (task.status = 'waiting') <> exists (
      select from pgflow.wait_assignees w where w.run_id = task.run_id and w.step_slug = task.step_slug and w.is_open
    )`,
  'no more tasks have a slot of a key than its limit': `
    select null::uuid, format('%s have one of %s', count(*), key) from (
      select unnest(slot_keys) as key from task where status in ('queued', 'started') or waits_for = 'run'
    ) held
    left join pgflow.limits l on l.limit_slug = split_part(key, ':', 1)
    group by key, l.running
    having count(*) > coalesce(l.running, (
      select s.opt_concurrency from run join pgflow.steps s using (flow_slug)
      where key = ':' || run_id || ':' || s.step_slug
    ))`,
  'a task that is closed has no slot, and one of a limited step has or awaits some': `
    select run_id, format('%s %s is %s with %s', step_slug, task_index, status, slot_keys)
    from task join pgflow.steps s using (flow_slug, step_slug)
    where (slot_keys is not null) <> (s.is_limited and status in ('waiting', 'queued', 'started'))`,
  'a task that waits for a run has one that goes on, or an alarm': `
    select task.run_id, format('%s %s waits for a run that is %s', step_slug, task_index, coalesce(child.status, 'gone'))
    from task left join pgflow.runs child on child.run_id = task.child_run_id
    where task.waits_for = 'run' and case
      when task.attempts_count = task.attempts_before then not exists (
        select from pgflow.alarms a where a.kind = 'child' and a.run_id = task.run_id and a.step_slug = task.step_slug
      )
      else child.status is distinct from 'started' and not exists (
        select from pgflow.alarms a
        where a.kind = 'ended' and (a.run_id, coalesce(a.step_slug, '')) in ((child.run_id, ''), (task.run_id, task.step_slug))
      )
    end`,
  'a child that goes on is needed, was left alone or retried alone, or has an alarm': `
    select run.run_id, format('its task is %s in a run that has %s', task.status, parent.status)
    from run
    join pgflow.runs parent on parent.run_id = run.parent_run_id
    join pgflow.step_tasks task
      on (task.run_id, task.step_slug, task.task_index) = (run.parent_run_id, run.parent_step_slug, run.parent_task_index)
    join pgflow.steps s on s.flow_slug = parent.flow_slug and s.step_slug = run.parent_step_slug
    where run.status = 'started' and task.status <> 'waiting' and s.when_parent_ends = 'cancel'
      and not exists (select from pgflow.alarms a where a.kind = 'cancel' and a.run_id = run.run_id)
      and not exists (select from event e where e.run_id = run.run_id and e.type = 'run:retried')`,
  'a child belongs to whom its parent belongs': `
    select run.run_id, format('depth %s below %s, owner %s, not %s', run.depth, parent.depth, run.owner_id, parent.owner_id)
    from run join pgflow.runs parent on parent.run_id = run.parent_run_id
    where (run.depth - 1, run.owner_id, run.group_id, run.priority)
      is distinct from (parent.depth, parent.owner_id, parent.group_id, parent.priority)`,
  'a loop takes one turn after another, each with what the last one gave': `
    select run_id, format('%s %s of %s is %s, %s after %s', step_slug, task_index, loop_max, status, input, before) from (
      select task.*, s.loop_max, row_number() over turns as n, lag(task.output) over turns as before, lead(task.status) over turns as next
      from task join pgflow.steps s using (flow_slug, step_slug) where s.step_type = 'loop'
      window turns as (partition by run_id, step_slug order by task_index)
    ) task
    where n <> task_index + 1 or n > loop_max or n > 1 and input is distinct from before or next is not null and status <> 'completed'`,
  'a run that has failed or was cancelled with undo is undone, if it has done anything, or has an alarm': `
    select run_id, format('%s, undo %s', run.status, run.undo)
    from run join pgflow.flows f using (flow_slug)
    where f.undo_flow is not null and run.undoes is null and (run.status = 'failed' and run.undo is null or run.undo = 'asked')
      and not exists (select from pgflow.alarms a where a.kind = 'undo' and a.run_id = run.run_id)
      and exists (
        select from pgflow.steps undo
        join pgflow.steps s on s.flow_slug = run.flow_slug and s.step_slug = undo.step_slug
        join state on state.run_id = run.run_id and state.step_slug = undo.step_slug
        where undo.flow_slug = f.undo_flow and case s.step_type
          when 'map' then exists (
            select from task where task.run_id = run.run_id and task.step_slug = undo.step_slug and task.status = 'completed'
          )
          else state.status = 'completed'
        end
      )`,
  'a run whose undo has begun stays as it is': `
    select undo.undoes, format('%s, undo %s', run.status, run.undo)
    from run as undo join pgflow.runs run on run.run_id = undo.undoes
    where run.status not in ('failed', 'cancelled') or run.undo is distinct from 'begun'`,
  'a step is undone after those that depend on it': `
    select undo.run_id, format('%s before %s', d.dep_slug, d.step_slug)
    from run as undo
    join pgflow.runs undone on undone.run_id = undo.undoes
    join pgflow.deps d on d.flow_slug = undone.flow_slug
    join event first on first.run_id = undo.run_id and first.step_slug = d.dep_slug and first.type = 'step:started'
    join event last on last.run_id = undo.run_id and last.step_slug = d.step_slug and last.type = 'step:completed'
    where first.seq < last.seq`,
  'a completed step has only completed tasks, and failed items where it collects them': `
    select task.run_id, format('%s %s is %s', task.step_slug, task_index, task.status)
    from task join state using (run_id, step_slug)
    join pgflow.steps s on s.flow_slug = state.flow_slug and s.step_slug = state.step_slug
    where state.status = 'completed' and task.status <> 'completed'
      and not (task.status = 'failed' and s.when_item_fails = 'collect')`,
}

/** What breaks the rules in the runs of some flows; the flows' queues have their names. */
export async function violations(sql: Sql, flowSlugs: readonly string[]): Promise<Violation[]> {
  await sql.unsafe(flowSlugs.map(archiveOrphans).join(';'))
  const slugs = flowSlugs.map((slug) => `'${slug}'`).join()
  const queries = Object.entries(rules).map(
    ([rule, query]) => `select '${rule}' as rule, b.run_id, b.found from (${query}) as b (run_id, found)`,
  )
  return sql.unsafe(`
    with
      run as materialized (select * from pgflow.runs where flow_slug in (${slugs})),
      state as materialized (select * from pgflow.step_states where flow_slug in (${slugs})),
      task as materialized (select * from pgflow.step_tasks where flow_slug in (${slugs})),
      event as materialized (select run.flow_slug, e.* from run join pgflow.run_events e using (run_id)),
      message as materialized (
        ${flowSlugs.map((slug) => `select '${slug}' as queue, * from pgmq.q_${slug}`).join(' union all ')}
      )
    ${queries.join(' union all ')}
    limit 20`)
}

/**
 * Claims what a claim heals: messages without an open task, which somebody held while their task was closed. A message
 * that was never read before is only found out when it comes back, so this happens twice.
 */
function archiveOrphans(flowSlug: string): string {
  const claim = `
    update pgmq.q_${flowSlug} q
    set vt = case
      when exists (
        select from pgflow.step_tasks t
        where t.flow_slug = '${flowSlug}' and t.message_id = q.msg_id and t.status in ('queued', 'started')
      ) then 'infinity'
      else 'epoch' -- before it are those of low priority
    end::timestamptz;
    select pgflow.claim_tasks(array['${flowSlug}'], 100000, null)`
  return `${claim};${claim}`
}
