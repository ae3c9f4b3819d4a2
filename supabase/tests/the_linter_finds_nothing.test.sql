begin;
select plan(6);

-- The rules of Supabase's database linter, over our schemas, public, and our policies elsewhere.
create temp view our_tables as
select c.oid, c.relnamespace, c.relkind, c.relrowsecurity, c.relacl, c.reloptions, c.oid::regclass::text as name
from pg_class c where c.relnamespace in ('pgflow'::regnamespace, 'pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace) and c.relkind in ('r', 'p', 'v', 'm', 'f');
create temp view our_functions as
select p.*, p.oid::regprocedure::text as name from pg_proc p where p.pronamespace in ('pgflow'::regnamespace, 'pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace);
create temp view our_policies as
select p.*, format('%I on %I.%I', p.policyname, p.schemaname, p.tablename) as name, concat(p.qual, ' ', p.with_check) as condition,
       format('%I.%I', p.schemaname, p.tablename)::regclass as relation
from pg_policies p where p.schemaname in ('pgflow', 'pgflow_public', 'pgflow_worker') or p.policyname like 'pgflow%';
create temp view clients as select unnest(array['anon', 'authenticated']) as role;

create temp view lints as
select '0001 unindexed_foreign_keys' as lint, k.conname::text as object
from pg_constraint k join our_tables t on t.oid = k.conrelid
where k.contype = 'f' and not exists (
  select from pg_index i
  where i.indrelid = k.conrelid and i.indpred is null and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
)
union all
select '0002 auth_users_exposed', t.name from our_tables t
join pg_rewrite w on w.ev_class = t.oid
join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
where t.relkind in ('v', 'm') and d.refobjid = to_regclass('auth.users')
union all
select '0003 auth_rls_initplan', p.name from our_policies p
where regexp_replace(p.condition, '\(\s*SELECT\s+[^()]*\([^()]*\)', '', 'gi') ~* '(auth\.(uid|jwt|role|email)|current_setting|realtime\.topic)\s*\('
union all
select '0004 no_primary_key', t.name from our_tables t
where t.relkind in ('r', 'p') and not exists (select from pg_constraint k where k.conrelid = t.oid and k.contype = 'p')
union all
select '0006 multiple_permissive_policies', format('%s, %s, %s', p.relation, role, action)
from our_policies p cross join unnest(p.roles) role
cross join unnest(case p.cmd when 'ALL' then array['SELECT', 'INSERT', 'UPDATE', 'DELETE'] else array[p.cmd] end) action
where p.permissive = 'PERMISSIVE'
group by p.relation, role, action having count(*) > 1
union all
select '0007 policy_exists_rls_disabled', p.name from our_policies p join pg_class c on c.oid = p.relation where not c.relrowsecurity
union all
select '0008 rls_enabled_no_policy', t.name from our_tables t
where t.relrowsecurity and not exists (select from pg_policy p where p.polrelid = t.oid)
union all
select '0009 duplicate_index', min(i.indexrelid::regclass::text) from pg_index i join our_tables t on t.oid = i.indrelid
group by i.indrelid, i.indkey::text, i.indclass::text, i.indoption::text, pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)
having count(*) > 1
union all
select '0010 security_definer_view', t.name from our_tables t
where t.relkind = 'v' and not coalesce(t.reloptions @> array['security_invoker=true'], false)
union all
select '0011 function_search_path_mutable', f.name from our_functions f
where not exists (select from unnest(f.proconfig) s where s like 'search_path=%')
union all
select '0013 rls_disabled', t.name from our_tables t where t.relkind in ('r', 'p') and not t.relrowsecurity
union all
select '0014 extension_in_public', e.extname from pg_extension e
where e.extnamespace in ('public'::regnamespace, 'pgflow'::regnamespace, 'pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace)
union all
select '0015 rls_references_user_metadata', p.name from our_policies p where p.condition ~* 'user_metadata'
union all
select '0016 materialized_view_in_api', t.name from our_tables t where t.relkind = 'm'
union all
select '0017 foreign_table_in_api', t.name from our_tables t where t.relkind = 'f'
union all
select '0018 unsupported_reg_types', format('%s.%s', t.name, a.attname) from our_tables t join pg_attribute a on a.attrelid = t.oid
where a.atttypid in (
  'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype, 'regclass'::regtype, 'regtype'::regtype,
  'regcollation'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype, 'regnamespace'::regtype, 'regrole'::regtype
)
union all
select '0019 insecure_queue_exposed_in_api', format('%s by %s', c.oid::regclass, role) from pg_class c cross join clients
where c.relnamespace = 'pgmq'::regnamespace and c.relkind in ('r', 'p') and c.relname ~ '^[qa]_' and has_table_privilege(role, c.oid, 'select')
union all
select '0021 fkey_to_auth_unique', k.conname from pg_constraint k join our_tables t on t.oid = k.conrelid
join pg_class target on target.oid = k.confrelid
where k.contype = 'f' and target.relnamespace = to_regnamespace('auth')
union all
select '0023 sensitive_columns_exposed', format('%s.%s', t.name, a.attname) from our_tables t join pg_attribute a on a.attrelid = t.oid
where a.attnum > 0 and a.attname ~* '^(.*_)?(password|passwd|secret|token|api_?key|access_key|private_key|session_id|otp|ssn|pin|cvv|iban)(_.*)?$'
union all
select '0024 rls_policy_always_true', p.name from our_policies p
where p.cmd <> 'SELECT' and 'true' in (p.qual, p.with_check) and p.roles && array['public', 'anon', 'authenticated']::name[]
union all
select '0026/0027 table_exposed_to_clients', format('%s by %s', t.name, role) from our_tables t cross join clients
where has_any_column_privilege(role, t.oid, 'select')
union all
select '0028/0029 exposed_security_definer_function', f.name from our_functions f
where f.pronamespace in ('pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace) and f.prosecdef;

select is_empty('select lint, object from lints', 'nothing of ours is to be found');
select is_empty(
  $$ select name, roles from our_policies where roles && array['public']::name[] $$, 'every policy says TO whom'
);
select is_empty(
  $$ select t.name from our_tables t where t.relnamespace in ('pgflow_public'::regnamespace, 'pgflow_worker'::regnamespace) $$, 'the exposed schemas have functions only'
);
-- Where the extension pg_graphql is, it reflects what clients can select: nothing.
select is_empty(
  $$ select name, role from our_functions cross join clients
     where prorettype in (select c.reltype from pg_class c where c.relnamespace = 'pgflow'::regnamespace)
       and has_function_privilege(role, oid, 'execute') $$,
  'nor do clients get rows of tables from functions'
);

-- Each rule can find something.
create table pgflow.bad (
  flow_slug text references pgflow.flows, user_id uuid references auth.users (id), kind regclass, api_key text
);
create index bad_1 on pgflow.bad (kind);
create index bad_2 on pgflow.bad (kind);
create policy one on pgflow.bad for insert to authenticated with check (true);
create policy two on pgflow.bad for all to authenticated using ((auth.jwt() -> 'user_metadata') is not null);
create table pgflow.bad_closed (id int primary key);
alter table pgflow.bad_closed enable row level security;
create view pgflow_public.bad_view as select id from auth.users;
create materialized view pgflow_public.bad_materialized as select 1 as id;
create function pgflow_public.bad_function() returns int language sql security definer as 'select 1';
grant select on pgflow.bad to anon;
select pgmq.create('bad');
grant select on pgmq.q_bad to anon;
select set_eq(
  $$ select distinct left(lint, 4) from lints $$,
  array['0001', '0002', '0003', '0004', '0006', '0007', '0008', '0009', '0010', '0011', '0013', '0015', '0016', '0018', '0019', '0021', '0023',
        '0024', '0026', '0028'],
  'each rule finds what breaks it; two would need an extension to be broken'
);
select is((select count(*) from lints where object like '%bad%' or object in ('one on pgflow.bad')), (select count(*) from lints), 'and nothing else');

select * from finish();
rollback;
