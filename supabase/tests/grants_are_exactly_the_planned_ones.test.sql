begin;
select plan(10);

create temp view client_roles as
select r.oid, r.rolname as role from pg_roles r where r.rolname in ('anon', 'authenticated', 'service_role');

create temp view functions as
select p.oid, p.oid::regprocedure::text as name, p.proacl, p.proowner
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker');

select is_empty(
  $$ select f.name, acl.privilege_type from functions f
     cross join aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) acl
     where acl.grantee = 0 $$,
  'PUBLIC executes nothing'
);

prepare executable_by as
select f.name from functions f where has_function_privilege($1, f.oid, 'execute');

select set_eq(
  $$ execute executable_by('anon') $$,
  array[
    'pgflow.client_cancel_run(uuid,text,boolean)',
    'pgflow.client_complete_wait(uuid,text,jsonb)',
    'pgflow.client_list_waits(text,integer,jsonb,uuid,text)',
    'pgflow.client_reject_wait(uuid,text,text)',
    'pgflow_public.complete_wait(uuid,text,jsonb)',
    'pgflow_public.list_waits(text,integer,jsonb,uuid,text)',
    'pgflow_public.reject_wait(uuid,text,text)',
    'pgflow.client_get_run(uuid,text)',
    'pgflow.client_get_run_events(uuid,bigint,text)',
    'pgflow.client_list_children(uuid,text,integer,integer)',
    'pgflow.client_list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow.client_retry_run(uuid)',
    'pgflow.client_start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow.client_sync(jsonb,text)',
    'pgflow.client_start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)',
    'pgflow_public.get_run(uuid,text)',
    'pgflow_public.cancel_run(uuid,text,boolean)',
    'pgflow_public.get_run_events(uuid,bigint,text)',
    'pgflow_public.list_children(uuid,text,integer,integer)',
    'pgflow_public.list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow_public.retry_run(uuid)',
    'pgflow.schema_version()',
    'pgflow_public.schema_version()',
    'pgflow.client_change_schedule(text,text,uuid)',
    'pgflow.client_list_schedules(text,uuid)',
    'pgflow.client_schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow_public.delete_schedule(text,uuid)',
    'pgflow_public.list_schedules(text,uuid)',
    'pgflow_public.pause_schedule(text,uuid)',
    'pgflow_public.resume_schedule(text,uuid)',
    'pgflow_public.schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow_public.start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow_public.sync(jsonb,text)',
    'pgflow_public.start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)'
  ],
  'what anon executes'
);

select set_eq(
  $$ execute executable_by('authenticated') $$,
  array[
    'pgflow.can_access_run(uuid,uuid,uuid,text)',
    'pgflow.can_read_topic(text)',
    'pgflow.client_cancel_run(uuid,text,boolean)',
    'pgflow.client_complete_wait(uuid,text,jsonb)',
    'pgflow.client_list_waits(text,integer,jsonb,uuid,text)',
    'pgflow.client_reject_wait(uuid,text,text)',
    'pgflow_public.complete_wait(uuid,text,jsonb)',
    'pgflow_public.list_waits(text,integer,jsonb,uuid,text)',
    'pgflow_public.reject_wait(uuid,text,text)',
    'pgflow.client_get_run(uuid,text)',
    'pgflow.client_get_run_events(uuid,bigint,text)',
    'pgflow.client_list_children(uuid,text,integer,integer)',
    'pgflow.client_list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow.client_retry_run(uuid)',
    'pgflow.client_start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow.client_sync(jsonb,text)',
    'pgflow.client_start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)',
    'pgflow.current_user_id()',
    'pgflow_public.get_run(uuid,text)',
    'pgflow_public.cancel_run(uuid,text,boolean)',
    'pgflow_public.get_run_events(uuid,bigint,text)',
    'pgflow_public.list_children(uuid,text,integer,integer)',
    'pgflow_public.list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow_public.retry_run(uuid)',
    'pgflow.schema_version()',
    'pgflow_public.schema_version()',
    'pgflow.client_change_schedule(text,text,uuid)',
    'pgflow.client_list_schedules(text,uuid)',
    'pgflow.client_schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow_public.delete_schedule(text,uuid)',
    'pgflow_public.list_schedules(text,uuid)',
    'pgflow_public.pause_schedule(text,uuid)',
    'pgflow_public.resume_schedule(text,uuid)',
    'pgflow_public.schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow_public.start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow_public.sync(jsonb,text)',
    'pgflow_public.start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)'
  ],
  'what authenticated executes'
);

select set_eq(
  $$ execute executable_by('service_role') $$,
  array[
    'pgflow.client_cancel_run(uuid,text,boolean)',
    'pgflow.client_complete_wait(uuid,text,jsonb)',
    'pgflow.client_list_waits(text,integer,jsonb,uuid,text)',
    'pgflow.client_reject_wait(uuid,text,text)',
    'pgflow_public.complete_wait(uuid,text,jsonb)',
    'pgflow_public.list_waits(text,integer,jsonb,uuid,text)',
    'pgflow_public.reject_wait(uuid,text,text)',
    'pgflow.client_get_run(uuid,text)',
    'pgflow.client_get_run_events(uuid,bigint,text)',
    'pgflow.client_list_children(uuid,text,integer,integer)',
    'pgflow.client_list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow.client_retry_run(uuid)',
    'pgflow.client_start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow.client_sync(jsonb,text)',
    'pgflow.client_start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)',
    'pgflow.complete_in_transaction(uuid,text,integer,integer,jsonb)',
    'pgflow.keep_result(uuid,text,integer,integer,text,jsonb)',
    'pgflow.kept_results_of(uuid,text,integer)',
    'pgflow_worker.keep_result(uuid,text,integer,integer,text,jsonb)',
    'pgflow_worker.kept_results_of(uuid,text,integer)',
    'pgflow.fetch_value(uuid,text,text)',
    'pgflow.forget_owner(uuid,integer)',
    'pgflow.hand_back(jsonb)',
    'pgflow.heartbeat(uuid,jsonb,integer)',
    'pgflow.register_flow(jsonb)',
    'pgflow.register_worker(uuid,text,text[])',
    'pgflow.report_progress(jsonb)',
    'pgflow.settle_and_claim(jsonb,text[],integer,uuid,integer,integer,boolean)',
    'pgflow.stop_worker(uuid)',
    'pgflow.next_due_in()',
    'pgflow.settle_due(integer)',
    'pgflow.call_functions(integer)',
    'pgflow.call_timeout()',
    'pgflow.next_call_in()',
    'pgflow_worker.call_functions(integer)',
    'pgflow.tick(integer)',
    'pgflow_worker.tick(integer)',
    'pgflow_worker.schema_version()',
    'pgflow_worker.fetch_value(uuid,text,text)',
    'pgflow_public.get_run(uuid,text)',
    'pgflow_public.forget_owner(uuid,integer)',
    'pgflow_worker.hand_back(jsonb)',
    'pgflow_worker.heartbeat(uuid,jsonb,integer)',
    'pgflow_worker.register_flow(jsonb)',
    'pgflow_worker.register_worker(uuid,text,text[])',
    'pgflow_worker.report_progress(jsonb)',
    'pgflow_worker.settle_and_claim(jsonb,text[],integer,uuid,integer,integer)',
    'pgflow_worker.stop_worker(uuid)',
    'pgflow_public.cancel_run(uuid,text,boolean)',
    'pgflow_public.get_run_events(uuid,bigint,text)',
    'pgflow_public.list_children(uuid,text,integer,integer)',
    'pgflow_public.list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow_public.retry_run(uuid)',
    'pgflow.schema_version()',
    'pgflow_public.schema_version()',
    'pgflow.client_change_schedule(text,text,uuid)',
    'pgflow.client_list_schedules(text,uuid)',
    'pgflow.client_schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow_public.delete_schedule(text,uuid)',
    'pgflow_public.list_schedules(text,uuid)',
    'pgflow_public.pause_schedule(text,uuid)',
    'pgflow_public.resume_schedule(text,uuid)',
    'pgflow_public.schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow_public.start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow_public.sync(jsonb,text)',
    'pgflow_public.start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)'
  ],
  'what service_role executes'
);

select is_empty(
  $$ select role, c.oid::regclass, privilege
     from client_roles, pg_class c, unnest(array[
       'select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger',
       case when current_setting('server_version_num')::int >= 170000 then 'maintain' else 'trigger' end
     ]) privilege
     where c.relnamespace in ('pgflow'::regnamespace, 'pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace)
       and c.relkind in ('r', 'v', 'm', 'p', 'f')
       and has_table_privilege(role, c.oid, privilege) $$,
  'no table privileges for clients'
);

select is_empty(
  $$ select role, c.oid::regclass
     from client_roles, pg_class c
     where c.relnamespace in ('pgflow'::regnamespace, 'pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace)
       and c.relkind in ('r', 'v', 'm', 'p', 'f')
       and has_any_column_privilege(role, c.oid, 'select, insert, update, references') $$,
  'nor privileges on columns'
);

select is_empty(
  $$ select c.oid::regclass from pg_class c
     cross join aclexplode(c.relacl) acl
     where c.relnamespace = 'pgflow'::regnamespace and acl.grantee = 0 $$,
  'PUBLIC has no table privileges either'
);

select is_empty(
  $$ select role, n.nspname from client_roles, pg_namespace n
     where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker') and has_schema_privilege(role, n.oid, 'create') $$,
  'clients create nothing in our schemas'
);

select set_eq(
  $$ select format('%s: %s', role, n.nspname) from client_roles, pg_namespace n
     where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker') and has_schema_privilege(role, n.oid, 'usage') $$,
  array[
    'anon: pgflow', 'anon: pgflow_public',
    'authenticated: pgflow', 'authenticated: pgflow_public',
    'service_role: pgflow', 'service_role: pgflow_public', 'service_role: pgflow_worker'
  ],
  'the schema of workers is for the service role'
);

select is_empty(
  $$ select role, c.oid::regclass from client_roles, pg_class c
     where c.relnamespace = 'pgmq'::regnamespace and c.relkind = 'r'
       and c.relname like any (array['q\_%', 'a\_%']) and has_table_privilege(role, c.oid, 'select, insert, update, delete') $$,
  'clients do not reach the queues'
);

select * from finish();
rollback;
