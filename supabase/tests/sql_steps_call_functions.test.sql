begin;
select plan(61);

set local pgflow.now = '2030-01-01T00:00:00Z';
create schema app;
create table app.saved (n int, by text default current_user);
create table app.parents (id int primary key);
create table app.children (parent int references app.parents deferrable initially deferred);
create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.step(n int, slug text default 'a') returns text language sql as $$
  select concat_ws(' ', ss.status, ss.output::text, ss.error, '/', t.status, t.waits_for, t.attempts_count)
  from pgflow.step_states ss left join pgflow.step_tasks t using (run_id, step_slug)
  where ss.run_id = pg_temp.run(n) and ss.step_slug = slug
$$;
create function pg_temp.start(n int, flow text, input jsonb default '1') returns void language sql as $$
  select pgflow.start_flow(flow, input, run_id => pg_temp.run(n))
$$;
-- Ticks until there is nothing more to do: on a slow machine one tick may not call all functions.
create function pg_temp.tick() returns int language plpgsql as $$
declare
  total int := 0;
  settled int;
begin
  loop
    settled := (select t.settled from pgflow.tick() t);
    total := total + settled;
    exit when settled = 0;
  end loop;
  return total;
end
$$;
create function pg_temp.later(seconds int) returns void language sql as $$
  select set_config('pgflow.now', (pgflow.now() + make_interval(secs => seconds))::text, true)
$$;
create function pg_temp.define(function text, options jsonb default '{}', flow text default 'f') returns void language sql as $$
  delete from pgflow.runs where flow_slug = flow;
  select pgflow.delete_flow(flow) where exists (select from pgflow.flows where flow_slug = flow);
  select pgflow.register_flow(jsonb_build_object('flow_slug', flow, 'max_attempts', 2, 'base_delay', 1, 'steps', jsonb_build_array(
    jsonb_build_object('step_slug', 'a', 'step_type', 'sql', 'sql_function', function) || options
  )))
$$;
create function pg_temp.body(body text) returns void language plpgsql as $$
begin
  execute format('create or replace function app.f(payload jsonb) returns jsonb language plpgsql as %L', body);
end
$$;

-- Registration
select pg_temp.body('begin insert into app.saved values ((payload ->> ''run'')::int); return payload; end');
create function app.wrong(payload jsonb) returns text language sql return '1'::text;
create function app.many(payload jsonb) returns setof jsonb language sql begin atomic select '1'::jsonb; end;
create procedure app.proc(payload jsonb) language sql begin atomic select 1; end;
create function app."Odd ""name"(payload jsonb) returns jsonb language sql return '1'::jsonb;
create function app.private(payload jsonb) returns jsonb language sql return '1'::jsonb;
create function app.other(payload json) returns jsonb language sql return '1'::jsonb;
revoke execute on function app.private from public;
select throws_ok(format('select pg_temp.define(%L)', function), code, message, function) from (values
  ('app.missing', 'PT404', 'step "a" cannot call the function app.missing(jsonb): it does not exist'),
  ('app.other', 'PT404', 'step "a" cannot call the function app.other(jsonb): it does not exist'),
  ('app.wrong', 'PT400', 'step "a" cannot call the function app.wrong(jsonb): it returns text, not jsonb'),
  ('app.many', 'PT400', 'step "a" cannot call the function app.many(jsonb): it returns a set'),
  ('app.proc', 'PT400', 'step "a" cannot call the function app.proc(jsonb): it is no function, but a procedure'),
  ('f', 'PT400', null), ('app.f(1);', 'PT400', null), ('App.f', 'PT400', null), ('a.b.c', 'PT400', null)
) t (function, code, message);
set local role service_role;
select throws_ok($$ select pgflow_worker.register_flow('{"flow_slug": "p", "steps": [{"step_slug": "a", "step_type": "sql", "sql_function": "app.private"}]}') $$,
  'PT403', 'step "a" cannot call the function app.private(jsonb): the role service_role may not execute it', 'a worker registers no function that its role may not execute');
reset role;
select throws_ok($$ select pgflow.add_step(flow_slug, 'x', step_type => 'sql', options => '{"sql_function": "app.missing"}') from pgflow.create_flow('g') $$, 'PT404', null, 'add_step looks, too');
select lives_ok($$ select pg_temp.define('app."Odd ""name"', flow => 'odd') $$, 'a name may need quotes');
select lives_ok($$ select pg_temp.define('app.f') $$, 'a flow with an SQL step is registered');
select lives_ok($$ select pgflow.register_flow(pgflow.flow_definition('f')) $$, 'and what is there defines the same');

-- A call
select pg_temp.start(1, 'f', '5'), pg_temp.start(2, 'odd');
select is(pg_temp.step(1), 'started / waiting sql 0', 'it waits for a call');
select is((select next_due_at from pgflow.next_due_at() t (next_due_at)), pgflow.now(), 'which is due');
select is(pgflow.next_call_in() || ' ' || coalesce(pgflow.next_due_in()::text, 'null'), '0 null', 'and has a time of its own for workers');
select is(pgflow.settle_due(), 0, 'their ticks make none');
select is(pgflow.call_timeout(), 60000, 'the next may take as long as its step says');
select set_config('pgflow.call_timeout', '', true);
select is_empty($$ select from pgflow.claim_tasks('{f}', 10, gen_random_uuid()) $$, 'no worker claims it');
select is(pg_temp.tick(), 2, 'a tick makes it');
select is(pg_temp.step(1), 'completed {"run": 5} / completed 1', 'what it returns is the output');
select is((select n || by from app.saved), 5 || current_user::text, 'and what it wrote is there, by the owner of the engine');
select is(pg_temp.step(2), 'completed 1 / completed 1', 'of all that are due');
select is(pg_temp.tick(), 0, 'each is called once');
select is(pgflow.next_due_at(), null, 'nothing is left');

-- A chain is done in one tick; null is an output, in JSON or SQL
create function app.nothing(payload jsonb) returns jsonb language sql return null::jsonb;
select pgflow.register_flow('{"flow_slug": "chain", "steps": [
  {"step_slug": "a", "step_type": "sql", "sql_function": "app.nothing"},
  {"step_slug": "b", "step_type": "sql", "sql_function": "app.f", "deps_slugs": ["a"]},
  {"step_slug": "c", "deps_slugs": ["b"]}
]}');
select pg_temp.start(3, 'chain', '7');
select is(pg_temp.tick(), 2, 'a chain goes on');
select is((select input from pgflow.claim_tasks('{chain}', 1, gen_random_uuid())), '{"run": 7, "b": {"a": null, "run": 7}}', 'until a worker''s step');
select pg_temp.define('app.f', '{"start_delay": 10}');
delete from app.saved;
select pg_temp.start(4, 'f');
select is(pg_temp.tick(), 0, 'a start delay is waited for');
select pg_temp.later(10);
select is(pg_temp.tick() || pg_temp.step(4), '1completed {"run": 1} / completed 1', 'it is over');
select pg_temp.define('app.f', '{"run_if": {"run": 2}, "when_unmet": "skip"}');
select pg_temp.start(5, 'f'), pg_temp.start(6, 'f', '2'), pg_temp.tick();
select is(pg_temp.step(5) || ', ' || pg_temp.step(6), 'skipped /, completed {"run": 2} / completed 1', 'and so are conditions');

-- An error
select pg_temp.define('app.f');
select pg_temp.body('begin insert into app.saved values (99); raise exception ''broken'' using errcode = ''22012'', detail = ''d'', hint = ''h''; end');
select pg_temp.start(7, 'f');
select is(pg_temp.tick() || pg_temp.step(7), '1started step "a" failed: broken / waiting sql 1', 'an error is a failed attempt');
select is(
  (select last_error - 'stack' from pgflow.step_tasks where run_id = pg_temp.run(7)),
  '{"name": "DatabaseError", "message": "broken", "code": "22012", "detail": "d", "hint": "h"}', 'all that it says is kept'
);
select is((select count(*) from app.saved where n = 99), 0::bigint, 'what was written is rolled back');
select is(pgflow.next_due_at() - pgflow.now(), interval '2 seconds', 'the next attempt comes later');
select is(pg_temp.tick(), 0, 'not before');
select pg_temp.later(2);
select is(pg_temp.tick() || pg_temp.step(7), '1failed step "a" failed: broken / failed 2', 'the last one is final');
select is((select status || error from pgflow.runs where run_id = pg_temp.run(7)), 'failedstep "a" failed: broken', 'for the run, too');
select pg_temp.body('begin return ''"now"''; end');
select pgflow.retry_run(pg_temp.run(7));
select is(pg_temp.tick() || pg_temp.step(7), '1completed "now" / completed 3', 'a retry calls it again');
select pg_temp.define('app.f', '{"max_attempts": 1, "when_exhausted": "skip"}');

-- What functions may not do, and what is wrong with them
select pg_temp.body(body), pg_temp.start(n, 'f'), pg_temp.tick() from (values
  (10, 'begin commit; return 1; end'), (11, 'begin set role anon; return 1; end'), (12, 'begin set search_path = app; return 1; end'),
  (13, 'begin assert false; return 1; end'), (14, 'begin insert into app.parents values (1), (1); return 1; end'),
  (15, 'begin set transaction read only; return 1; end')
) t (n, body);
drop function app.f;
select pg_temp.start(16, 'f'), pg_temp.tick();
select is(
  array(select error from pgflow.step_states where run_id between pg_temp.run(10) and pg_temp.run(16) order by run_id),
  array[
    'step "a" failed: invalid transaction termination', 'step "a" failed: cannot set parameter "role" within security-definer function',
    'step "a" failed: it has changed a setting of the session: search_path is app', 'step "a" failed: assertion failed',
    'step "a" failed: duplicate key value violates unique constraint "parents_pkey"',
    'step "a" failed: cannot execute SELECT FOR NO KEY UPDATE in a read-only transaction',
    'step "a" failed: the function app.f(jsonb) cannot be called: it does not exist'
  ], 'are errors that say so'
);
-- A constraint that is checked at commit
select pg_temp.body('begin insert into app.children values (5); return 1; end'), pg_temp.start(17, 'f'), pg_temp.tick();
select matches(pg_temp.step(17), 'skipped step "a" failed: insert or update on table "children" violates', 'constraints are checked in the call');
select pg_temp.body('begin insert into app.children values (6); insert into app.parents values (6); return 1; end'), pg_temp.start(18, 'f'), pg_temp.start(19, 'f'), pg_temp.tick();
select is(pg_temp.step(18), 'completed 1 / completed 1', 'at its end');
select matches(pg_temp.step(19), 'skipped step "a" failed: duplicate key', 'which the next one sees');

-- Settings
set local enable_nestloop = on;
set local "request.jwt.claims" = '{"sub": "20000000-0000-4000-8000-000000000001", "role": "authenticated"}';
select pg_temp.body($body$ begin
  perform set_config('enable_seqscan', 'off', true), set_config('search_path', 'app', true), set_config('request.jwt.claims', '{"sub": "x"}', true), set_config('lock_timeout', '1s', true);
  return payload;
end $body$);
create function app.settings(payload jsonb) returns jsonb language sql return (
  select jsonb_object_agg(name, current_setting(name, true))
  from unnest('{search_path,request.jwt.claims,enable_seqscan,enable_hashjoin,plan_cache_mode,join_collapse_limit,lock_timeout}'::text[]) name
);
select pgflow.register_flow('{"flow_slug": "settings", "steps": [
  {"step_slug": "a", "step_type": "sql", "sql_function": "app.f"}, {"step_slug": "b", "step_type": "sql", "sql_function": "app.settings", "deps_slugs": ["a"]}
]}');
select pg_temp.start(20, 'settings');
select is(pg_temp.tick() || pg_temp.step(20), '2completed {"run": 1} / completed 1', 'a function may change settings for itself');
select is(
  (select output from pgflow.step_states where run_id = pg_temp.run(20) and step_slug = 'b'),
  '{"search_path": "\"$user\", public, extensions, pg_temp", "request.jwt.claims": "", "enable_seqscan": "on", "enable_hashjoin": "on",
    "plan_cache_mode": "auto", "join_collapse_limit": "8", "lock_timeout": "0"}', 'the next one has its own'
);
select is(
  concat(current_setting('search_path'), current_setting('enable_seqscan'), current_setting('lock_timeout'), (current_setting('request.jwt.claims')::jsonb ->> 'role')),
  'public, extensionson0authenticated', 'and so has the caller'
);
set local "request.jwt.claims" = '';
create role app_worker;
grant app_worker to postgres;
grant usage, create on schema app to app_worker;
grant insert, select on app.saved to app_worker;
alter table app.saved enable row level security;
create function app.as_role(payload jsonb) returns jsonb language plpgsql security definer as $$
begin insert into app.saved values (1); return to_jsonb(current_user); end $$;
alter function app.as_role owner to app_worker;
select pg_temp.define('app.as_role', '{"max_attempts": 1}'), pg_temp.start(21, 'f'), pg_temp.tick();
select matches(pg_temp.step(21), 'new row violates row-level security policy', 'security definer runs it as another role, under its policies');

-- A limit of the flow is not for them; a trigger of somebody else on our tables has the session's plans
select pgflow.register_flow('{"flow_slug": "limited", "limits": [{"running": 1}], "steps": [
  {"step_slug": "a", "step_type": "sql", "sql_function": "app.nothing"}, {"step_slug": "b", "deps_slugs": ["a"]}
]}');
create table app.seen (setting text);
create function app.look() returns trigger language plpgsql as $$ begin insert into app.seen values (current_setting('enable_seqscan')); return null; end $$;
create trigger look after update on pgflow.step_states for each statement execute function app.look();
select pg_temp.start(22, 'limited'), pg_temp.start(23, 'limited');
delete from app.seen;
select is(pg_temp.tick() || pg_temp.step(22) || pg_temp.step(23), '3completed null / completed 1completed null / completed 1', 'a limit of the flow does not hold for its calls, only for the next step');
select is((select array_agg(distinct setting) from app.seen), '{on}', 'triggers of others have the settings of the session');
drop trigger look on pgflow.step_states;
delete from pgflow.runs where flow_slug = 'limited';
delete from pgflow.alarms where kind = 'slot';

-- Cancelled, closed, and settled by hand
create or replace function app.f(payload jsonb) returns jsonb language plpgsql as $$ begin insert into app.saved values (50); return payload; end $$;
select pg_temp.define('app.f');
select pg_temp.start(30, 'f'), pg_temp.start(31, 'f'), pg_temp.start(32, 'f'), pgflow.cancel_run(pg_temp.run(30));
select is((select status from pgflow.complete_task(pg_temp.run(31), 'a', 0, '"by hand"')), 'completed', 'it is completed by hand');
select is((select status || waits_for from pgflow.fail_task(pg_temp.run(32), 'a', 0, 'by hand')), 'waitingsql', 'or failed');
select is(pg_temp.tick(), 3, 'alarms may come in vain');
select is((select count(*) from app.saved where n = 50), 1::bigint, 'and call what still waits');
select is(pg_temp.step(32), 'completed {"run": 1} / completed 2', 'which is not tried later again');
select pg_temp.later(10);
select is(concat(pg_temp.tick(), (select count(*) from app.saved where n = 50)), '11', 'although there is an alarm');
select is(pg_temp.step(30), 'cancelled / cancelled 0', 'what was cancelled stays so');
-- A function that cancels its own run has written nothing
create or replace function app.f(payload jsonb) returns jsonb language plpgsql as $$
begin insert into app.saved values (51); perform pgflow.cancel_run((payload ->> 'run')::uuid); return payload; end $$;
select pg_temp.start(33, 'f', to_jsonb(pg_temp.run(33)));
select is(
  concat(pg_temp.tick(), (select count(*) from app.saved where n = 51), pg_temp.step(33)),
  '10started step "a" failed: its function has closed its task, or ended its run / waiting sql 1', 'a function cannot close its own task'
);
delete from pgflow.runs where run_id = pg_temp.run(33);

-- Deadlines, lost alarms
create or replace function app.f(payload jsonb) returns jsonb language plpgsql as $$ begin return payload; end $$;
select pg_temp.define('app.f', '{"deadline": 5, "start_delay": 10}');
select pg_temp.start(34, 'f'), pg_temp.later(5), pg_temp.tick();
select is(pg_temp.step(34), 'failed step "a" has exceeded its deadline of 5 s / cancelled 0', 'a deadline ends it');
select pg_temp.define('app.f');
select pg_temp.start(35, 'f');
delete from pgflow.alarms;
select pgflow.maintain();
select is(pg_temp.step(35), 'completed {"run": 1} / completed 1', 'maintain finds what has no alarm');
select is((select count(*) from pgflow.alarms), 0::bigint, 'and leaves none');
-- Its output is NOTIFY's, pgflow's own functions', and any size
create or replace function app.f(payload jsonb) returns jsonb language plpgsql as $$
begin
  notify somebody;
  return jsonb_build_object('text', repeat(md5('x'), 100000), 'run', (select run_id from pgflow.start_flow('settings', '1', idempotency_key => 'k')));
end $$;
select pg_temp.start(36, 'f', to_jsonb(repeat('x', 1000000))), pg_temp.tick();
select is((select concat(length(output ->> 'text'), error, status) from pgflow.step_states where run_id = pg_temp.run(36)), '3200000completed', 'large values, other flows and NOTIFY are no problem');

select * from finish();
rollback;
