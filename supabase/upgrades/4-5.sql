-- From version 4 to 5: flow control.

alter table pgflow.flows
  add column if not exists priority text not null default 'normal',
  add column if not exists opt_deadline int,
  add column if not exists singleton_path text,
  add column if not exists singleton_when_busy text,
  add column if not exists singleton_wait int,
  add column if not exists undo_flow text,
  drop constraint if exists priority_is_known,
  drop constraint if exists deadline_is_1_second_to_a_year,
  drop constraint if exists a_singleton_says_what_happens_when_it_is_busy,
  drop constraint if exists only_after_waits,
  add constraint priority_is_known check (priority in ('high', 'normal', 'low')),
  add constraint deadline_is_1_second_to_a_year check (opt_deadline between 1 and 31536000),
  add constraint a_singleton_says_what_happens_when_it_is_busy check (
    singleton_when_busy in ('return', 'reject', 'replace', 'after') and coalesce(length(singleton_path), 0) <= 1000
    or num_nonnulls(singleton_when_busy, singleton_path, singleton_wait) = 0
  ),
  add constraint only_after_waits check (singleton_wait is null or singleton_when_busy = 'after' and singleton_wait between 1 and 31536000);

do $$
begin
  if not exists (
    select from pg_attribute a
    where a.attrelid = 'pgflow.steps'::regclass and a.attname = 'is_limited' and not a.attisdropped
  ) then
    alter table pgflow.steps
      add column is_limited boolean not null default false,
      add column opt_concurrency int,
      add column opt_deadline int,
      add column when_item_fails text not null default 'fail',
      add column tolerate_count int,
      add column tolerate_share numeric,
      add column child_flow text,
      add column when_parent_ends text,
      add column loop_until jsonb,
      add column loop_max int,
      add column when_exceeded text,
      add column sql_function text,
      drop constraint step_type_is_known,
      drop constraint only_maps_have_a_source,
      drop constraint only_maps_have_a_path,
      drop constraint waits_and_sleeps_have_no_attempts,
      add constraint step_type_is_known check (step_type in ('single', 'map', 'wait', 'sleep', 'loop', 'sql')),
      add constraint maps_sub_flows_and_loops_have_a_source check (
        (step_type in ('map', 'loop') or child_flow is not null) = (map_source is not null)
      ),
      add constraint only_a_source_has_a_path check (map_source is not null or map_path is null),
      add constraint waits_and_sleeps_have_no_attempts check (
        step_type in ('single', 'map', 'loop', 'sql') and child_flow is null
        or num_nonnulls(opt_max_attempts, opt_base_delay) = 0
          and (step_type = 'wait' or opt_timeout is null) and (child_flow is not null or opt_start_delay is null)
      ),
      add constraint sub_flows_are_steps_or_maps check (
        (child_flow is null) = (when_parent_ends is null)
        and (child_flow is null or step_type in ('single', 'map') and when_parent_ends in ('cancel', 'leave'))
      ),
      add constraint only_loops_turn check (
        num_nonnulls(loop_max, when_exceeded) = case step_type when 'loop' then 2 else 0 end
        and (loop_until is null or step_type = 'loop') and (when_exceeded in ('fail', 'complete') or when_exceeded is null)
      ),
      add constraint loop_max_is_1_to_10000 check (loop_max between 1 and 10000),
      add constraint only_sql_steps_have_a_function check ((step_type = 'sql') = (sql_function is not null)),
      add constraint concurrency_is_for_maps check (step_type = 'map' and opt_concurrency >= 1 or opt_concurrency is null),
      add constraint concurrency_is_a_limit check (is_limited or opt_concurrency is null),
      add constraint only_tasks_are_limited check (step_type in ('single', 'map', 'loop') or not is_limited),
      add constraint deadline_is_1_second_to_a_year check (opt_deadline between 1 and 31536000),
      add constraint when_item_fails_is_known check (
        when_item_fails = 'fail' and num_nonnulls(tolerate_count, tolerate_share) = 0
        or when_item_fails = 'collect' and step_type = 'map' and num_nonnulls(tolerate_count, tolerate_share) <= 1
      ),
      add constraint tolerated_failures_are_a_count_or_a_share check (
        (tolerate_count >= 0 or tolerate_count is null) and (tolerate_share between 0 and 1 or tolerate_share is null)
      );
    -- A limited step is not plain.
    alter table pgflow.steps drop column is_plain;
    alter table pgflow.steps add column is_plain boolean not null
      generated always as (
        step_type = 'single' and run_if is null and run_unless is null and not is_limited and child_flow is null
      ) stored;
    alter table pgflow.runs
      add column priority text not null default 'normal',
      add column waits_for text,
      add column undoes uuid,
      add column undo text,
      add constraint priority_is_known check (priority in ('high', 'normal', 'low')),
      add constraint only_started_runs_wait_and_only_ended_ones_are_undone check (
        (waits_for in ('run', 'time') and status = 'started' or waits_for is null)
        and (undo in ('asked', 'begun') and status in ('failed', 'cancelled') or undo is null)
      );
    alter table pgflow.step_tasks
      add column slot_keys text[],
      add column slot_rank timestamptz,
      add column child_run_id uuid,
      drop constraint only_waiting_has_no_message_but_a_reason,
      add constraint only_waiting_has_no_message_but_a_reason check (
        case
          when status = 'waiting' then message_id is null and waits_for is not null
            and waits_for in ('signal', 'time', 'run', 'slot', 'sql') and (waits_for <> 'time' or due_at is not null)
            and case when waits_for = 'slot' then slot_keys is not null else waits_for in ('time', 'run') or slot_keys is null end
          else waits_for is null and due_at is null and (message_id is not null or status not in ('queued', 'started'))
            and (slot_keys is null or status in ('queued', 'started'))
        end
        and (slot_keys is null) = (slot_rank is null) and coalesce(cardinality(slot_keys), 1) between 1 and 3
      );
    drop index pgflow.step_tasks_waiting;
  end if;
end
$$;
create unique index if not exists runs_by_undone on pgflow.runs (undoes) where undoes is not null;
create index if not exists step_tasks_waiting on pgflow.step_tasks (flow_slug, queued_at, run_id, step_slug) where waits_for in ('signal', 'time');
create index if not exists step_tasks_children on pgflow.step_tasks (run_id, step_slug, task_index) where waits_for = 'run';
-- The slots that tasks hold, and those that they wait for, by each key that a task has.
create index if not exists step_tasks_slots_1 on pgflow.step_tasks ((slot_keys[1]), waits_for, slot_keys, slot_rank) where slot_keys[1] is not null;
create index if not exists step_tasks_slots_2 on pgflow.step_tasks ((slot_keys[2]), waits_for, slot_keys, slot_rank) where slot_keys[2] is not null;
create index if not exists step_tasks_slots_3 on pgflow.step_tasks ((slot_keys[3]), waits_for, slot_keys, slot_rank) where slot_keys[3] is not null;

create table if not exists pgflow.limits (
  limit_slug text primary key,
  running int,
  rate_count int,
  rate_period int,
  made_by text not null default 'sql',
  changed_at timestamptz not null,
  constraint limit_slug_has_1_to_255_characters_and_no_colon check (limit_slug ~ '^[^:]{1,255}$'),
  constraint running_is_positive check (running >= 1),
  constraint a_rate_is_a_count_in_a_period check ((rate_count is null) = (rate_period is null)),
  constraint rate_count_is_positive check (rate_count >= 1),
  constraint rate_period_is_1_second_to_a_year check (rate_period between 1 and 31536000),
  constraint limits_something check (num_nonnulls(running, rate_count) > 0),
  constraint made_by_is_known check (made_by in ('flow', 'sql'))
);
create table if not exists pgflow.limit_uses (
  flow_slug text not null references pgflow.flows,
  step_slug text not null,
  limit_slug text not null references pgflow.limits,
  by_path text,
  primary key (flow_slug, step_slug, limit_slug),
  constraint by_path_has_1000_characters_at_most check (length(by_path) <= 1000)
);
create index if not exists limit_uses_by_limit on pgflow.limit_uses (limit_slug);
create table if not exists pgflow.limit_keys (
  slot_key text primary key,
  next_at timestamptz,
  last_keys text[]
);
create table if not exists pgflow.alarms (
  due_at timestamptz not null,
  alarm_id bigint not null generated always as identity,
  kind text not null,
  slot_key text,
  run_id uuid,
  step_slug text,
  primary key (due_at, alarm_id),
  constraint kind_is_known check (kind in ('slot', 'deadline', 'begin', 'child', 'ended', 'cancel', 'retried', 'undo', 'sql')),
  constraint a_slot_has_a_key_else_there_is_a_run check (
    (kind = 'slot') = (slot_key is not null) and (kind = 'slot') = (run_id is null)
    and (step_slug is null or kind in ('deadline', 'child', 'ended', 'sql')) and (step_slug is not null or kind not in ('child', 'sql'))
  )
);
create index if not exists alarms_by_kind on pgflow.alarms (kind, due_at, alarm_id);
create table if not exists pgflow.kept_results (
  run_id uuid not null, -- with step_slug and task_index: of step_tasks
  step_slug text not null,
  task_index int not null,
  name text not null,
  value jsonb not null,
  bytes int not null,
  attempt int not null,
  kept_at timestamptz not null,
  primary key (run_id, step_slug, task_index, name),
  constraint name_has_1_to_255_characters check (length(name) between 1 and 255)
);

-- How many items of a map have failed.
create index if not exists step_tasks_failed on pgflow.step_tasks (run_id, step_slug, failed_at) where failed_at is not null;

-- Loops look at the outputs of their turns.
drop function if exists pgflow.changes_of(pgflow.settled_task[]);

-- Messages have a priority; lost ones are sent again in slices.
drop function if exists pgflow.send_messages(text, jsonb[], int);
drop function if exists pgflow.read_queue(text, int, int);
drop function if exists pgflow.repair();
drop function if exists pgflow.resend_messages(text[]);

-- Events say that a step no longer waits for a slot, and what a run waits for.
alter table pgflow.run_events
  drop constraint if exists type_is_known,
  add constraint type_is_known check (type in (
    'run:started', 'run:waiting', 'run:begun', 'run:completed', 'run:failed', 'run:cancelled', 'run:retried',
    'step:started', 'step:admitted', 'step:progress', 'step:retrying', 'step:completed', 'step:failed', 'step:skipped', 'step:cancelled'
  ));
do $$
begin
  if not exists (
    select from pg_attribute a
    where a.attrelid = (select t.typrelid from pg_type t where t.oid = 'pgflow.settled_task'::regtype) and a.attname = 'slot_keys'
  ) then
    alter type pgflow.settled_task add attribute slot_keys text[];
  end if;
end
$$;
do $$
begin
  if to_regtype('pgflow.slot_task') is null then
    create type pgflow.slot_task as (
      run_id uuid,
      step_slug text,
      task_index int,
      slot_keys text[],
      slot_rank timestamptz,
      is_child boolean
    );
    create type pgflow.slot_locks as (
      locked text[],
      busy text[]
    );
    create type pgflow.slot_room as (
      key text,
      room int,
      next_at timestamptz,
      spacing interval
    );
  end if;
end
$$;

do $$
begin
  if to_regtype('pgflow.sql_call') is null then
    create type pgflow.sql_call as (
      run_id uuid,
      step_slug text,
      flow_slug text,
      queued_at timestamptz,
      timeout int
    );
  end if;
end
$$;

-- Singletons and the priority of runs.
create table if not exists pgflow.run_singletons (
  alias text not null,
  key text not null,
  run_id uuid,
  waiting_run_id uuid,
  begins_at timestamptz,
  primary key (alias, key),
  constraint key_has_255_characters_at_most check (length(key) <= 255)
);
create index if not exists run_singletons_by_run on pgflow.run_singletons (run_id);
create index if not exists run_singletons_by_waiting_run on pgflow.run_singletons (waiting_run_id);
do $$
begin
  if to_regtype('pgflow.singleton_start') is null then
    create type pgflow.singleton_start as (
      n bigint,
      turn bigint,
      key text,
      new_run_id uuid,
      input jsonb,
      idempotency_key text,
      run_id uuid,
      waiting_run_id uuid
    );
  end if;
end
$$;
drop function if exists pgflow.start_runs(text, uuid[], jsonb[], text[], uuid, uuid, jsonb, int);
drop function if exists pgflow.lock_flow(text);
drop function if exists pgflow.cancel_run(uuid, text);
drop function if exists pgflow.client_cancel_run(uuid, text);
drop function if exists pgflow_public.cancel_run(uuid, text);
drop function if exists pgflow.start_flow(text, jsonb, uuid, text, uuid, jsonb, int, uuid);
drop function if exists pgflow.start_flows(text, jsonb, text[], uuid, jsonb, int, uuid);
drop function if exists pgflow.assert_can_start(pgflow.flows, int, jsonb[], text[], jsonb, int);
drop function if exists pgflow.existing_run(pgflow.flows, uuid, jsonb, text, uuid, uuid, jsonb, int);
drop function if exists pgflow.assert_may_start(text, jsonb, text[], uuid);
drop function if exists pgflow.client_start_flow(text, jsonb, text, jsonb, text, int, uuid);
drop function if exists pgflow.client_start_flows(text, jsonb, text[], jsonb, text, int, uuid);
drop function if exists pgflow_public.start_flow(text, jsonb, text, jsonb, text, int, uuid);
drop function if exists pgflow_public.start_flows(text, jsonb, text[], jsonb, text, int, uuid);

-- Sub-flows.
do $$
begin
  if to_regtype('pgflow.run_parent') is null then
    create type pgflow.run_parent as (
      run_id uuid,
      step_slug text,
      task_index int,
      depth int,
      owner_id uuid,
      group_id uuid,
      priority text,
      undoes uuid
    );
    create type pgflow.child_task as (
      run_id uuid,
      step_slug text,
      task_index int,
      child_run_id uuid,
      child_status text
    );
  end if;
end
$$;
drop function if exists pgflow.client_list_runs(text, text, jsonb, uuid, uuid, int, uuid, text);
drop function if exists pgflow_public.list_runs(text, text, jsonb, uuid, uuid, int, uuid, text);

-- Definitions: one front end, with options.
drop function if exists pgflow.create_flow(text, int, numeric, int, text, text);
drop function if exists pgflow.add_step(
  text, text, text[], int, numeric, int, int, text, text, text, jsonb, jsonb, text, text, text, text, boolean, text, jsonb, text, int, text
);
drop function if exists pgflow.add_step(
  text, text, int, numeric, int, int, text, text, text, jsonb, jsonb, text, text, text, text, boolean, text, jsonb, text, int, text
);
drop function if exists pgflow.assert_same_step(pgflow.steps, pgflow.steps, text[]);
drop function if exists pgflow.assert_new_step(pgflow.steps, text[]);
drop function if exists pgflow.assert_valid_definition(jsonb);
do $$
begin
  if not exists (
    select from pg_attribute a
    where a.attrelid = 'pgflow.flow_definition'::regclass and a.attname = 'limits' and not a.attisdropped
  ) then
    alter type pgflow.flow_definition
      add attribute priority text,
      add attribute deadline int,
      add attribute singleton_path text,
      add attribute singleton_when_busy text,
      add attribute singleton_wait int,
      add attribute limits jsonb,
      add attribute undo_flow text;
    alter type pgflow.step_definition
      add attribute concurrency int,
      add attribute deadline int,
      add attribute when_item_fails text,
      add attribute tolerate_count int,
      add attribute tolerate_share numeric,
      add attribute limits jsonb,
      add attribute child_flow text,
      add attribute when_parent_ends text,
      add attribute loop_until jsonb,
      add attribute loop_max int,
      add attribute when_exceeded text,
      add attribute sql_function text;
  end if;
end
$$;
