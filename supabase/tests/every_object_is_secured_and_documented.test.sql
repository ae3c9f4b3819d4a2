begin;
select plan(13);

create temp view ours as
select p.oid, p.oid::regprocedure::text as name, n.nspname as schema, p.prosecdef, p.proconfig, p.proacl, p.proowner
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker');

select is_empty(
  $$ select name from ours
     where proconfig is null or proconfig[1] <> 'search_path=pg_catalog, pg_temp' or not proconfig[2:] <@ array[
       'plan_cache_mode=force_generic_plan', 'plan_cache_mode=force_custom_plan', 'enable_seqscan=off', 'enable_bitmapscan=off',
       'enable_hashjoin=off', 'enable_hashjoin=on', 'enable_mergejoin=off', 'enable_material=off', 'join_collapse_limit=1', 'jit=off', 'lock_timeout=3s',
       'lock_timeout=20ms', 'lock_timeout=500ms', 'statement_timeout=0', 'TimeZone=UTC', 'enable_indexscan=off', 'enable_indexonlyscan=off', 'enable_bitmapscan=on',
       'enable_indexscan=on', 'enable_indexonlyscan=on', 'enable_nestloop=on'
     ] $$,
  'every function looks for names in pg_catalog first and temporary schemas last, and has no other setting but those of its plans and locks'
);

select set_eq(
  $$ select name from ours where proconfig @> array[
       'plan_cache_mode=force_generic_plan', 'enable_seqscan=off', 'enable_bitmapscan=off', 'enable_hashjoin=off',
       'enable_mergejoin=off', 'enable_material=off', 'join_collapse_limit=1', 'jit=off'
     ] $$,
  array[
    'pgflow.begin_runs(integer)',
    'pgflow.cancel_run(uuid,text,boolean)',
    'pgflow.claim_tasks(text[],integer,uuid,integer,integer)',
    'pgflow.client_list_waits(text,integer,jsonb,uuid,text)',
    'pgflow.client_sync(jsonb,text)',
    'pgflow.complete_wait(uuid,text,jsonb)',
    'pgflow.reject_wait(uuid,text,text)',
    'pgflow.settle_due(integer)',
    'pgflow.call_functions(integer)',
    'pgflow.call_timeout()',
    'pgflow.extend_leases(jsonb,integer)',
    'pgflow.complete_in_transaction(uuid,text,integer,integer,jsonb)',
    'pgflow.keep_result(uuid,text,integer,integer,text,jsonb)',
    'pgflow.prune_kept_results(integer)',
    'pgflow.fetch_value(uuid,text,text)',
    'pgflow.flows_to_ask(text[],uuid[],uuid)',
    'pgflow.free_singletons(uuid[])',
    'pgflow.hand_back(jsonb)',
    'pgflow.store_errors(jsonb,bigint[])',
    'pgflow.report_progress(jsonb)',
    'pgflow.resend_messages(text[],integer)',
    'pgflow.retry_run(uuid)',
    'pgflow.settle(pgflow.task_result[],boolean,jsonb)',
    'pgflow.start_runs(text,uuid[],jsonb[],text[],uuid,uuid,jsonb,integer,text,boolean,boolean,pgflow.run_parent[])',
    'pgflow.tend_children(integer)',
    'pgflow.tg_run_events__after_insert()',
    'pgflow.tg_runs__after_delete()',
    'pgflow.tg_runs__after_insert()',
    'pgflow.tg_step_states__after_delete()',
    'pgflow.tg_step_states__after_insert()',
    'pgflow.watch_runs(uuid[],text,boolean)'
  ],
  'the entry points of the engine have all settings of their plans'
);

select is_empty(
  $$ select c.oid::regclass from pg_class c
     where c.relnamespace = 'pgflow'::regnamespace and c.relkind = 'r' and not c.relrowsecurity $$,
  'every table has row level security'
);

select is_empty(
  $$ select c.oid::regclass from pg_class c
     where c.relnamespace = 'pgflow'::regnamespace and c.relkind = 'r'
       and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'p') $$,
  'every table has a primary key'
);

select is_empty(
  $$ select k.conrelid::regclass, k.conname from pg_constraint k
     where k.connamespace = 'pgflow'::regnamespace and k.contype = 'f'
       and not exists (
         select from pg_index i
         where i.indrelid = k.conrelid and i.indpred is null
           and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
       ) $$,
  'every foreign key is covered by an index'
);

select is_empty(
  $$ select indrelid::regclass, array_agg(indexrelid::regclass) from pg_index
     where indrelid::regclass::text like 'pgflow.%'
     group by indrelid, indkey, indpred::text having count(*) > 1 $$,
  'no index is there twice'
);

select set_eq(
  $$ select name from ours where prosecdef $$,
  array[
    'pgflow.can_read_topic(text)',
    'pgflow.client_change_schedule(text,text,uuid)',
    'pgflow.client_list_schedules(text,uuid)',
    'pgflow.client_schedule_flow(text,text,jsonb,text,text,text,text,integer,uuid)',
    'pgflow.client_cancel_run(uuid,text,boolean)',
    'pgflow.client_get_run(uuid,text)',
    'pgflow.client_get_run_events(uuid,bigint,text)',
    'pgflow.client_list_children(uuid,text,integer,integer)',
    'pgflow.client_list_runs(text,text,jsonb,uuid,uuid,integer,uuid,text,boolean)',
    'pgflow.client_retry_run(uuid)',
    'pgflow.client_start_flow(text,jsonb,text,jsonb,text,integer,uuid,text)',
    'pgflow.client_start_flows(text,jsonb,text[],jsonb,text,integer,uuid,text)',
    'pgflow.client_sync(jsonb,text)',
    'pgflow.complete_in_transaction(uuid,text,integer,integer,jsonb)',
    'pgflow.keep_result(uuid,text,integer,integer,text,jsonb)',
    'pgflow.kept_results_of(uuid,text,integer)',
    'pgflow.fetch_value(uuid,text,text)',
    'pgflow.forget_owner(uuid,integer)',
    'pgflow.hand_back(jsonb)',
    'pgflow.heartbeat(uuid,jsonb,integer)',
    'pgflow.register_flow(jsonb)',
    'pgflow.register_worker(uuid,text,text[])',
    'pgflow.report_progress(jsonb)',
    'pgflow.settle_and_claim(jsonb,text[],integer,uuid,integer,integer,boolean)',
    'pgflow.stop_worker(uuid)',
    'pgflow.client_complete_wait(uuid,text,jsonb)',
    'pgflow.client_reject_wait(uuid,text,text)',
    'pgflow.client_list_waits(text,integer,jsonb,uuid,text)',
    'pgflow.next_due_at()',
    'pgflow.next_due_in()',
    'pgflow.send_inbox_news(pgflow.wait_assignees[])',
    'pgflow.tick(integer)',
    'pgflow.settle_due(integer)',
    'pgflow.call_functions(integer)',
    'pgflow.call_timeout()',
    'pgflow.next_call_in()',
    'pgflow.tg_definitions__before_delete()',
    'pgflow.tg_run_events__after_insert()',
    'pgflow.tg_step_states__after_insert()',
    'pgflow.tg_runs__after_delete()',
    'pgflow.tg_runs__after_insert()',
    'pgflow.tg_runs__after_truncate()',
    'pgflow.tg_runs__after_update()',
    'pgflow.tg_step_states__after_delete()',
    'pgflow.tg_step_states__after_insert()',
    'pgflow.tg_step_states__after_update()'
  ],
  'security definer: exactly these, none of them exposed'
);

select is_empty(
  $$ select c.oid::regclass from pg_class c
     where c.relnamespace = 'pgflow'::regnamespace and c.relkind = 'v'
       and not c.reloptions @> array['security_invoker=true'] $$,
  'views look with the eyes of who asks'
);

select is_empty(
  $$ select p.policyname from pg_policies p
     where (p.schemaname = 'pgflow' or p.policyname like 'pgflow%') and p.roles && array['public'::name] $$,
  'every policy says TO whom'
);

select is_empty(
  $$ select p.policyname from pg_policies p
     where p.schemaname = 'realtime' and p.tablename = 'messages' and p.cmd <> 'SELECT' $$,
  'no policy lets anybody write to realtime.messages'
);

select is_empty(
  $$ select c.oid::regclass from pg_class c
     where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'v') and obj_description(c.oid) is null $$,
  'every table and view has a comment'
);

select is_empty(
  $$ select name from ours where schema <> 'pgflow' and obj_description(oid) is null $$,
  'every exposed function has a comment'
);

select is_empty(
  $$ select p.oid::regprocedure from pg_proc p join ours using (oid)
     where regexp_count(p.prosrc, 'raise exception') <> regexp_count(p.prosrc, 'errcode = ''(PT4\d\d|40001)''')
        or regexp_count(p.prosrc, 'raise exception') <> regexp_count(p.prosrc, 'hint = ') $$,
  'every error has a code of ours and a hint'
);

select * from finish();
rollback;
