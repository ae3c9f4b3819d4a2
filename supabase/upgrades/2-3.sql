-- From version 2 to 3: watches name their topic.

-- A watch names the topic to which events are sent. Clients watch again within seconds.
do $$
begin
  if not exists (
    select from pg_attribute a
    where a.attrelid = 'pgflow.run_watches'::regclass and a.attname = 'topic' and not a.attisdropped
  ) then
    delete from pgflow.run_watches;
    alter table pgflow.run_watches
      drop constraint run_watches_pkey,
      drop column watched_until,
      add column topic text not null,
      add column watched_until timestamptz not null,
      add constraint run_watches_pkey primary key (run_id, topic);
  end if;
end
$$;
create index if not exists run_watches_until on pgflow.run_watches (watched_until);
create index if not exists flows_always_broadcast on pgflow.flows (flow_slug) where broadcast = 'always';

drop function if exists pgflow_public.start_flow(text, jsonb, text, jsonb, boolean, int, uuid);
drop function if exists pgflow_public.start_flows(text, jsonb, text[], jsonb, int, uuid);
drop function if exists pgflow_public.get_run(uuid, boolean);
drop function if exists pgflow_public.get_run_events(uuid, bigint, boolean);
drop function if exists pgflow_public.list_runs(text, text, jsonb, uuid, uuid, int, uuid);
drop function if exists pgflow.client_start_flow(text, jsonb, text, jsonb, boolean, int, uuid);
drop function if exists pgflow.client_start_flows(text, jsonb, text[], jsonb, int, uuid);
drop function if exists pgflow.client_get_run(uuid, boolean);
drop function if exists pgflow.client_get_run_events(uuid, bigint, boolean);
drop function if exists pgflow.client_list_runs(text, text, jsonb, uuid, uuid, int, uuid);

comment on function pgflow.watch_run(uuid) is null;

-- Events come from the transition tables themselves.
drop function if exists pgflow.append_run_events(uuid[], text);
drop function if exists pgflow.append_step_events(pgflow.step_transition[]);
drop type if exists pgflow.step_transition;
