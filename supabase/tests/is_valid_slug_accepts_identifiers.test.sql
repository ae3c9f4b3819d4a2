begin;
select plan(6);

select is_empty(
  $$ select slug from unnest(array['a', '_', 'A', 'analyze_document', 'Step2', 'running', 'RUN', repeat('a', 128)]) slug
     where not pgflow.is_valid_slug(slug) $$,
  'letters, digits and underscores, up to 128'
);

select is_empty(
  $$ select slug from unnest(array[
       null, '', 'run', '1st', 'a-b', 'a b', 'a.b', 'é', 'a$', E'a\n', ' a', repeat('a', 129), 'a;drop table x', 'a"'
     ]) slug
     where pgflow.is_valid_slug(slug) is not false $$,
  'nothing else, and never null'
);

select throws_ok($$ select pgflow.create_flow('no-dash') $$, 'PT400', '"no-dash" is not a valid slug', 'flows obey it');
select throws_ok($$ select pgflow.create_flow(null) $$, 'PT400', 'null is not a valid slug', 'a flow has a slug');
select throws_ok(
  $$ select pgflow.start_flow('1st', '{}') $$, 'PT400', '"1st" is not a valid slug', 'a start names a flow'
);

select pgflow.create_flow('f');
select throws_ok($$ select pgflow.add_step('f', 'run') $$, 'PT400', '"run" is not a valid slug', 'steps obey it');

select * from finish();
rollback;
