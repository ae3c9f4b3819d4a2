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
