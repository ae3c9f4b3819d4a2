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
drop function if exists pgflow.due_queues(text[]);

-- Steps that no worker runs: waits and sleeps.
do $$
begin
  if not exists (
    select from pg_attribute a
    where a.attrelid = 'pgflow.steps'::regclass and a.attname = 'completed_by' and not a.attisdropped
  ) then
    alter table pgflow.steps
      add column completed_by text,
      add column assignees_path text,
      add column not_by_owner boolean,
      add column when_timed_out text,
      add column timed_out_output jsonb,
      add column webhook text,
      add column until_path text,
      add column opt_sleep_for int,
      drop constraint step_type_is_known,
      add constraint step_type_is_known check (step_type in ('single', 'map', 'wait', 'sleep')),
      add constraint only_waits_are_completed_by_somebody check (
        num_nonnulls(completed_by, not_by_owner, when_timed_out) = case step_type when 'wait' then 3 else 0 end
        and (step_type = 'wait' or num_nonnulls(timed_out_output, webhook) = 0)
      ),
      add constraint completed_by_is_known check (completed_by in ('service_role', 'owner', 'authenticated', 'assignees')),
      add constraint only_assignees_have_a_path check ((completed_by is not distinct from 'assignees') = (assignees_path is not null)),
      add constraint when_timed_out_is_known check (when_timed_out in ('fail', 'skip', 'skip-cascade', 'complete')),
      add constraint only_complete_has_an_output check (timed_out_output is null or when_timed_out = 'complete'),
      add constraint webhook_is_known check (webhook in ('plain', 'stripe', 'github', 'slack', 'standard')),
      add constraint only_sleeps_end_at_one_time check (
        num_nonnulls(opt_sleep_for, until_path) = case step_type when 'sleep' then 1 else 0 end
      ),
      add constraint sleep_for_is_1_second_to_a_year check (opt_sleep_for between 1 and 31536000),
      add constraint paths_have_1000_characters_at_most check (length(assignees_path) <= 1000 and length(until_path) <= 1000),
      add constraint waits_and_sleeps_have_no_attempts check (
        step_type in ('single', 'map')
        or num_nonnulls(opt_max_attempts, opt_base_delay, opt_start_delay) = 0
          and (step_type = 'wait' or opt_timeout is null)
      );
    alter table pgflow.step_states add column waits_for text, add column due_at timestamptz;
    alter type pgflow.step_definition
      add attribute completed_by text,
      add attribute assignees_path text,
      add attribute not_by_owner boolean,
      add attribute when_timed_out text,
      add attribute timed_out_output jsonb,
      add attribute webhook text,
      add attribute sleep_for int,
      add attribute until_path text;
    alter type pgflow.step_change add attribute waits_for text, add attribute due_at timestamptz;
  end if;
end
$$;
create index if not exists step_tasks_due on pgflow.step_tasks (due_at) where due_at is not null;
create index if not exists step_tasks_waiting on pgflow.step_tasks (flow_slug, queued_at, run_id, step_slug) where waits_for is not null;

create table if not exists pgflow.wait_assignees (
  run_id uuid not null references pgflow.runs on delete cascade,
  step_slug text not null,
  user_id uuid not null,
  flow_slug text not null,
  started_at timestamptz not null,
  is_open boolean not null default true,
  has_answered boolean not null default false,
  constraint wait_assignees_pkey primary key (run_id, step_slug, user_id)
);
create index if not exists wait_assignees_by_user on pgflow.wait_assignees (user_id, is_open, started_at, run_id, step_slug);
create table if not exists pgflow.inbox_watches (
  topic text primary key,
  user_id uuid not null,
  watched_until timestamptz not null
);
create index if not exists inbox_watches_by_user on pgflow.inbox_watches (user_id);

drop function if exists pgflow.decide(pgflow.step_key[]);
drop function if exists pgflow.add_step(
  text, text, text[], int, numeric, int, int, text, text, text, jsonb, jsonb, text, text
);
drop function if exists pgflow.add_step(text, text, int, numeric, int, int, text, text, text, jsonb, jsonb, text, text);

-- Outputs stay in the JSON that they came in.
drop function if exists pgflow.settle(pgflow.task_result[], boolean);
drop function if exists pgflow.map_output(uuid, text);
alter type pgflow.task_result drop attribute if exists output;
alter type pgflow.settled_task drop attribute if exists output;
do $$
begin
  if exists (
    select from pg_attribute a
    where a.attrelid = (select t.typrelid from pg_type t where t.oid = 'pgflow.step_change'::regtype) and a.attname = 'output'
  ) then
    alter type pgflow.step_change alter attribute output type bigint;
    alter type pgflow.step_change rename attribute output to result_n;
  end if;
end
$$;

-- Triggers on flows and steps keep the definition of a flow that has runs: starts locked its rows to check foreign keys.
alter table pgflow.runs drop constraint if exists runs_flow_slug_fkey;
alter table pgflow.step_states drop constraint if exists step_states_flow_slug_step_slug_fkey;
drop index if exists pgflow.step_states_by_step;

-- A start takes arrays instead of a composite type.
drop function if exists pgflow.start_runs(text, pgflow.run_request[], uuid, uuid, jsonb, int);
drop function if exists pgflow.assert_can_start(pgflow.flows, pgflow.run_request[], jsonb, int);
drop function if exists pgflow.existing_run(pgflow.flows, pgflow.run_request, uuid, uuid, jsonb, int);
drop type if exists pgflow.run_request;

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

-- Schedules.
alter table pgflow.flows
  add column if not exists schedulable boolean not null default false,
  add column if not exists max_schedules int not null default 20,
  drop constraint if exists max_schedules_is_not_negative,
  add constraint max_schedules_is_not_negative check (max_schedules >= 0);

create table if not exists pgflow.schedules (
  schedule_id uuid primary key default (pgflow.new_run_ids())[1],
  schedule_slug text not null,
  alias text not null,
  made_by text not null default 'sql',
  cron text not null,
  time_zone text not null default 'UTC',
  input jsonb not null default 'null',
  overlap text not null default 'skip',
  catch_up text not null default 'last',
  catch_up_window int not null default 86400,
  spread int not null default 0,
  owner_id uuid,
  group_id uuid,
  created_at timestamptz not null,
  paused_at timestamptz,
  next_at timestamptz not null,
  due_at timestamptz not null,
  last_at timestamptz,
  last_run_id uuid,
  last_problem text,
  constraint slug_is_unique unique nulls not distinct (owner_id, schedule_slug),
  constraint schedule_slug_is_valid check (pgflow.is_valid_slug(schedule_slug)),
  constraint alias_is_valid check (pgflow.is_valid_slug(alias)),
  constraint made_by_is_known check (made_by in ('sql', 'flow', 'client')),
  constraint only_clients_and_sql_name_an_owner check (made_by = 'sql' or (made_by = 'client') = (owner_id is not null)),
  constraint cron_has_1000_characters_at_most check (length(cron) <= 1000),
  constraint overlap_is_known check (overlap in ('skip', 'allow', 'cancel')),
  constraint catch_up_is_known check (catch_up in ('last', 'none', 'all')),
  constraint catch_up_window_is_0_seconds_to_a_year check (catch_up_window between 0 and 31536000),
  constraint spread_is_0_seconds_to_a_day check (spread between 0 and 86400),
  constraint due_after_its_nominal_time check (due_at >= next_at)
);
create index if not exists schedules_by_due_time on pgflow.schedules (due_at);
create index if not exists schedules_by_alias on pgflow.schedules (alias);

do $$
begin
  if to_regtype('pgflow.cron_fields') is null then
    alter type pgflow.flow_definition add attribute schedulable boolean, add attribute schedules jsonb;
    create type pgflow.cron_fields as (
      minutes int[],
      hours int[],
      days int[],
      months int[],
      weekdays int[],
      is_elapsed boolean,
      both_days boolean
    );
    create type pgflow.scheduled_run as (
      schedule_id uuid,
      run_id uuid,
      nominal_at timestamptz,
      schedule_slug text,
      alias text,
      made_by text,
      input jsonb,
      owner_id uuid,
      group_id uuid
    );
    create type pgflow.schedule_turn as (
      schedule pgflow.schedules,
      starts timestamptz[],
      last_at timestamptz,
      next_at timestamptz,
      open_run_id uuid,
      problem text
    );
  end if;
end
$$;
