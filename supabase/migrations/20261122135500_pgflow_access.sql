-- Chapter 38: who may do what. All policies and grants.
--
-- Clients reach nothing but pgflow_public (workers with a secret key: pgflow_worker) and the few definer functions that it calls. Tables have row level security and no
-- grants to clients: a second wall.

-- Row level security: the own runs for users, where somebody grants them the tables; everything else is closed. The rule is
-- asked for others' runs only: it costs a call a row.

alter table pgflow.flows enable row level security;
alter table pgflow.flow_aliases enable row level security;
alter table pgflow.steps enable row level security;
alter table pgflow.deps enable row level security;
alter table pgflow.runs enable row level security;
alter table pgflow.run_keys enable row level security;
alter table pgflow.run_singletons enable row level security;
alter table pgflow.step_states enable row level security;
alter table pgflow.step_tasks enable row level security;
alter table pgflow.run_events enable row level security;
alter table pgflow.run_watches enable row level security;
alter table pgflow.wait_assignees enable row level security;
alter table pgflow.alarms enable row level security;
alter table pgflow.kept_results enable row level security;
alter table pgflow.inbox_watches enable row level security;
alter table pgflow.limit_keys enable row level security;
alter table pgflow.limit_uses enable row level security;
alter table pgflow.limits enable row level security;
alter table pgflow.workers enable row level security;
alter table pgflow.schedules enable row level security;

create policy own_runs on pgflow.runs for select to authenticated
  using (
    owner_id = (select pgflow.current_user_id()) or pgflow.can_access_run(run_id, owner_id, group_id, 'view')
  );
create policy own_step_states on pgflow.step_states for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = step_states.run_id));
create policy own_run_events on pgflow.run_events for select to authenticated
  using (exists (select from pgflow.runs r where r.run_id = run_events.run_id));

create policy closed on pgflow.flows for all to anon, authenticated using (false);
create policy closed on pgflow.flow_aliases for all to anon, authenticated using (false);
create policy closed on pgflow.steps for all to anon, authenticated using (false);
create policy closed on pgflow.deps for all to anon, authenticated using (false);
create policy closed on pgflow.run_keys for all to anon, authenticated using (false);
create policy closed on pgflow.run_singletons for all to anon, authenticated using (false);
create policy closed on pgflow.step_tasks for all to anon, authenticated using (false);
create policy closed on pgflow.run_watches for all to anon, authenticated using (false);
create policy closed on pgflow.wait_assignees for all to anon, authenticated using (false);
create policy closed on pgflow.alarms for all to anon, authenticated using (false);
create policy closed on pgflow.kept_results for all to anon, authenticated using (false);
create policy closed on pgflow.inbox_watches for all to anon, authenticated using (false);
create policy closed on pgflow.limit_keys for all to anon, authenticated using (false);
create policy closed on pgflow.limit_uses for all to anon, authenticated using (false);
create policy closed on pgflow.limits for all to anon, authenticated using (false);
create policy closed on pgflow.workers for all to anon, authenticated using (false);
create policy closed on pgflow.schedules for all to anon, authenticated using (false);

-- The private channels. Nobody may insert, so that events cannot be forged. Topics pgflow:watch:<id> are for clients with a
-- secret key, which policies do not bind.

-- Whether the caller may listen to a topic: their own, which is decided without a look at any table; or that of a run that
-- they can access, to which flows with broadcast = 'always' send. Never raises, whatever the topic.
create function pgflow.can_read_topic(topic text)
returns boolean
language sql
stable
security definer -- clients have no rights on runs
set search_path = pg_catalog, pg_temp
as $$
  select case
    when can_read_topic.topic ~ '^pgflow:run:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then exists (
      select from pgflow.runs r
      where r.run_id = substr(can_read_topic.topic, 12)::uuid
        and (
          r.owner_id = (select pgflow.current_user_id())
          or pgflow.can_access_run(r.run_id, r.owner_id, r.group_id, 'view')
        )
    )
    else coalesce(can_read_topic.topic = 'pgflow:user:' || pgflow.current_user_id(), false)
  end
$$;

do $$
begin
  if to_regclass('realtime.messages') is not null then
    drop policy if exists pgflow_run_channels on realtime.messages;
    create policy pgflow_run_channels on realtime.messages for select to authenticated
      using (pgflow.can_read_topic((select realtime.topic())));
  end if;
end
$$;

-- Grants: execute is taken from everybody, then given by name.

revoke all on all tables in schema pgflow from public, anon, authenticated, service_role;
revoke all on all functions in schema pgflow, pgflow_public, pgflow_worker from public, anon, authenticated, service_role;

grant usage on schema pgflow_public, pgflow to anon, authenticated, service_role;

grant execute on function
  pgflow_public.start_flow(text, jsonb, text, jsonb, text, int, uuid, text),
  pgflow_public.start_flows(text, jsonb, text[], jsonb, text, int, uuid, text),
  pgflow_public.get_run(uuid, text),
  pgflow_public.get_run_events(uuid, bigint, text),
  pgflow_public.sync(jsonb, text),
  pgflow_public.list_runs(text, text, jsonb, uuid, uuid, int, uuid, text, boolean),
  pgflow_public.list_children(uuid, text, int, int),
  pgflow_public.cancel_run(uuid, text, boolean),
  pgflow_public.retry_run(uuid),
  pgflow_public.complete_wait(uuid, text, jsonb),
  pgflow_public.reject_wait(uuid, text, text),
  pgflow_public.list_waits(text, int, jsonb, uuid, text),
  pgflow_public.schema_version(),
  pgflow.schema_version(),
  pgflow.client_start_flow(text, jsonb, text, jsonb, text, int, uuid, text),
  pgflow.client_start_flows(text, jsonb, text[], jsonb, text, int, uuid, text),
  pgflow.client_get_run(uuid, text),
  pgflow.client_get_run_events(uuid, bigint, text),
  pgflow.client_sync(jsonb, text),
  pgflow.client_list_runs(text, text, jsonb, uuid, uuid, int, uuid, text, boolean),
  pgflow.client_list_children(uuid, text, int, int),
  pgflow.client_cancel_run(uuid, text, boolean),
  pgflow.client_retry_run(uuid),
  pgflow.client_complete_wait(uuid, text, jsonb),
  pgflow.client_reject_wait(uuid, text, text),
  pgflow.client_list_waits(text, int, jsonb, uuid, text)
to anon, authenticated, service_role;

-- Schedules of users; they need a user id, and the error says so.
grant execute on function
  pgflow_public.schedule_flow(text, text, jsonb, text, text, text, text, int, uuid),
  pgflow_public.list_schedules(text, uuid),
  pgflow_public.pause_schedule(text, uuid),
  pgflow_public.resume_schedule(text, uuid),
  pgflow_public.delete_schedule(text, uuid),
  pgflow.client_schedule_flow(text, text, jsonb, text, text, text, text, int, uuid),
  pgflow.client_list_schedules(text, uuid),
  pgflow.client_change_schedule(text, text, uuid)
to anon, authenticated, service_role;

grant execute on function pgflow.can_read_topic(text) to authenticated;
-- For teams that grant the tables to their users, whose policies call these.
grant execute on function pgflow.can_access_run(uuid, uuid, uuid, text), pgflow.current_user_id() to authenticated;

grant execute on function pgflow.forget_owner(uuid, int), pgflow_public.forget_owner(uuid, int) to service_role;

-- Workers with a secret key.

grant usage on schema pgflow_worker to service_role;

grant execute on function
  pgflow.register_flow(jsonb),
  pgflow.register_worker(uuid, text, text[]),
  pgflow.settle_and_claim(jsonb, text[], int, uuid, int, int, boolean),
  pgflow.heartbeat(uuid, jsonb, int),
  pgflow.hand_back(jsonb),
  pgflow.report_progress(jsonb),
  pgflow.fetch_value(uuid, text, text),
  pgflow.keep_result(uuid, text, int, int, text, jsonb),
  pgflow.kept_results_of(uuid, text, int),
  pgflow.tick(int),
  pgflow.settle_due(int),
  pgflow.next_due_in(),
  pgflow.call_functions(int),
  pgflow.call_timeout(),
  pgflow.next_call_in(),
  pgflow.stop_worker(uuid),
  pgflow_worker.schema_version(),
  pgflow_worker.register_flow(jsonb),
  pgflow_worker.register_worker(uuid, text, text[]),
  pgflow_worker.settle_and_claim(jsonb, text[], int, uuid, int, int),
  pgflow_worker.heartbeat(uuid, jsonb, int),
  pgflow_worker.hand_back(jsonb),
  pgflow_worker.report_progress(jsonb),
  pgflow_worker.fetch_value(uuid, text, text),
  pgflow_worker.keep_result(uuid, text, int, int, text, jsonb),
  pgflow_worker.kept_results_of(uuid, text, int),
  pgflow_worker.tick(int),
  pgflow_worker.call_functions(int),
  pgflow_worker.stop_worker(uuid)
to service_role;

-- For functions that users call with a secret key: their writes and the completion of a task commit together.
grant execute on function pgflow.complete_in_transaction(uuid, text, int, int, jsonb) to service_role;
