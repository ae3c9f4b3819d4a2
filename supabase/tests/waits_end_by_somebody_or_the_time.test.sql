begin;
select plan(125);

set local pgflow.now = '2030-01-01T00:00:00Z';
create function pg_temp.run(n int) returns uuid return format('10000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.user_id(n int) returns uuid return format('20000000-0000-4000-8000-%s', lpad(n::text, 12, '0'))::uuid;
create function pg_temp.at(at text) returns void language sql as $$ select set_config('pgflow.now', at, true) $$;
-- A step and its task in one line.
create function pg_temp.step(n int, slug text default 'a') returns text language sql as $$
  select concat_ws(' ', ss.status, ss.output::text, ss.error, ss.skip_reason, '/', t.status, t.waits_for, to_char(t.due_at, 'MM-DD HH24:MI'))
  from pgflow.step_states ss left join pgflow.step_tasks t using (run_id, step_slug)
  where ss.run_id = pg_temp.run(n) and ss.step_slug = slug
$$;
create function pg_temp.status(n int) returns text return (select status from pgflow.runs where run_id = pg_temp.run(n));
create function pg_temp.start(n int, flow text, input jsonb default '1') returns void language sql as $$
  select pgflow.start_flow(flow, input, run_id => pg_temp.run(n), owner_id => pg_temp.user_id(1))
$$;
create function pg_temp.events(n int, slug text default 'a') returns jsonb language sql as $$
  select jsonb_agg(r.event - array['seq', 'at', 'step_slug'] order by r.seq)
  from pgflow.run_event_records r where r.run_id = pg_temp.run(n) and r.event ->> 'step_slug' = slug
$$;
set local timezone = 'UTC';

-- Definitions
select pgflow.create_flow('f');
prepare add as select pgflow.add_step('f', 'x', step_type => $1, completed_by => $2, assignees_path => $3, when_timed_out => $4, timed_out_output => $5,
  webhook => $6, sleep_for => $7, until_path => $8, not_by_owner => $9, max_attempts => $10);
select throws_ok(format('execute add(%s)', arguments), 'PT400', null, arguments) from unnest(array[
  $$'single', 'owner', null, null, null, null, null, null, null, null$$, $$'single', null, null, null, null, null, 5, null, null, null$$,
  $$'wait', 'somebody', null, null, null, null, null, null, null, null$$, $$'wait', 'assignees', null, null, null, null, null, null, null, null$$,
  $$'wait', 'owner', 'run.a', null, null, null, null, null, null, null$$, $$'wait', 'assignees', 'other.a', null, null, null, null, null, null, null$$,
  $$'wait', 'assignees', 'run..a', null, null, null, null, null, null, null$$, $$'wait', null, null, 'retry', null, null, null, null, null, null$$,
  $$'wait', null, null, 'skip', '1', null, null, null, null, null$$, $$'wait', null, null, null, null, 'paypal', null, null, null, null$$,
  $$'wait', null, null, null, null, null, 5, null, null, null$$, $$'wait', null, null, null, null, null, null, null, null, 3$$,
  $$'sleep', null, null, null, null, null, null, null, null, null$$, $$'sleep', null, null, null, null, null, 5, 'run', null, null$$,
  $$'sleep', null, null, null, null, null, 0, null, null, null$$, $$'sleep', null, null, null, null, null, null, 'other.a', null, null$$,
  $$'sleep', null, null, null, null, 'plain', 5, null, null, null$$, $$'map', null, null, null, null, null, null, null, true, null$$
]) arguments;
create temp table definition as select '{"flow_slug": "g", "steps": [
  {"step_slug": "draft"},
  {"step_slug": "ok", "step_type": "wait", "deps_slugs": ["draft"], "completed_by": "assignees", "assignees_path": "draft.by", "not_by_owner": true,
   "timeout": 60, "when_timed_out": "complete", "timed_out_output": {"ok": false}, "webhook": "stripe", "output_schema": {"type": "object"}},
  {"step_slug": "nap", "step_type": "sleep", "deps_slugs": ["ok"], "sleep_for": 5},
  {"step_slug": "till", "step_type": "sleep", "deps_slugs": ["ok"], "until_path": "run.at"}
]}'::jsonb as g;
select lives_ok($$ select pgflow.register_flow(g) from definition $$, 'a flow with waits is registered');
select lives_ok($$ select pgflow.register_flow(pgflow.flow_definition('g')) $$, 'and what is there defines the same');
select lives_ok($$ select pgflow.register_flow(jsonb_set(jsonb_set(g, '{steps,1,timeout}', '90'), '{steps,2,sleep_for}', '7')) from definition $$, 'a timeout and a pause are options');
select is((select (opt_timeout, opt_sleep_for)::text from (select max(opt_timeout) opt_timeout, max(opt_sleep_for) opt_sleep_for from pgflow.steps where flow_slug = 'g') s), '(90,7)', 'which change in place');
select throws_like(
  format($$ select pgflow.register_flow(jsonb_set(g, %L, %L)) from definition $$, path, value), words, words
) from (values
  ('{steps,1,completed_by}', '"owner"', '%it has assignees_path, but completed_by is not assignees'), ('{steps,1,webhook}', '"github"', '%webhook of step "ok" is github, not stripe%'),
  ('{steps,1,when_timed_out}', '"skip"', '%it has timed_out_output, but when_timed_out is not complete'), ('{steps,1,not_by_owner}', 'false', '%not_by_owner%'),
  ('{steps,3,until_path}', '"run.then"', '%until_path of step "till" is run.then, not run.at%'), ('{steps,1,timed_out_output}', '1', '%timed_out_output%'),
  ('{steps,1,sleep_for}', '"x"', '%sleep_for is "x", not a whole number%')
) as t (path, value, words);

-- A wait
select pgflow.add_step('f', 'a', step_type => 'wait', completed_by => 'owner', timeout => 3600), pgflow.add_step('f', 'b', array['a']);
select pg_temp.start(n, 'f') from generate_series(1, 9) n;
select is(pg_temp.step(1), 'started / waiting signal 01-01 01:00', 'it waits, with its end');
select is(
  pg_temp.events(1), '[{"type": "step:started", "initial_tasks": 1, "waits_for": "signal", "due_at": "2030-01-01T01:00:00+00:00"}]', 'as the event says'
);
select is(
  pgflow.snapshot(pg_temp.run(1)) #> '{steps,0}' @> '{"status": "started", "waits_for": "signal", "due_at": "2030-01-01T01:00:00+00:00"}', true, 'and the snapshot'
);
select is((select waiting_runs from pgflow.flow_versions where flow_slug = 'f'), 9::bigint, 'operators see how many runs wait');
select is_empty($$ select from pgflow.claim_tasks(array['f'], 10, gen_random_uuid()) $$, 'no worker gets it');
select lives_ok($$ select pgflow.complete_wait(pg_temp.run(1), 'a', '{"n": 1}') $$, 'somebody completes it');
select is(pg_temp.step(1), 'completed {"n": 1} / completed', 'its value is the output');
select is((select input -> 'a' from pgflow.claim_tasks(array['f'], 10, gen_random_uuid())), '{"n": 1}', 'with which the run goes on');
select lives_ok($$ select pgflow.complete_wait(pg_temp.run(1), 'a', '{"n": 1.0}') $$, 'the same value again is a success');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(1), 'a', '2') $$, 'PT409', null, 'another is not');
select throws_ok($$ select pgflow.reject_wait(pg_temp.run(1), 'a', 'no') $$, 'PT409', null, 'nor a rejection');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(1), 'b', '2') $$, 'PT404', null, 'a step that is no wait is not completed so');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(99), 'a', '2') $$, 'PT404', null, 'nor one of no run');
select lives_ok($$ select pgflow.complete_wait(pg_temp.run(2), 'a') $$, 'null is a value');
select is(pg_temp.step(2), 'completed null / completed', 'like any other');
select is((select status from pgflow.complete_task(pg_temp.run(8), 'a', 0, '5')), 'completed', 'SQL may complete the task');
select is((select status from pgflow.fail_task(pg_temp.run(9), 'a', 0, 'no')), 'failed', 'or fail it, for good');

-- A rejection
select throws_ok($$ select pgflow.reject_wait(pg_temp.run(3), 'a', '') $$, 'PT400', null, 'a rejection has a reason');
select throws_ok($$ select pgflow.reject_wait(pg_temp.run(3), 'a', repeat('x', 10001)) $$, 'PT413', null, 'of a length');
select lives_ok($$ select pgflow.reject_wait(pg_temp.run(3), 'a', 'no') $$, 'with it');
select is(pg_temp.step(3) || ', ' || pg_temp.status(3), 'failed no / failed, failed', 'step and run fail');
select lives_ok($$ select pgflow.reject_wait(pg_temp.run(3), 'a', 'no') $$, 'the same again is a success');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(3), 'a', '1') $$, 'PT409', null, 'but it is over');
select pg_temp.at('2030-01-01T00:30:00Z');
select pgflow.retry_run(pg_temp.run(3));
select is(pg_temp.step(3), 'started / waiting signal 01-01 01:30', 'a retry begins it anew, with its whole time');
select pgflow.complete_wait(pg_temp.run(3), 'a', '"yes"'), pgflow.fail_task(pg_temp.run(3), 'b', 0, 'x') from generate_series(1, 3);
select pgflow.fail_task(pg_temp.run(3), 'b', 0, 'x') from generate_series(1, 3);
select is(pg_temp.status(3), 'failed', 'the run fails later');
select pgflow.retry_run(pg_temp.run(3));
select is(pg_temp.step(3), 'completed "yes" / completed', 'and keeps the answer when it is retried');

-- Cancelled, and failed beside it
select pgflow.cancel_run(pg_temp.run(4));
select is(pg_temp.step(4), 'cancelled / cancelled', 'it is closed with its run');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(4), 'a', '1') $$, 'PT409', 'wait "a" of run 10000000-0000-4000-8000-000000000004 cannot be completed: it has been cancelled');
select is_empty($$ select from pgflow.wait_assignees where run_id = pg_temp.run(4) and is_open $$, 'and asks nobody any more');
select pgflow.retry_run(pg_temp.run(4));
select is(pg_temp.step(4), 'started / waiting signal 01-01 01:30', 'until its run is retried');
select is((select is_open from pgflow.wait_assignees where run_id = pg_temp.run(4)), true, 'which asks again');

-- The clock
select is((select next_due_at from pgflow.tick()), '2030-01-01T01:00:00Z'::timestamptz, 'tick says when something is due');
select is((select settled from pgflow.tick()), 0, 'and settles nothing before');
select pg_temp.at('2030-01-01T01:00:00Z');
select is((select (settled, next_due_at)::text from pgflow.tick(2)), '(2,"2030-01-01 01:00:00+00")', 'then as many as asked for');
select is((select (settled, next_due_at)::text from pgflow.tick()), '(1,"2030-01-01 01:30:00+00")', 'and the others');
select is(pg_temp.step(5) || ', ' || pg_temp.status(5), 'failed the wait has timed out / failed, failed', 'a wait that has timed out fails');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(5), 'a', '1') $$, 'PT409', null, 'and is over');
select pgflow.retry_run(pg_temp.run(5));
select is(pg_temp.step(5), 'started / waiting signal 01-01 02:00', 'a retry begins it anew, too');

-- What a timeout does
select pgflow.create_flow('t');
select pgflow.add_step('t', 'skip', step_type => 'wait', timeout => 60, when_timed_out => 'skip', when_exhausted => 'fail'), pgflow.add_step('t', 'after_skip', array['skip']),
       pgflow.add_step('t', 'cascade', step_type => 'wait', timeout => 60, when_timed_out => 'skip-cascade'), pgflow.add_step('t', 'after_cascade', array['cascade']),
       pgflow.add_step('t', 'value', step_type => 'wait', timeout => 60, when_timed_out => 'complete', timed_out_output => '{"ok": false}'),
       pgflow.add_step('t', 'nothing', step_type => 'wait', timeout => 60, when_timed_out => 'complete'),
       pgflow.add_step('t', 'rejected', step_type => 'wait', when_exhausted => 'skip');
select pg_temp.start(10, 't');
select is(pg_temp.step(10, 'rejected'), 'started / waiting signal', 'without a timeout there is no end');
select pgflow.reject_wait(pg_temp.run(10), 'rejected', 'no');
select pg_temp.at('2030-01-01T01:01:00Z');
select is((select settled from pgflow.tick()), 4, 'four are due');
select is(pg_temp.step(10, slug), expected, slug) from (values
  ('skip', 'skipped the wait has timed out timed_out / failed'), ('after_skip', 'started / queued'),
  ('cascade', 'skipped the wait has timed out timed_out / failed'), ('after_cascade', 'skipped dep_skipped /'),
  ('value', 'completed {"ok": false} / completed'), ('nothing', 'completed null / completed'),
  ('rejected', 'skipped no attempts_exhausted / failed')
) as t (slug, expected);
select pgflow.complete_task(pg_temp.run(10), 'after_skip', 0, '1');
select is(pg_temp.status(10), 'completed', 'and the run completes');

-- One fails the run while the other is skipped: what depends on that is skipped by the retry.
select pgflow.create_flow('both');
select pgflow.add_step('both', 'fails', step_type => 'wait', timeout => 60), pgflow.add_step('both', 'skips', step_type => 'wait', timeout => 60, when_timed_out => 'skip-cascade'),
       pgflow.add_step('both', 'after', array['skips']);
select pg_temp.start(11, 'both');
select pg_temp.at('2030-01-01T01:02:00Z');
select pgflow.tick();
select is(pg_temp.step(11, 'after') || ', ' || pg_temp.step(11, 'skips'), 'cancelled /, skipped the wait has timed out timed_out / failed', 'a run fails while a wait is skipped');
select pgflow.retry_run(pg_temp.run(11)), pgflow.complete_wait(pg_temp.run(11), 'fails', '1');
select is(pg_temp.step(11, 'after') || ', ' || pg_temp.status(11), 'skipped dep_skipped /, completed', 'a retry skips what depends on it, and asks again where it failed');
select pg_temp.at('2030-01-01T01:01:00Z');

-- Sleeps
select pgflow.create_flow('s');
select pgflow.add_step('s', 'a', step_type => 'sleep', sleep_for => 90), pgflow.add_step('s', 'b', array['a']), pgflow.add_step('s', 'till', step_type => 'sleep', until_path => 'run.at');
select pg_temp.start(20, 's', '{"at": "2030-01-02"}');
select is(pg_temp.step(20), 'started / waiting time 01-01 01:02', 'a sleep has its time');
select is(pg_temp.step(20, 'till'), 'started / waiting time 01-02 00:00', 'or that of the input');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(20), 'a', '1') $$, 'PT404', null, 'it is no wait');
select pg_temp.at('2030-01-01T01:02:30Z');
select is((select (settled, next_due_at)::text from pgflow.tick()), '(1,"2030-01-01 01:30:00+00")', 'it ends by the clock');
select is(pg_temp.step(20) || ', ' || pg_temp.step(20, 'b'), 'completed null / completed, started / queued', 'with null, and the run goes on');
select pgflow.start_flow('s', '{"at": 0}', run_id => pg_temp.run(21), delay => 60);
select is(pg_temp.step(21), 'started / waiting time 01-01 01:05', 'the delay of a run comes first');
select is(pg_temp.step(21, 'till'), 'completed null /', 'a time in the past is no sleep');
select is(pg_temp.events(21, 'till'), '[{"type": "step:started", "initial_tasks": 0}, {"type": "step:completed", "output": null}]', 'but told like one');
select is(pgflow.time_of(value::jsonb), expected::timestamptz, value) from (values
  ('"2030-01-31"', '2030-01-31Z'), ('"2030-01-31T08:00"', '2030-01-31 08:00Z'), ('"2030-01-31 08:00:00.5+01:00"', '2030-01-31 07:00:00.5Z'),
  ('"2030-01-31T08:00:00.123456Z"', '2030-01-31 08:00:00.123456Z'), ('1893456000.25', '2030-01-01 00:00:00.25Z'), ('-1', '1969-12-31 23:59:59Z'),
  ('"2030-02-30"', null), ('"tomorrow"', null), ('"infinity"', null), ('1893456000000', null), ('1e400', null), ('true', null), ('null', null), ('["2030-01-31"]', null), ('""', null)
) as t (value, expected);
select pg_temp.start(22, 's', '{"at": "soon"}');
select is(
  (select error from pgflow.runs where run_id = pg_temp.run(22)), 'step "till" cannot sleep until run.at: it is "soon", not an ISO date or seconds since 1970', 'a bad time fails the step'
);

-- Early
select pgflow.create_flow('e');
select pgflow.add_step('e', 'first'), pgflow.add_step('e', 'a', array['first'], step_type => 'wait', completed_by => 'authenticated', run_unless => '{"first": "never"}'), pgflow.add_step('e', 'b', array['a']);
select pg_temp.start(n, 'e') from generate_series(30, 33) n;
select throws_ok($$ select pgflow.reject_wait(pg_temp.run(30), 'a', 'no') $$, 'PT409', null, 'what has not begun is not rejected');
select lives_ok($$ select pgflow.complete_wait(pg_temp.run(30), 'a', '"early"') $$, words) from unnest(array['but completed', 'twice the same']) words;
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(30), 'a', '"other"') $$, 'PT409', null, 'once');
select is(pg_temp.step(30), 'created / completed', 'the value is kept');
set local request.jwt.claims = '{"role": "authenticated", "sub": "20000000-0000-4000-8000-000000000001"}';
select pgflow.complete_wait(pg_temp.run(31), 'a', '"mine"');
set local request.jwt.claims = '';
select pgflow.complete_wait(pg_temp.run(n), 'a', '1') from generate_series(32, 33) n;
select pgflow.cancel_run(pg_temp.run(33)), pgflow.retry_run(pg_temp.run(33));
select pgflow.complete_task(pg_temp.run(n), 'first', 0, case n when 32 then '"never"' else '1' end::jsonb) from generate_series(30, 33) n;
select is(pg_temp.step(30) || ', ' || pg_temp.step(30, 'b'), 'completed "early" / completed, started / queued', 'and counts when the wait begins');
select is(
  pg_temp.events(31), '[{"type": "step:started", "initial_tasks": 0}, {"type": "step:completed", "output": "mine", "actor": {"id": "20000000-0000-4000-8000-000000000001", "role": "authenticated"}}]',
  'as who gave it'
);
select is(pg_temp.step(32), 'skipped condition_unmet / completed', 'a wait that does not begin takes none');
select throws_ok($$ select pgflow.complete_wait(pg_temp.run(32), 'a', '2') $$, 'PT409', null, 'nor another one later');
select is(pg_temp.step(33), 'completed 1 / completed', 'it is kept over a retry');

-- Assignees
select pgflow.create_flow('p');
select pgflow.add_step('p', 'a', step_type => 'wait', completed_by => 'assignees', assignees_path => 'run.by', not_by_owner => true);
create function pg_temp.asked(n int) returns text language sql as $$
  select coalesce((select error from pgflow.runs where run_id = pg_temp.run(n) and status = 'failed'), string_agg(right(user_id::text, 2), ' ' order by user_id))
  from pgflow.wait_assignees where run_id = pg_temp.run(n) and is_open
$$;
select pg_temp.start(40 + n::int, 'p', jsonb_build_object('by', value)) from unnest(array[
  '"20000000-0000-4000-8000-000000000002"', '["20000000-0000-4000-8000-000000000002", "20000000-0000-4000-8000-000000000001", "20000000-0000-4000-8000-000000000003"]',
  '"20000000-0000-4000-8000-000000000001"', '[]', '["you"]', '"00000000-0000-0000-0000-000000000000"', 'null'
]::jsonb[]) with ordinality t (value, n);
select is(pg_temp.asked(n), expected, expected) from (values
  (41, '02'), (42, '02 03'), (43, 'step "a" cannot ask run.by: it names only the owner of the run, who may not decide'),
  (44, 'step "a" cannot ask run.by: it is [], not the id of a user or an array of them'), (45, 'step "a" cannot ask run.by: it is ["you"], not the id of a user or an array of them'),
  (46, 'step "a" cannot ask run.by: it is "00000000-0000-0000-0000-000000000000", not the id of a user or an array of them'),
  (47, 'step "a" cannot ask run.by: it is null, not the id of a user or an array of them')
) as t (n, expected);

-- A run that is locked, its time being over, is left for the next call; upkeep ticks, too.
select pg_temp.at('2031-01-01T00:00:00Z');
select is(pgflow.maintain() -> 'due', '4', 'upkeep settles what is due');
select is(pgflow.next_due_at(), null, 'nothing is left');
select is_empty($$ select from pgflow.wait_assignees w join pgflow.step_tasks t using (run_id, step_slug) where w.is_open <> (t.status = 'waiting') and not w.has_answered $$, 'who is asked agrees with what waits');
select lives_ok('delete from pgflow.runs', 'and all can be deleted');
select is_empty('select from pgflow.wait_assignees', 'with whom they asked');

select * from finish();
rollback;
