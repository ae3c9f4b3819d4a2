begin;
select plan(30);

select pgflow.create_flow('for_' || role, start_role => role), pgflow.add_step('for_' || role, 'a')
from unnest(array['service_role', 'authenticated', 'anon']) role;

-- Contract
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
create temp table answer as
select pgflow_public.start_flow(flow_slug => 'for_anon', input => '{"x": 1}', metadata => '{"m": 1}') as run;
select is(
  (select array_agg(key order by key) from answer, jsonb_object_keys(run) key),
  array['cancelled_at', 'completed_at', 'error', 'failed_at', 'flow_slug', 'group_id', 'idempotency_key', 'input', 'metadata', 'output',
        'owner_id', 'priority', 'run_id', 'seq', 'started_at', 'status', 'steps', 'undoes', 'undone_by', 'waits_for'],
  'answers with the snapshot of a run'
);
select is(
  (select run - array['run_id', 'started_at', 'steps'] from answer),
  '{"flow_slug": "for_anon", "status": "started", "input": {"x": 1}, "output": null, "error": null, "owner_id": null, "group_id": null,
    "idempotency_key": null, "metadata": {"m": 1}, "completed_at": null, "failed_at": null, "cancelled_at": null, "seq": 2,
    "priority": "normal", "waits_for": null, "undoes": null, "undone_by": null}'::jsonb,
  'which has started'
);
select is(
  (select (run #> '{steps,0}') - array['created_at', 'started_at'] from answer),
  '{"step_slug": "a", "status": "started", "output": null, "error": null, "skip_reason": null, "progress": null,
    "retries": 0, "retry_at": null, "initial_tasks": 1, "completed_at": null, "failed_at": null, "skipped_at": null,
    "waits_for": null, "due_at": null}'::jsonb,
  'with its steps'
);

-- anon
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_authenticated', input => '1') $$,
  'PT403', 'the role anon may not start flow "for_authenticated"', 'anon does not start what is for users'
);
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_service_role', input => '1') $$, 'PT403', null, 'nor what is for servers'
);

-- authenticated
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select is(
  pgflow_public.start_flow(flow_slug => 'for_authenticated', input => '1') ->> 'owner_id',
  '20000000-0000-4000-8000-000000000001', 'a user starts what is for users, and owns it'
);
select is(
  pgflow_public.start_flow(flow_slug => 'for_anon', input => '1') ->> 'owner_id',
  '20000000-0000-4000-8000-000000000001', 'and what is for everybody'
);
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_service_role', input => '1') $$,
  'PT403', 'the role authenticated may not start flow "for_service_role"', 'but not what is for servers'
);
set local request.jwt.claims = '{"role": "service_role", "sub": "20000000-0000-4000-8000-000000000001"}';
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_service_role', input => '1') $$,
  'PT403', null, 'whatever the claims say: the role decides'
);

-- service_role
set local role service_role;
set local request.jwt.claims = '{"role": "service_role"}';
select is(
  pgflow_public.start_flow(flow_slug => 'for_' || role, input => '1') ->> 'status', 'started', 'service_role starts what is for ' || role
) from unnest(array['service_role', 'authenticated', 'anon']) role;
select is(pgflow_public.start_flow(flow_slug => 'for_anon', input => '1') -> 'owner_id', 'null', 'and owns nothing');

-- A key is its owner's.
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
set local tests.first = '';
select set_config(
  'tests.first', pgflow_public.start_flow(flow_slug => 'for_anon', input => '"mine"', idempotency_key => 'k') ->> 'run_id', true
);
select is(
  pgflow_public.start_flow(flow_slug => 'for_anon', input => '"mine"', idempotency_key => 'k') ->> 'run_id',
  current_setting('tests.first'), 'the same key gives the same run'
);
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_anon', input => '"other"', idempotency_key => 'k') $$,
  'PT409', null, 'with another input it is an error'
);
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000002"}';
select isnt(
  pgflow_public.start_flow(flow_slug => 'for_anon', input => '"mine"', idempotency_key => 'k') ->> 'run_id',
  current_setting('tests.first'), 'somebody else''s key is another one'
);
select lives_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_anon', input => '"other"', idempotency_key => 'k2') $$, 'which they use as they like'
);

-- Who has no id has no keys.
select pgflow_public.start_flow(flow_slug => 'for_anon', input => '"mine"', idempotency_key => 'server') from (select set_config('role', 'service_role', true)) s;
set local role anon;
set local request.jwt.claims = '{"role": "anon"}';
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_anon', input => '"mine"', idempotency_key => 'server') $$,
  'PT403', 'the role anon may not use idempotency keys without a user id', 'anon does not find the server''s run by its key'
);
select throws_ok(
  $$ select pgflow_public.start_flows(flow_slug => 'for_anon', inputs => '[1, 2]', idempotency_keys => array[null, 'new']) $$,
  'PT403', null, 'nor takes a key, in a batch either'
);
select lives_ok(
  $$ select pgflow_public.start_flows(flow_slug => 'for_anon', inputs => '[1, 2]', idempotency_keys => array[null, null]) $$,
  'no keys are none'
);
set local role authenticated;
set local request.jwt.claims = '{"role": "authenticated", "sub": "x"}';
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'for_anon', input => '"mine"', idempotency_key => 'server') $$,
  'PT403', null, 'nor does a user without an id'
);

-- Inputs as PostgREST passes them: JSON's null comes as SQL's.
select is(
  pgflow_public.start_flow(flow_slug => 'for_anon', input => input) -> 'input', coalesce(input, 'null'),
  coalesce(input::text, 'SQL null') || ' is an input'
) from (values (null::jsonb), ('null'), ('false'), ('0'), ('""')) inputs (input);
select is(pgflow_public.start_flow('for_anon', '{"a": 1}') -> 'input', '{"a": 1}', 'so is an untyped literal in its place');

-- What makes no sense
select throws_ok($$ select pgflow_public.start_flow(flow_slug => 'for_anon') $$, '42883', null, 'no input');
select throws_ok(
  $$ select pgflow_public.start_flow(flow_slug => 'nope', input => '1') $$, 'PT404', 'flow "nope" does not exist', 'an unknown flow'
);
select throws_ok($$ select pgflow_public.start_flow(flow_slug => 'no-slug', input => '1') $$, 'PT400', null, 'a bad slug');

select * from finish();
rollback;
