-- What an upgrade begins with. The setting pgflow.upgrade says from which version to which it goes, as '1 to 2'; it holds for
-- this transaction.
do $$
declare
  versions int[] := string_to_array(nullif(current_setting('pgflow.upgrade', true), ''), ' to ');
  installed int;
begin
  if versions is null then
    raise exception using
      errcode = 'PT400',
      message = 'an upgrade of pgflow has to run in one transaction',
      hint = 'Apply it as a migration (supabase db push), or with psql --single-transaction.';
  end if;
  if to_regprocedure('pgflow.schema_version()') is null then
    raise exception using
      errcode = 'PT404',
      message = 'pgflow is not installed in this database',
      hint = 'To install it, run: npx pgflow init';
  end if;
  execute 'select pgflow.schema_version()' into installed;
  if installed not between versions[1] and versions[2] then
    raise exception using
      errcode = 'PT409',
      message = format(
        'this is the upgrade of pgflow from version %s to %s, and this database has version %s', versions[1], versions[2], installed
      ),
      hint = 'To get the right one, run: npx pgflow upgrade';
  end if;
end
$$;
