-- From version 3 to 4: the engine's functions have other names, and say `as_of` for the time of a change.

drop function if exists pgflow.held_flow(text);
drop function if exists pgflow.keep_errors(jsonb, bigint[]);
drop function if exists pgflow.wake_workers(uuid[]);
drop function if exists pgflow.start_tasks(pgflow.message[], uuid, timestamptz, int);
drop function if exists pgflow.settle_tasks_of_runs(uuid[], pgflow.task_result[], timestamptz);
drop function if exists pgflow.settle_task(pgflow.task_result);
drop function if exists pgflow.start_steps(text, uuid[], timestamptz, int);
drop function if exists pgflow.advance(pgflow.step_change[], timestamptz, pgflow.step_key[], int);
drop function if exists pgflow.change_steps(pgflow.step_change[], timestamptz);
drop function if exists pgflow.create_tasks(pgflow.step_key[], timestamptz, int);
drop function if exists pgflow.create_other_tasks(pgflow.step_key[], timestamptz, int);
drop function if exists pgflow.advance_runs(pgflow.step_change[], timestamptz);
drop function if exists pgflow.due_queues(text[]);

-- Queues are vacuumed whenever something was removed from them.
do $$
declare
  queue text;
begin
  for queue in select 'q_' || f.queue_name from pgflow.flows f loop
    if to_regclass(format('pgmq.%I', queue)) is not null then
      execute format('alter table pgmq.%I set (autovacuum_vacuum_threshold = 0)', queue);
    end if;
  end loop;
end
$$;
