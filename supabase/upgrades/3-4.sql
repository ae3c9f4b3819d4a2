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

-- A run's row is written when it starts and when it ends: no count in between.
alter table pgflow.runs drop column if exists remaining_steps;

-- Triggers delete what belongs to a run: its foreign keys cost a look-up and a lock for each row that is written.
alter table pgflow.step_states drop constraint if exists step_states_run_id_fkey;
alter table pgflow.step_tasks drop constraint if exists step_tasks_run_id_step_slug_fkey;
alter table pgflow.run_events drop constraint if exists run_events_run_id_fkey;
alter table pgflow.step_states reset (autovacuum_vacuum_threshold, autovacuum_analyze_threshold);

-- Events that set no column, or one task, have no data.
alter table pgflow.run_events alter column data drop not null, alter column data drop default;

-- Triggers on flows and steps keep the definition of a flow that has runs: starts locked its rows to check foreign keys.
alter table pgflow.runs drop constraint if exists runs_flow_slug_fkey;
alter table pgflow.step_states drop constraint if exists step_states_flow_slug_step_slug_fkey;
drop index if exists pgflow.step_states_by_step;

-- A start takes arrays instead of a composite type.
drop function if exists pgflow.start_runs(text, pgflow.run_request[], uuid, uuid, jsonb, int);
drop function if exists pgflow.assert_can_start(pgflow.flows, pgflow.run_request[], jsonb, int);
drop function if exists pgflow.existing_run(pgflow.flows, pgflow.run_request, uuid, uuid, jsonb, int);
drop type if exists pgflow.run_request;
