-- Chapter 2: the tables. Definitions first, then run-time state, then the event log.
--
-- Statuses are text; what belongs to a status is an equality, so that no row can contradict itself. Postgres prepares each
-- check constraint of a table anew for each statement, at some microseconds, so what is rarely there shares one.
--
-- Half of each page of the tables that change is left free: rows of one batch lie side by side, since ids follow time, and all of
-- them have to find room for a new version on their page; else each update writes every index.
--
-- Step states, tasks and events have no foreign key to what they belong to: its check would look up, lock and log a row for each
-- row that is written, a quarter of the time that starting many runs takes. The engine writes them while it holds the run's lock.
-- Triggers at the end of this chapter delete them with their run.

create table pgflow.flows (
  flow_slug text primary key,
  alias text not null,
  version int not null default 1,
  queue_name text not null unique,
  opt_max_attempts int not null default 3,
  opt_base_delay numeric not null default 5,
  opt_timeout int not null default 60,
  shape_hash text,
  input_schema jsonb,
  output_schema jsonb,
  start_role text not null default 'service_role',
  broadcast text not null default 'watched',
  max_input_bytes int not null default 1048576,
  created_at timestamptz not null default now(),
  schedulable boolean not null default false,
  max_schedules int not null default 20,
  priority text not null default 'normal',
  opt_deadline int,
  singleton_path text,
  singleton_when_busy text,
  singleton_wait int,
  undo_flow text,
  constraint flow_slug_is_valid check (pgflow.is_valid_slug(flow_slug)),
  constraint alias_is_valid check (pgflow.is_valid_slug(alias)),
  constraint version_is_unique unique (alias, version),
  constraint version_is_positive check (version >= 1),
  constraint the_first_version_has_the_alias_as_slug check ((version = 1) = (flow_slug = alias)),
  constraint max_attempts_is_not_negative check (opt_max_attempts >= 0),
  constraint base_delay_is_0_seconds_to_a_year check (opt_base_delay between 0 and 31536000),
  constraint timeout_is_1_second_to_a_year check (opt_timeout between 1 and 31536000),
  constraint start_role_is_known check (start_role in ('service_role', 'authenticated', 'anon')),
  constraint broadcast_is_known check (broadcast in ('watched', 'always', 'never')),
  constraint max_input_bytes_is_positive check (max_input_bytes >= 1),
  constraint max_schedules_is_not_negative check (max_schedules >= 0),
  constraint priority_is_known check (priority in ('high', 'normal', 'low')),
  constraint deadline_is_1_second_to_a_year check (opt_deadline between 1 and 31536000),
  constraint a_singleton_says_what_happens_when_it_is_busy check (
    singleton_when_busy in ('return', 'reject', 'replace', 'after') and coalesce(length(singleton_path), 0) <= 1000
    or num_nonnulls(singleton_when_busy, singleton_path, singleton_wait) = 0
  ),
  constraint only_after_waits check (singleton_wait is null or singleton_when_busy = 'after' and singleton_wait between 1 and 31536000)
);
create index flows_always_broadcast on pgflow.flows (flow_slug) where broadcast = 'always';
comment on table pgflow.flows is
  'A flow: an immutable definition, its defaults in seconds, and who may start it. max_input_bytes is the limit for what clients send as one input, as JSON text. If it is schedulable, users may have up to max_schedules schedules of it each. A run has opt_deadline seconds in all. Of a flow with singleton_when_busy one run goes on, or one for each value at singleton_path; it says what becomes of a further start. Runs that end without completing are undone by a run of undo_flow. Its versions share an alias. shape_hash is that of the shape it was registered with; null where it was built step by step.';

create table pgflow.flow_aliases (
  alias text primary key,
  flow_slug text not null references pgflow.flows,
  constraint alias_is_valid check (pgflow.is_valid_slug(alias))
);
create index flow_aliases_by_flow on pgflow.flow_aliases (flow_slug);
comment on table pgflow.flow_aliases is
  'A stable name that points to the newest version of a flow. A name without a row here is that of the flow itself.';

create table pgflow.steps (
  flow_slug text not null references pgflow.flows,
  step_slug text not null,
  step_index int not null,
  step_type text not null default 'single',
  deps_count int not null,
  opt_max_attempts int,
  opt_base_delay numeric,
  opt_timeout int,
  opt_start_delay int,
  run_if jsonb,
  run_unless jsonb,
  when_unmet text not null default 'skip-cascade',
  when_exhausted text not null default 'fail',
  map_source text,
  map_path text,
  input_schema jsonb,
  output_schema jsonb,
  created_at timestamptz not null default now(),
  completed_by text,
  assignees_path text,
  not_by_owner boolean,
  when_timed_out text,
  timed_out_output jsonb,
  webhook text,
  until_path text,
  opt_sleep_for int,
  is_limited boolean not null default false,
  opt_concurrency int,
  opt_deadline int,
  when_item_fails text not null default 'fail',
  tolerate_count int,
  tolerate_share numeric,
  child_flow text,
  when_parent_ends text,
  loop_until jsonb,
  loop_max int,
  when_exceeded text,
  sql_function text,
  is_plain boolean not null generated always as (
    step_type = 'single' and run_if is null and run_unless is null and not is_limited and child_flow is null
  ) stored,
  primary key (flow_slug, step_slug),
  constraint step_index_is_unique unique (flow_slug, step_index),
  constraint step_slug_is_valid check (pgflow.is_valid_slug(step_slug)),
  constraint step_type_is_known check (step_type in ('single', 'map', 'wait', 'sleep', 'loop', 'sql')),
  constraint maps_sub_flows_and_loops_have_a_source check (
    (step_type in ('map', 'loop') or child_flow is not null) = (map_source is not null)
  ),
  constraint only_a_source_has_a_path check (map_source is not null or map_path is null),
  constraint map_path_has_1000_characters_at_most check (length(map_path) <= 1000),
  constraint deps_count_is_not_negative check (deps_count >= 0),
  constraint max_attempts_is_not_negative check (opt_max_attempts >= 0),
  constraint base_delay_is_0_seconds_to_a_year check (opt_base_delay between 0 and 31536000),
  constraint timeout_is_1_second_to_a_year check (opt_timeout between 1 and 31536000),
  constraint start_delay_is_0_seconds_to_a_year check (opt_start_delay between 0 and 31536000),
  constraint when_unmet_is_known check (when_unmet in ('fail', 'skip', 'skip-cascade')),
  constraint when_exhausted_is_known check (when_exhausted in ('fail', 'skip', 'skip-cascade')),
  constraint only_waits_are_completed_by_somebody check (
    num_nonnulls(completed_by, not_by_owner, when_timed_out) = case step_type when 'wait' then 3 else 0 end
    and (step_type = 'wait' or num_nonnulls(timed_out_output, webhook) = 0)
  ),
  constraint completed_by_is_known check (completed_by in ('service_role', 'owner', 'authenticated', 'assignees')),
  constraint only_assignees_have_a_path check ((completed_by is not distinct from 'assignees') = (assignees_path is not null)),
  constraint when_timed_out_is_known check (when_timed_out in ('fail', 'skip', 'skip-cascade', 'complete')),
  constraint only_complete_has_an_output check (timed_out_output is null or when_timed_out = 'complete'),
  constraint webhook_is_known check (webhook in ('plain', 'stripe', 'github', 'slack', 'standard')),
  constraint only_sleeps_end_at_one_time check (
    num_nonnulls(opt_sleep_for, until_path) = case step_type when 'sleep' then 1 else 0 end
  ),
  constraint sleep_for_is_1_second_to_a_year check (opt_sleep_for between 1 and 31536000),
  constraint paths_have_1000_characters_at_most check (length(assignees_path) <= 1000 and length(until_path) <= 1000),
  constraint waits_and_sleeps_have_no_attempts check (
    step_type in ('single', 'map', 'loop', 'sql') and child_flow is null
    or num_nonnulls(opt_max_attempts, opt_base_delay) = 0
      and (step_type = 'wait' or opt_timeout is null) and (child_flow is not null or opt_start_delay is null)
  ),
  constraint concurrency_is_for_maps check (step_type = 'map' and opt_concurrency >= 1 or opt_concurrency is null),
  constraint concurrency_is_a_limit check (is_limited or opt_concurrency is null),
  constraint only_tasks_are_limited check (step_type in ('single', 'map', 'loop') or not is_limited),
  constraint deadline_is_1_second_to_a_year check (opt_deadline between 1 and 31536000),
  constraint when_item_fails_is_known check (
    when_item_fails = 'fail' and num_nonnulls(tolerate_count, tolerate_share) = 0
    or when_item_fails = 'collect' and step_type = 'map' and num_nonnulls(tolerate_count, tolerate_share) <= 1
  ),
  constraint tolerated_failures_are_a_count_or_a_share check (
    (tolerate_count >= 0 or tolerate_count is null) and (tolerate_share between 0 and 1 or tolerate_share is null)
  ),
  constraint sub_flows_are_steps_or_maps check (
    (child_flow is null) = (when_parent_ends is null)
    and (child_flow is null or step_type in ('single', 'map') and when_parent_ends in ('cancel', 'leave'))
  ),
  constraint only_loops_turn check (
    num_nonnulls(loop_max, when_exceeded) = case step_type when 'loop' then 2 else 0 end
    and (loop_until is null or step_type = 'loop') and (when_exceeded in ('fail', 'complete') or when_exceeded is null)
  ),
  constraint loop_max_is_1_to_10000 check (loop_max between 1 and 10000),
  constraint only_sql_steps_have_a_function check ((step_type = 'sql') = (sql_function is not null))
);
comment on table pgflow.steps is
  'A node of a flow''s DAG; an option that is null is the flow''s, except that a wait without a timeout has no end. A plain step starts as soon as its deps are closed. A wait is completed by the service role, the owner, anybody who is signed in, or the users at assignees_path; a sleep ends after opt_sleep_for seconds, or at the time at until_path. The tasks of a limited step wait for a slot. A map with when_item_fails = collect completes although items fail, up to tolerate_count of them or the share tolerate_share. A step with a child_flow starts a run of it, or a map one for each item. A loop takes turns until an output contains loop_until, loop_max at most. A step of type sql calls sql_function. map_source and map_path say where a map has its items, a sub-flow its input, and a loop what its first turn gets.';

-- The options of steps, where they have none of their own their flow's; delays and times in seconds. Of no attempt there
-- is one, whose failure is final.
create view pgflow.step_options
with (security_invoker = true)
as
select s.flow_slug, s.step_slug,
       greatest(1, coalesce(s.opt_max_attempts, f.opt_max_attempts)) as max_attempts,
       coalesce(s.opt_base_delay, f.opt_base_delay) as base_delay,
       coalesce(s.opt_timeout, f.opt_timeout) as timeout
from pgflow.steps s
join pgflow.flows f using (flow_slug);
comment on view pgflow.step_options is 'The options that hold for steps: their own, else their flow''s.';

create table pgflow.deps (
  flow_slug text not null,
  dep_slug text not null,
  step_slug text not null,
  primary key (flow_slug, dep_slug, step_slug),
  foreign key (flow_slug, dep_slug) references pgflow.steps,
  foreign key (flow_slug, step_slug) references pgflow.steps,
  constraint no_step_waits_for_itself check (dep_slug <> step_slug)
);
create index deps_by_step on pgflow.deps (flow_slug, step_slug);
comment on table pgflow.deps is 'An edge of a flow''s DAG: step_slug waits for dep_slug.';

create table pgflow.runs (
  run_id uuid primary key default (pgflow.new_run_ids())[1],
  flow_slug text not null, -- a flow that has runs cannot be deleted: see the triggers on flows and steps
  status text not null default 'started',
  input jsonb not null,
  output jsonb,
  error text,
  owner_id uuid,
  group_id uuid,
  idempotency_key text,
  metadata jsonb,
  parent_run_id uuid,
  parent_step_slug text,
  parent_task_index int,
  depth int not null default 0,
  trace_parent text,
  started_at timestamptz not null,
  completed_at timestamptz,
  failed_at timestamptz,
  cancelled_at timestamptz,
  priority text not null default 'normal',
  waits_for text,
  undoes uuid,
  undo text,
  constraint status_is_known check (status in ('started', 'completed', 'failed', 'cancelled')),
  constraint completed_has_its_time check ((status = 'completed') = (completed_at is not null)),
  constraint completed_has_an_output check ((status = 'completed') = (output is not null)),
  constraint failed_has_its_time check ((status = 'failed') = (failed_at is not null)),
  constraint cancelled_has_its_time check ((status = 'cancelled') = (cancelled_at is not null)),
  constraint failed_has_an_error check (status <> 'failed' or error is not null),
  constraint a_child_names_the_task_of_its_parent check (
    num_nonnulls(parent_run_id, parent_step_slug, parent_task_index) = case when depth > 0 then 3 else 0 end
    and depth between 0 and 8
  ),
  constraint optional_values_are_within_limits check (
    length(idempotency_key) between 1 and 255 and octet_length(metadata::text) <= 65536 and length(error) <= 10000
    and trace_parent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
  ),
  constraint priority_is_known check (priority in ('high', 'normal', 'low')),
  constraint only_started_runs_wait_and_only_ended_ones_are_undone check (
    (waits_for in ('run', 'time') and status = 'started' or waits_for is null)
    and (undo in ('asked', 'begun') and status in ('failed', 'cancelled') or undo is null)
  )
) with (fillfactor = 50);
create index runs_by_flow on pgflow.runs (flow_slug, started_at);
create index runs_by_owner on pgflow.runs (owner_id, started_at) where owner_id is not null;
create index runs_by_group on pgflow.runs (group_id, started_at) where group_id is not null;
create unique index runs_by_undone on pgflow.runs (undoes) where undoes is not null;
comment on table pgflow.runs is
  'One execution of a flow. idempotency_key is the key that it was started with, for people to look at: run_keys decides. A child names the task of its parent, which may be deleted before it; depth is 0 of a root. trace_parent is a W3C traceparent. A run that waits_for another run or a time has not begun: its steps are created. undoes is the run whose completed steps this one undoes. undo says of a run that was cancelled that this was asked for, and of any that it has begun.';

create table pgflow.run_keys (
  run_id uuid primary key references pgflow.runs on delete cascade deferrable initially deferred, -- a key is taken first
  alias text not null,
  key text not null,
  owner_id uuid,
  constraint key_is_unique unique nulls not distinct (owner_id, alias, key),
  constraint key_has_1_to_255_characters check (length(key) between 1 and 255)
);
comment on table pgflow.run_keys is
  'Idempotency keys: the run that a key of an owner has started, of any version of a flow. A key goes with its run.';

create table pgflow.run_singletons (
  alias text not null,
  key text not null,
  run_id uuid, -- of runs, as the next
  waiting_run_id uuid,
  begins_at timestamptz,
  primary key (alias, key),
  constraint key_has_255_characters_at_most check (length(key) <= 255)
);
create index run_singletons_by_run on pgflow.run_singletons (run_id);
create index run_singletons_by_waiting_run on pgflow.run_singletons (waiting_run_id);
comment on table pgflow.run_singletons is
  'Of flows with singleton_when_busy, for each key the run that goes on, and the one that waits until it has ended, and until begins_at. Starts of a key lock its row. Whether a run goes on is said by its status, never by this table alone.';

create table pgflow.step_states (
  run_id uuid not null, -- of runs
  step_slug text not null,
  flow_slug text not null,
  status text not null default 'created',
  remaining_deps int not null,
  remaining_tasks int,
  initial_tasks int,
  output jsonb,
  error text,
  skip_reason text,
  progress jsonb,
  retries int not null default 0,
  retry_at timestamptz,
  created_at timestamptz not null,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  skipped_at timestamptz,
  waits_for text,
  due_at timestamptz,
  primary key (run_id, step_slug),
  constraint status_is_known check (status in ('created', 'started', 'completed', 'failed', 'skipped', 'cancelled')),
  constraint created_is_not_started check (status <> 'created' or started_at is null),
  constraint started_has_its_time check (status not in ('started', 'completed') or started_at is not null),
  constraint started_has_no_deps_left check (status not in ('started', 'completed') or remaining_deps = 0),
  constraint completed_has_its_time check ((status = 'completed') = (completed_at is not null)),
  constraint completed_has_an_output check ((status = 'completed') = (output is not null)),
  constraint failed_has_its_time check ((status = 'failed') = (failed_at is not null)),
  constraint failed_has_an_error check (status <> 'failed' or error is not null),
  constraint skipped_has_its_time check ((status = 'skipped') = (skipped_at is not null)),
  constraint skipped_has_a_reason check ((status = 'skipped') = (skip_reason is not null)),
  constraint remaining_deps_is_not_negative check (remaining_deps >= 0),
  constraint remaining_tasks_is_not_negative check (remaining_tasks between 0 and initial_tasks),
  constraint retries_is_not_negative check (retries >= 0)
) with (fillfactor = 50);
comment on table pgflow.step_states is
  'A step within a run. retries counts failed attempts that were followed by another. waits_for and due_at are those with which a wait or sleep began.';

create table pgflow.step_tasks (
  run_id uuid not null, -- with step_slug: of step_states
  step_slug text not null,
  task_index int not null,
  flow_slug text not null,
  message_id bigint,
  status text not null default 'queued',
  waits_for text,
  due_at timestamptz,
  attempts_count int not null default 0,
  attempts_before int not null default 0,
  input jsonb,
  output jsonb,
  error_message text,
  last_error jsonb,
  queued_at timestamptz not null,
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  last_worker_id uuid,
  slot_keys text[],
  slot_rank timestamptz,
  child_run_id uuid,
  primary key (run_id, step_slug, task_index),
  constraint status_is_known check (status in ('waiting', 'queued', 'started', 'completed', 'failed', 'skipped', 'cancelled')),
  constraint only_waiting_has_no_message_but_a_reason check (
    case
      when status = 'waiting' then message_id is null and waits_for is not null
        and waits_for in ('signal', 'time', 'run', 'slot', 'sql') and (waits_for <> 'time' or due_at is not null)
        and case when waits_for = 'slot' then slot_keys is not null else waits_for in ('time', 'run') or slot_keys is null end
      else waits_for is null and due_at is null and (message_id is not null or status not in ('queued', 'started'))
        and (slot_keys is null or status in ('queued', 'started'))
    end
    and (slot_keys is null) = (slot_rank is null) and coalesce(cardinality(slot_keys), 1) between 1 and 3
  ),
  constraint started_has_its_time check (status <> 'started' or started_at is not null),
  constraint started_has_an_attempt check (status <> 'started' or attempts_count > 0),
  constraint completed_has_its_time check ((status = 'completed') = (completed_at is not null)),
  constraint failed_has_its_time check ((status = 'failed') = (failed_at is not null)),
  constraint failed_has_an_error check (status <> 'failed' or error_message is not null),
  constraint attempts_before_are_counted check (attempts_before between 0 and attempts_count)
) with (fillfactor = 50);
-- Only waiting tasks are in these. Their conditions name columns that are null for others, not the status: an index whose condition
-- names a column that changes would be written by every update.
create index step_tasks_due on pgflow.step_tasks (due_at) where due_at is not null;
create index step_tasks_waiting on pgflow.step_tasks (flow_slug, queued_at, run_id, step_slug) where waits_for in ('signal', 'time');
create index step_tasks_children on pgflow.step_tasks (run_id, step_slug, task_index) where waits_for = 'run';
-- The slots that tasks hold, and those that they wait for, by each key that a task has.
create index step_tasks_slots_1 on pgflow.step_tasks ((slot_keys[1]), waits_for, slot_keys, slot_rank) where slot_keys[1] is not null;
create index step_tasks_slots_2 on pgflow.step_tasks ((slot_keys[2]), waits_for, slot_keys, slot_rank) where slot_keys[2] is not null;
create index step_tasks_slots_3 on pgflow.step_tasks ((slot_keys[3]), waits_for, slot_keys, slot_rank) where slot_keys[3] is not null;
-- How many items of a map have failed.
create index step_tasks_failed on pgflow.step_tasks (run_id, step_slug, failed_at) where failed_at is not null;
comment on table pgflow.step_tasks is
  'A unit of work. Its message in the flow''s queue carries ids only; a task that is waiting has none: a signal, the time, a run of a sub-flow (child_run_id), a free slot or the next tick, which calls its function (waits_for sql), settles or queues it, at due_at at the latest; a single step''s output is kept in its step state. attempts_count never falls, since it is the fencing token; that of a sub-flow says how often its child was started or retried: attempts_before of them do not count any more, because the run was retried, a worker gave them back, or a failure said so. slot_keys are the keys of limits of whose slots it holds or awaits one each, in the order of slot_rank. last_error has name, message, code, stack and causes of what a handler threw last.';

create table pgflow.run_events (
  run_id uuid not null, -- of runs
  seq bigint not null,
  type text not null,
  step_slug text,
  at timestamptz not null,
  data jsonb,
  actor_id uuid,
  actor_role text,
  primary key (run_id, seq),
  constraint seq_is_positive check (seq > 0),
  constraint type_is_known check (type in (
    'run:started', 'run:waiting', 'run:begun', 'run:completed', 'run:failed', 'run:cancelled', 'run:retried',
    'step:started', 'step:admitted', 'step:progress', 'step:retrying', 'step:completed', 'step:failed', 'step:skipped', 'step:cancelled'
  )),
  constraint step_events_name_their_step check ((type like 'step:%') = (step_slug is not null))
);
create index run_events_by_actor on pgflow.run_events (actor_id) where actor_id is not null;
comment on table pgflow.run_events is
  'The log: one row for each transition of a run or step, numbered 1, 2, 3 … within the run, without gaps. data has the columns that it sets; null stands for none, and in step:started for one initial task. actor_id and actor_role say who started, cancelled or retried a run, or settled a task by hand; they are null where a worker did it.';

create table pgflow.run_watches (
  run_id uuid not null references pgflow.runs on delete cascade,
  topic text not null,
  watched_until timestamptz not null,
  constraint run_watches_pkey primary key (run_id, topic)
);
create index run_watches_until on pgflow.run_watches (watched_until);
comment on table pgflow.run_watches is
  'Who follows which run, as the Realtime topic to which its events are sent, and until when: only these runs are broadcast.';

create table pgflow.wait_assignees (
  run_id uuid not null references pgflow.runs on delete cascade,
  step_slug text not null,
  user_id uuid not null,
  flow_slug text not null,
  started_at timestamptz not null,
  is_open boolean not null default true,
  has_answered boolean not null default false,
  constraint wait_assignees_pkey primary key (run_id, step_slug, user_id)
);
create index wait_assignees_by_user on pgflow.wait_assignees (user_id, is_open, started_at, run_id, step_slug);
comment on table pgflow.wait_assignees is
  'Who is asked in a wait, from when it begins: a user, or everybody who is signed in as 00000000-0000-0000-0000-000000000000. is_open says whether it still waits, has_answered who completed it before it began.';

create table pgflow.inbox_watches (
  topic text primary key,
  user_id uuid not null,
  watched_until timestamptz not null
);
create index inbox_watches_by_user on pgflow.inbox_watches (user_id);
comment on table pgflow.inbox_watches is
  'Who follows the list of waits in which they are asked, as the Realtime topic to which news of it are sent, and until when.';

create table pgflow.limits (
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
comment on table pgflow.limits is
  'How many tasks of each key are queued or started at the same time at most (running), and how many are admitted in rate_period seconds at most (rate_count). made_by says who decides: the definition of a flow, or SQL, which no definition changes.';

create table pgflow.limit_uses (
  flow_slug text not null references pgflow.flows,
  step_slug text not null,
  limit_slug text not null references pgflow.limits,
  by_path text,
  primary key (flow_slug, step_slug, limit_slug),
  constraint by_path_has_1000_characters_at_most check (length(by_path) <= 1000)
);
create index limit_uses_by_limit on pgflow.limit_uses (limit_slug);
comment on table pgflow.limit_uses is
  'Which limits the tasks of a step have, or where step_slug is * those of all steps of the flow together. Each value at by_path in the step''s input has a limit of its own; without a path all tasks share one.';

create table pgflow.limit_keys (
  slot_key text primary key,
  next_at timestamptz,
  last_keys text[]
);
comment on table pgflow.limit_keys is
  'Of a key of a limit with a rate, from when on it admits the next task. Of one that many combinations of keys wait for, which was looked at last.';

create table pgflow.alarms (
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
-- A kind of which many are due is in the way of no other.
create index alarms_by_kind on pgflow.alarms (kind, due_at, alarm_id);
comment on table pgflow.alarms is
  'What has to be looked at from due_at on: a key of a limit that may have a free slot, the deadline of a run or step, a run that begins later, a step that starts runs of a sub-flow (child), a child that has ended (or a step whose children may have), is to be cancelled or was retried, a run to undo, a step that calls a function (sql). An alarm may come in vain.';

create table pgflow.kept_results (
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
comment on table pgflow.kept_results is
  'What handlers have kept by a name, so that a later attempt of the task does not do it again. bytes is the size of the value as JSON text, attempt the one that kept it.';

create table pgflow.workers (
  worker_id uuid primary key,
  name text not null,
  flow_slugs text[] not null,
  started_at timestamptz not null,
  last_heartbeat_at timestamptz not null,
  waiting_until timestamptz,
  stopped_at timestamptz
);
create index workers_waiting on pgflow.workers (waiting_until) where waiting_until is not null;
comment on table pgflow.workers is
  'Processes that take tasks, for people to look at; leases do not depend on it. Until waiting_until, a worker is notified of new tasks.';

create table pgflow.schedules (
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
create index schedules_by_due_time on pgflow.schedules (due_at);
create index schedules_by_alias on pgflow.schedules (alias);
comment on table pgflow.schedules is
  'When a flow is started by itself: the newest version of an alias, at the times of a cron expression in a time zone. While paused_at is set, times pass without a run. made_by says who decides about it: the definition of the flow, SQL, or the user who is its owner. next_at is the next nominal time, due_at adds the part of spread seconds that falls to this schedule; last_at is the last nominal time, last_run_id the run that was started last, last_problem why last_at has none.';

-- What belongs to runs and to step states is deleted with them, whoever deletes them.
create function pgflow.tg_runs__after_delete()
returns trigger
language plpgsql
security definer -- whoever may delete a run deletes what belongs to it
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
  run_ids uuid[] := array(select o.run_id from old_rows o);
begin
  if cardinality(run_ids) > 0 then
    delete from pgflow.step_states ss where ss.run_id = any (run_ids);
    delete from pgflow.run_events e where e.run_id = any (run_ids);
    if exists (select from pgflow.run_singletons) then
      perform pgflow.free_singletons(run_ids);
    end if;
    if exists (select from pgflow.kept_results) then
      delete from pgflow.kept_results k where k.run_id = any (run_ids);
    end if;
    if exists (select from old_rows o where o.depth > 0) then
      insert into pgflow.alarms (due_at, kind, run_id, step_slug)
      select distinct pgflow.now(), 'ended', o.parent_run_id, o.parent_step_slug
      from old_rows o
      join pgflow.runs parent on parent.run_id = o.parent_run_id
      where parent.status = 'started';
    end if;
  end if;
  return null;
end
$$;

create trigger _100_children after delete on pgflow.runs
  referencing old table as old_rows
  for each statement execute function pgflow.tg_runs__after_delete();

create function pgflow.tg_step_states__after_delete()
returns trigger
language plpgsql
security definer -- whoever may delete a step state deletes its tasks, which frees their slots
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
begin
  with deleted as (
    delete from pgflow.step_tasks t using old_rows o where (t.run_id, t.step_slug) = (o.run_id, o.step_slug)
    returning t.slot_keys, t.flow_slug, t.step_slug, case when t.status = 'waiting' then t.child_run_id end as child_run_id
  )
  insert into pgflow.alarms (due_at, kind, slot_key, run_id)
  select distinct pgflow.now(), 'slot', key, null::uuid from deleted d cross join unnest(d.slot_keys) key
  union all
  select pgflow.now(), 'cancel', null, d.child_run_id
  from deleted d
  where d.child_run_id is not null and exists (
    select from pgflow.steps s where s.flow_slug = d.flow_slug and s.step_slug = d.step_slug and s.when_parent_ends = 'cancel'
  );
  return null;
end
$$;

create trigger _100_children after delete on pgflow.step_states
  referencing old table as old_rows
  for each statement execute function pgflow.tg_step_states__after_delete();

-- `truncate pgflow.runs cascade` empties the tables that have a foreign key to it; these have none. (They cannot be truncated here
-- where the same statement truncates them.)
create function pgflow.tg_runs__after_truncate()
returns trigger
language plpgsql
security definer -- whoever may truncate runs deletes what belongs to them
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from pgflow.step_states;
  delete from pgflow.run_events;
  delete from pgflow.run_singletons;
  delete from pgflow.kept_results;
  return null;
end
$$;

create trigger _100_children_of_all after truncate on pgflow.runs
  for each statement execute function pgflow.tg_runs__after_truncate();

-- Large values are compressed by lz4 where the server has it, in a third of the time that the default takes.
do $$
declare
  value record;
begin
  if not exists (select from pg_settings s where s.name = 'default_toast_compression' and 'lz4' = any (s.enumvals)) then
    return;
  end if;
  for value in
    values ('runs', 'input'), ('runs', 'output'), ('step_states', 'output'), ('step_tasks', 'input'), ('step_tasks', 'output')
  loop
    execute format('alter table pgflow.%I alter column %I set compression lz4', value.column1, value.column2);
  end loop;
end
$$;
