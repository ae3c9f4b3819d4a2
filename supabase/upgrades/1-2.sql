-- From version 1 to 2: what workers with a secret key call has a schema of its own.

create schema if not exists pgflow_worker;

drop function if exists pgflow_public.register_flow(jsonb);
drop function if exists pgflow_public.register_worker(uuid, text, text[]);
drop function if exists pgflow_public.settle_and_claim(jsonb, text[], int, uuid, int, int);
drop function if exists pgflow_public.heartbeat(uuid, jsonb, int);
drop function if exists pgflow_public.hand_back(jsonb);
drop function if exists pgflow_public.report_progress(jsonb);
drop function if exists pgflow_public.fetch_value(uuid, text, text);
drop function if exists pgflow_public.stop_worker(uuid);

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
