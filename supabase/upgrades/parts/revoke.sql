-- In place of the chapter's revokes: they are for what is new (outside a transaction, for everything).
do $$
declare
  object text;
begin
  for object in
    select format('function %s', p.oid::regprocedure)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('pgflow', 'pgflow_public', 'pgflow_worker') and p.oid <> all (coalesce(nullif(current_setting('pgflow.existing', true), ''), '{}')::oid[])
    union all
    select format('table %s', c.oid::regclass)
    from pg_class c
    where c.relnamespace = 'pgflow'::regnamespace and c.relkind in ('r', 'v', 'S') and c.oid <> all (coalesce(nullif(current_setting('pgflow.existing', true), ''), '{}')::oid[])
  loop
    execute format('revoke all on %s from public, anon, authenticated, service_role', object);
  end loop;
end
$$;
