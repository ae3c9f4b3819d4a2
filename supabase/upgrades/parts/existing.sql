-- What was there before keeps its grants, with those that a project has added.
select set_config('pgflow.existing', array(
  select p.oid from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker')
  union all
  select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker')
)::text, true);
