begin;
select plan(2);

create function pg_temp.has_lz4() returns boolean language sql as $$
  select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression'
$$;

select results_eq(
  $$ select format('%s.%s', c.relname, a.attname) collate "default"
     from pg_attribute a join pg_class c on c.oid = a.attrelid
     where c.relnamespace = 'pgflow'::regnamespace and c.relkind = 'r' and a.attcompression = 'l'
     order by 1 $$,
  $$ select * from unnest(array[
       'runs.input', 'runs.output', 'step_states.output', 'step_tasks.input', 'step_tasks.output'
     ]) where pg_temp.has_lz4() $$,
  'inputs and outputs are, where the server has it'
);
select pgflow.create_flow('f'), pgflow.add_step('f', 'a');
select pgflow.start_flow('f', to_jsonb(repeat('large ', 10000)));
select is(
  (select pg_column_compression(input) from pgflow.runs), case when pg_temp.has_lz4() then 'lz4' else 'pglz' end, 'and so are stored'
);

select * from finish();
rollback;
