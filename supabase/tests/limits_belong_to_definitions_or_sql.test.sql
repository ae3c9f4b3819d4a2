begin;
select plan(73);

create function pg_temp.register(definition jsonb) returns void language sql as $$
  select pgflow.register_flow('{"steps": [{"step_slug": "a"}]}'::jsonb || definition)
$$;
create view pg_temp.made as
select limit_slug, coalesce(running::text, '-') || ' ' || coalesce(rate_count || '/' || rate_period, '-') as numbers, made_by from pgflow.limits;

-- A definition
create function pg_temp.crawl() returns jsonb language sql as $$
  select '{
    "flow_slug": "crawl", "priority": "low", "deadline": 7200,
    "singleton_path": "run.site", "singleton_when_busy": "after", "singleton_wait": 5,
    "limits": [{"by_path": "run.tenant", "running": 5}],
    "steps": [
      {"step_slug": "toc", "deadline": 60, "limits": [
        {"running": 2}, {"limit_slug": "openai", "rate_count": 3000, "rate_period": 60}
      ]},
      {"step_slug": "pages", "deps_slugs": ["toc"], "step_type": "map", "map_path": "urls", "concurrency": 20,
       "when_item_fails": "collect", "tolerate_share": 0.05, "limits": [{"by_path": "toc.host", "running": 1, "rate_count": 1, "rate_period": 1}]},
      {"step_slug": "rest", "deps_slugs": ["pages"], "step_type": "sleep", "sleep_for": 1}
    ]
  }'::jsonb
$$;
select pgflow.register_flow(pg_temp.crawl());
select is(
  (select (priority, opt_deadline, singleton_path, singleton_when_busy, singleton_wait)::text from pgflow.flows where flow_slug = 'crawl'),
  '(low,7200,run.site,after,5)', 'a flow has a priority, a deadline and a singleton'
);
select results_eq(
  $$ select step_slug, is_limited, is_plain, opt_concurrency, opt_deadline, when_item_fails, tolerate_count, tolerate_share
     from pgflow.steps where flow_slug = 'crawl' order by step_index $$,
  $$ values ('toc', true, false, null, 60, 'fail', null::int, null::numeric), ('pages', true, false, 20, null, 'collect', null, 0.05),
            ('rest', false, false, null, null, 'fail', null, null) $$,
  'its steps have theirs'
);
select set_eq(
  'table pg_temp.made',
  $$ values ('crawl', '5 -', 'flow'), ('crawl.toc', '2 -', 'flow'), ('openai', '- 3000/60', 'flow'), ('crawl.pages', '1 1/1', 'flow') $$,
  'a limit without a name has that of its flow or step'
);
select set_eq(
  $$ select step_slug, limit_slug, by_path from pgflow.limit_uses where flow_slug = 'crawl' $$,
  $$ values ('*', 'crawl', 'run.tenant'), ('toc', 'crawl.toc', null), ('toc', 'openai', null), ('pages', 'crawl.pages', 'toc.host') $$,
  'and is used by it'
);
create temp table before as
select f.ctid as flow, s.ctid as step, u.ctid as use, l.ctid as made, l.xmax as locker
from pgflow.flows f join pgflow.steps s using (flow_slug) join pgflow.limit_uses u using (flow_slug) join pgflow.limits l using (limit_slug)
order by 1, 2, 3, 4;
select pgflow.register_flow(pg_temp.crawl());
select lives_ok($$ select pgflow.register_flow(pgflow.flow_definition('crawl')) $$, 'flow_definition has them all');
select results_eq(
  $$ select f.ctid, s.ctid, u.ctid, l.ctid, l.xmax
     from pgflow.flows f join pgflow.steps s using (flow_slug) join pgflow.limit_uses u using (flow_slug) join pgflow.limits l using (limit_slug) order by 1, 2, 3, 4 $$,
  'table before', 'registering again writes nothing'
);

-- Options
select pg_temp.register('{"flow_slug": "f", "limits": [{"running": 1}, {"rate_count": 2, "rate_period": 3}]}');
select set_eq(
  $$ select limit_slug, numbers from pg_temp.made where limit_slug like 'f%' $$, $$ values ('f', '1 -'), ('f#2', '- 2/3') $$, 'further ones are counted'
);
select is((select is_limited from pgflow.steps where flow_slug = 'f'), true, 'a limit of the flow limits its steps');
select pgflow.add_step('f', 'b', options => '{"limits": [{"limit_slug": "openai", "running": 7, "by_path": "run"}]}'),
       pgflow.add_step('f', 'c', step_type => 'sleep', sleep_for => 1);
select results_eq(
  $$ select step_slug, is_limited from pgflow.steps where flow_slug = 'f' order by step_index $$,
  $$ values ('a', true), ('b', true), ('c', false) $$, 'those that are added too, but not sleeps'
);
select is((select numbers from pg_temp.made where limit_slug = 'openai'), '7 -', 'of a name the last definition decides');
select pg_temp.register('{"flow_slug": "f", "steps": [{"step_slug": "a"}, {"step_slug": "b"}, {"step_slug": "c", "step_type": "sleep", "sleep_for": 1}]}');
select is_empty($$ select from pgflow.steps where flow_slug = 'f' and is_limited $$, 'without limits no step is limited');
select is_empty($$ select from pgflow.limit_uses where flow_slug = 'f' $$, 'and no limit is used');
select set_eq(
  'select limit_slug from pg_temp.made', $$ values ('crawl'), ('crawl.toc'), ('crawl.pages'), ('openai') $$,
  'one that no flow uses is deleted, one that another flow uses is not'
);
select pg_temp.register('{"flow_slug": "m", "steps": [{"step_slug": "m", "step_type": "map", "concurrency": 3, "when_item_fails": "collect", "tolerate_count": 1}]}');
select is((select (is_limited, opt_concurrency, tolerate_count)::text from pgflow.steps where flow_slug = 'm'), '(t,3,1)', 'concurrency is a limit');
select pg_temp.register('{"flow_slug": "m", "steps": [{"step_slug": "m", "step_type": "map", "when_item_fails": "collect", "deadline": 4}]}');
select is(
  (select (is_limited, opt_concurrency, tolerate_count, opt_deadline)::text from pgflow.steps where flow_slug = 'm'), '(f,,,4)', 'and an option, as is what is tolerated'
);
select throws_ok(
  $$ select pg_temp.register('{"flow_slug": "m", "steps": [{"step_slug": "m", "step_type": "map"}]}') $$, 'PT409',
  'the shape of "m" changed: when_item_fails of step "m" is fail, not collect', 'what becomes of failed items is part of the shape'
);
select pgflow.create_flow('by_hand', options => '{"limits": [{"running": 2}], "singleton_when_busy": "reject"}'), pgflow.add_step('by_hand', 'a');
select is((select is_limited from pgflow.steps where flow_slug = 'by_hand'), true, 'create_flow takes limits as options');

-- Versions
select pg_temp.register('{"flow_slug": "v", "limits": [{"running": 1}]}');
select pg_temp.register('{"flow_slug": "v_v2", "alias": "v", "version": 2, "limits": [{"running": 2}]}');
select results_eq(
  $$ select flow_slug, limit_slug, numbers from pgflow.limit_uses join pg_temp.made using (limit_slug) where flow_slug like 'v%' order by 1 $$,
  $$ values ('v', 'v', '2 -'), ('v_v2', 'v', '2 -') $$, 'versions share limits'
);
select pg_temp.register('{"flow_slug": "v", "limits": [{"running": 1}]}');
select is((select numbers from pg_temp.made where limit_slug = 'v'), '2 -', 'the newest one decides');
select pgflow.delete_flow('v');
select is((select count(*) from pgflow.limits where limit_slug = 'v'), 1::bigint, 'a deleted version leaves it to the others');
select pgflow.delete_flow('v_v2');
select is_empty($$ select from pgflow.limits where limit_slug = 'v' $$, 'the last one deletes it');
select pgflow.register_flow(jsonb_build_object('flow_slug', repeat('x', 128), 'limits', '[{"running": 1}]'::jsonb, 'steps', jsonb_build_array(
  jsonb_build_object('step_slug', repeat('y', 128), 'limits', '[{"running": 1}, {"running": 2}]'::jsonb),
  jsonb_build_object('step_slug', repeat('y', 127), 'limits', '[{"running": 3}]'::jsonb)
)));
select is(
  (select count(*) from pgflow.limits where limit_slug like 'xxx%'), 4::bigint, 'names are shortened where they would be too long'
);

-- SQL
select results_eq(
  $$ select limit_slug, running, rate_count, rate_period, made_by from pgflow.set_limit('openai', running => 4) $$,
  $$ values ('openai', 4, null::int, null::int, 'sql') $$, 'set_limit answers with the limit'
);
create temp table set_before as select l.ctid as place, l.xmax as locker, l.* from pgflow.limits l where limit_slug = 'openai';
select pgflow.set_limit('openai', running => 4);
select pgflow.register_flow(pg_temp.crawl());
select results_eq(
  $$ select l.ctid as place, l.xmax as locker, l.* from pgflow.limits l where limit_slug = 'openai' $$, 'table set_before', 'no definition changes it, and the same again writes nothing'
);
select pgflow.reset_limit('openai');
select is((select (numbers, made_by)::text from pg_temp.made where limit_slug = 'openai'), '("4 -",flow)', 'reset_limit leaves the numbers');
select pgflow.register_flow(pg_temp.crawl());
select is((select numbers from pg_temp.made where limit_slug = 'openai'), '- 3000/60', 'to the next definition');
select pgflow.set_limit('spare', rate_count => 1, rate_period => 2), pgflow.set_limit('crawl.toc', running => 9);
select pgflow.register_flow(pg_temp.crawl() #- '{steps,0,limits}');
select is(
  (select array_agg(limit_slug order by limit_slug) from pgflow.limits where made_by = 'sql'), array['crawl.toc', 'spare'], 'one that SQL has set stays when nobody uses it'
);
select is((select is_limited from pgflow.steps where flow_slug = 'crawl' and step_slug = 'toc'), true, 'the flow''s limit still limits the step');
select pgflow.reset_limit('spare');
select is_empty($$ select from pgflow.limits where limit_slug = 'spare' $$, 'until it is reset');
select throws_ok($$ select pgflow.reset_limit('nope') $$, 'PT404', 'limit "nope" does not exist', 'there is nothing to reset');
select throws_ok($$ select pgflow.reset_limit(null) $$, 'PT404', 'limit null does not exist', 'nor of null');
select throws_ok(format('select pgflow.set_limit(%s)', arguments), 'PT400', 'the limit cannot be set: ' || message, message)
from (values
  ($$null, running => 1$$, 'limit "": limit_slug is "", not a name of 1 to 255 characters without a colon'),
  ($$'a:b', running => 1$$, 'limit "a:b": limit_slug is "a:b", not a name of 1 to 255 characters without a colon'),
  ($$'x'$$, 'limit "x": it has neither running nor a rate'),
  ($$'x', rate_count => 1$$, 'limit "x": a rate has rate_count and rate_period'),
  ($$'x', running => 1, rate_period => 1$$, 'limit "x": a rate has rate_count and rate_period'),
  ($$'x', running => 0$$, 'limit "x": running is 0, not a whole number from 1'),
  ($$'x', rate_count => 1, rate_period => 31536001$$, 'limit "x": rate_period is 31536001, not a whole number of seconds from 1 to 31536000')
) bad (arguments, message);

-- Bad definitions
create temp table bad (definition jsonb, problem text);
insert into bad values
  ('{"deadline": 0}', 'deadline is 0, not a whole number of seconds from 1 to 31536000'),
  ('{"priority": "urgent"}', 'priority is "urgent", not one of high, normal, low'),
  ('{"singleton_path": "run.id"}', 'singleton_when_busy is missing'),
  ('{"singleton_path": "a.id", "singleton_when_busy": "return"}', 'singleton_path is "a.id", which does not begin with run'),
  ('{"singleton_path": "run.", "singleton_when_busy": "return"}', 'singleton_path is "run.", not a path of the form a.b'),
  ('{"singleton_when_busy": "wait"}', 'singleton_when_busy is "wait", not one of return, reject, replace, after'),
  ('{"singleton_when_busy": "return", "singleton_wait": 1}', 'it has singleton_wait, but singleton_when_busy is not after'),
  ('{"limits": {}}', 'limits is {}, not an array of objects'),
  ('{"limits": [{}]}', 'limit 1: it has neither running nor a rate'),
  ('{"limits": [{"running": 1}, {"by_path": "run.x"}]}', 'limit 2: it has neither running nor a rate'),
  ('{"limits": [{"limit_slug": "x", "rate_count": 1}]}', 'limit "x": a rate has rate_count and rate_period'),
  ('{"limits": [{"limit_slug": "a:b", "running": 1}]}', 'limit "a:b": limit_slug is "a:b", not a name of 1 to 255 characters without a colon'),
  ('{"limits": [{"running": 1, "by_path": "a.x"}]}', 'limit 1: by_path is "a.x", which does not begin with run'),
  ('{"limits": [{"running": 1, "by_path": ""}]}', 'limit 1: by_path is "", not a path of the form a.b'),
  ('{"limits": [{"running": 1}, {"running": 2}, {"running": 3}, {"running": 4}]}',
   'step "a": it has 4 limits, with those of the flow and its concurrency, but 3 at most'),
  ('{"limits": [{"limit_slug": "x", "running": 1}, {"limit_slug": "x", "running": 2}]}', 'it declares the limit "x" twice, with different numbers'),
  ('{"limits": [{"limit_slug": "x", "running": 1}, {"limit_slug": "x", "running": 1}]}', 'it has the limit "x" twice');
insert into bad
select jsonb_build_object('steps', jsonb_build_array('{"step_slug": "a"}'::jsonb, '{"step_slug": "b"}'::jsonb || step)), 'step "b": ' || problem
from (values
  ('{"concurrency": 1}'::jsonb, 'its step_type is single, which has no concurrency'),
  ('{"step_type": "map", "concurrency": 0}', 'concurrency is 0, not a whole number from 1'),
  ('{"deadline": 31536001}', 'deadline is 31536001, not a whole number of seconds from 1 to 31536000'),
  ('{"step_type": "sleep", "sleep_for": 1, "limits": [{"running": 1}]}', 'its step_type is sleep, which has no limits'),
  ('{"step_type": "wait", "limits": [{"running": 1}]}', 'its step_type is wait, which has no limits'),
  ('{"step_type": "wait", "deadline": 1}', 'its step_type is wait, which has no deadline'),
  ('{"when_item_fails": "collect"}', 'its step_type is single, which has no when_item_fails'),
  ('{"step_type": "map", "when_item_fails": "skip"}', 'when_item_fails is "skip", not one of fail, collect'),
  ('{"step_type": "map", "tolerate_count": 1}', 'failed items are tolerated only where when_item_fails is collect'),
  ('{"step_type": "map", "when_item_fails": "fail", "tolerate_share": 1}', 'failed items are tolerated only where when_item_fails is collect'),
  ('{"step_type": "map", "when_item_fails": "collect", "tolerate_count": 1, "tolerate_share": 1}', 'it has both tolerate_count and tolerate_share'),
  ('{"step_type": "map", "when_item_fails": "collect", "tolerate_share": 1.01}', 'tolerate_share is 1.01, not a number from 0 to 1'),
  ('{"limits": [{"running": 1, "by_path": "a.x"}]}', 'limit 1: by_path is "a.x", which does not begin with run'),
  ('{"deps_slugs": ["a"], "limits": [{"running": 1, "by_path": "ab.x"}]}', 'limit 1: by_path is "ab.x", which begins neither with run nor with one of its deps'),
  ('{"limits": [{"limit_slug": "x", "running": 1}, {"limit_slug": "x", "running": 1, "by_path": "run"}]}', 'it has the limit "x" twice')
) bad (step, problem);
insert into bad values
  ('{"limits": [{"running": 1}, {"running": 1}], "steps": [{"step_slug": "m", "step_type": "map", "concurrency": 1, "limits": [{"running": 1}]}]}',
   'step "m": it has 4 limits, with those of the flow and its concurrency, but 3 at most'),
  ('{"limits": [{"limit_slug": "x", "running": 1}], "steps": [{"step_slug": "a", "limits": [{"limit_slug": "x", "running": 1, "by_path": "run"}]}]}',
   'step "a": it has the limit "x" twice');
select throws_ok(
  format('select pg_temp.register(%L)', '{"flow_slug": "bad"}'::jsonb || definition), 'PT400', 'the definition of flow "bad" is invalid: ' || problem, problem
) from bad order by ctid;
select lives_ok(
  $$ select pg_temp.register('{"flow_slug": "good", "limits": [{"running": 1}, {"running": 1}, {"running": 1}],
       "steps": [{"step_slug": "a"}, {"step_slug": "w", "step_type": "wait"}], "singleton_when_busy": "replace", "singleton_path": "run"}') $$,
  'three limits are not too many'
);

select * from finish();
rollback;
