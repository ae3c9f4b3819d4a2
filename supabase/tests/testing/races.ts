import type { Outcome, Statement } from './contend.ts'

export interface Race {
  /** A sentence; what is after "against" may come first. */
  name: string
  /** Of its flow and queue. */
  slug: string
  /** The flow's steps, each the arguments of `add_step` after the flow's slug. */
  steps: string[]
  /** The runs' input; undefined for races that start runs themselves. */
  input?: unknown
  /** Once, after the runs have started: claims their tasks, for instance. */
  prepare?: Statement
  /** At the start of each round, by one contender, before they meet. */
  arrange?: Statement
  contenders: Statement[]
  /** All the ways in which a round may end: the answers or SQLSTATEs, and what became of the run. */
  ways: string[]
  /** Answers in words, where they differ from round to round. */
  words?: (outcomes: Outcome[]) => string
  /** A text expression over `run`, its row, that is told with its status. */
  also?: string
  /** How many rounds cost as much as one of the others. @default 1 */
  cost?: number
}

const single = [`'a'`]
const chain = [`'a'`, `'b', array['a']`]
const map = [`'a', step_type => 'map'`]

const settle = (step: string, index: number, result: unknown): Statement =>
  `select race.settle($1, '${step}', ${index}, 1, '${JSON.stringify(result)}')`
const complete = (step: string, output: unknown, index = 0) => settle(step, index, { output })
const fail = (step: string, index = 0) => settle(step, index, { error: 'broken', permanent: true })
const retryIn = (seconds: number, index = 0) => settle('a', index, { error: 'again', retry_delay: seconds })

const claimAll = (slug: string): Statement =>
  `select pgflow.claim_tasks(array['${slug}'], 1000000, null, lease => 100000)`
const failAll = (slug: string, step: string): Statement => `
  ${claimAll(slug)};
  select race.settle(run_id, '${step}', 0, 1, '{"error": "broken", "permanent": true}')
  from race.rounds where race = '${slug}'`
const hideAll = (slug: string): Statement => `update pgmq.q_${slug} set vt = 'infinity'`
const expire = (slug: string): Statement => `select race.expire('${slug}', $1)`
const claimOne = (slug: string): Statement => `select to_jsonb(jsonb_array_length(race.claim('${slug}', 1)))`

const cancel = `select to_jsonb(status) from pgflow.cancel_run($1)`
const retry = `select to_jsonb(status) from pgflow.retry_run($1)`
const extend = `
  select to_jsonb(active) from pgflow.extend_leases(
    jsonb_build_array(jsonb_build_object('run_id', $1, 'step_slug', 'a', 'task_index', 0, 'attempt', 1)), 1000
  )`

const handBack = `
  select to_jsonb(pgflow.hand_back(
    jsonb_build_array(jsonb_build_object('run_id', $1, 'step_slug', 'a', 'task_index', 0, 'attempt', 1))
  ))`

const isHidden = (slug: string, interval: string) => `(
  select case when q.vt > clock_timestamp() + interval '${interval}' then 'hidden' else 'not hidden' end
  from pgflow.step_tasks t join pgmq.q_${slug} q on q.msg_id = t.message_id
  where t.run_id = run.run_id and t.task_index = 0
)`
const end = `started_at = now() - interval '2 days', failed_at = now() - interval '1 day'`
const prune = `select to_jsonb(pgflow.prune_runs(interval '12 hours'))`
/** Runs that ended, each of them watched until a moment ago. */
const endedAndWatched = (slug: string): Statement => `
  with run as (
    insert into pgflow.runs (flow_slug, status, input, error, started_at, failed_at)
    select '${slug}', 'failed', '{}', 'broken', now() - n * interval '1 day', now() - interval '1 day'
    from generate_series(2, 31) n
    returning run_id
  )
  insert into pgflow.run_watches select run_id, 'pgflow:watch:me', now() - interval '1 minute' from run`
const attempts = `(select t.attempts_count || ' attempts' from pgflow.step_tasks t where t.run_id = run.run_id)`

const sameAnswer = (outcomes: Outcome[]) => {
  const answers = new Set(outcomes.map(({ answer, sqlstate }) => sqlstate ?? JSON.stringify(answer)))
  return answers.size === 1 ? 'the same' : [...answers].join(' | ')
}

const settling: Race[] = [
  {
    name: 'an attempt is completed against another completion of it',
    slug: 'twice',
    steps: single,
    input: {},
    prepare: claimAll('twice'),
    contenders: [complete('a', 'one'), complete('a', 'two')],
    ways: ['true | false → completed {"a": "one"}', 'false | true → completed {"a": "two"}'],
  },
  {
    name: 'an attempt completes against its failure',
    slug: 'torn',
    steps: single,
    input: {},
    prepare: claimAll('torn'),
    contenders: [complete('a', 1), fail('a')],
    ways: ['true | false → completed {"a": 1}', 'false | true → failed'],
  },
  {
    name: 'a task is completed by hand against a failure that is repeated',
    slug: 'by_hand',
    steps: single,
    input: {},
    prepare: claimAll('by_hand'),
    contenders: [`select to_jsonb(count(*)) from pgflow.complete_task($1, 'a', 0, '1')`, retryIn(0)],
    ways: ['1 | false → completed {"a": 1}', '1 | true → completed {"a": 1}'],
  },
  {
    name: 'the last two items of a map complete',
    slug: 'last_items',
    steps: [...map, `'b', array['a']`],
    input: [1, 2],
    prepare: claimAll('last_items'),
    contenders: [complete('a', 'one', 0), complete('a', 'two', 1)],
    ways: ['true | true → started ["one", "two"]'],
    also: `(select ss.output::text from pgflow.step_states ss where ss.run_id = run.run_id and ss.step_slug = 'a')`,
  },
  {
    name: 'the last item of a map completes against a failure that is repeated',
    slug: 'item_again',
    steps: map,
    input: [1, 2],
    prepare: claimAll('item_again'),
    contenders: [complete('a', 1, 0), retryIn(0, 1)],
    ways: ['true | true → started'],
  },
  {
    name: 'the last item of a map completes against a failure that skips the map',
    slug: 'item_skips',
    steps: [`'a', step_type => 'map', when_exhausted => 'skip'`, `'b', array['a']`],
    input: [1, 2],
    prepare: claimAll('item_skips'),
    contenders: [complete('a', 1, 0), fail('a', 1)],
    ways: ['true | true → started', 'false | true → started'],
  },
  {
    name: 'two deps of one step complete',
    slug: 'two_deps',
    steps: [`'a'`, `'b'`, `'c', array['a', 'b']`],
    input: {},
    prepare: claimAll('two_deps'),
    contenders: [complete('a', 1), complete('b', 2)],
    ways: ['true | true → started 1 tasks'],
    also: `(select count(*) || ' tasks' from pgflow.step_tasks t where t.run_id = run.run_id and t.step_slug = 'c')`,
  },
  {
    name: 'a step completes against the failure of another',
    slug: 'failing',
    steps: [`'a'`, `'b'`, `'c', array['a']`],
    input: {},
    prepare: claimAll('failing'),
    contenders: [complete('a', 1), fail('b')],
    ways: ['true | true → failed', 'false | true → failed'],
  },
]

const ending: Race[] = [
  {
    name: 'a run is cancelled against its completion',
    slug: 'cancelled',
    steps: single,
    input: {},
    prepare: claimAll('cancelled'),
    contenders: [cancel, complete('a', 1)],
    ways: ['"cancelled" | false → cancelled', 'PT409 | true → completed {"a": 1}'],
  },
  {
    name: 'a run is cancelled against its failure',
    slug: 'cancel_fail',
    steps: single,
    input: {},
    prepare: claimAll('cancel_fail'),
    contenders: [cancel, fail('a')],
    ways: ['"cancelled" | false → cancelled', 'PT409 | true → failed'],
  },
  {
    name: 'a run is cancelled against the completion of a step that others wait for',
    slug: 'cancel_chain',
    steps: chain,
    input: {},
    prepare: claimAll('cancel_chain'),
    contenders: [cancel, complete('a', 1)],
    ways: ['"cancelled" | false → cancelled', '"cancelled" | true → cancelled'],
  },
  {
    name: 'a run is cancelled against a claim',
    slug: 'cancel_claim',
    steps: single,
    input: {},
    prepare: hideAll('cancel_claim'),
    arrange: expire('cancel_claim'),
    contenders: [cancel, claimOne('cancel_claim')],
    ways: ['"cancelled" | 0 → cancelled', '"cancelled" | 1 → cancelled'],
  },
  {
    name: 'a failed run is retried against its cancelling',
    slug: 'retry_cancel',
    steps: chain,
    input: {},
    prepare: failAll('retry_cancel', 'a'),
    contenders: [retry, cancel],
    ways: ['"started" | PT409 → started', '"started" | "cancelled" → cancelled'],
  },
  {
    name: 'a failed run is retried against another retry',
    slug: 'retry_twice',
    steps: chain,
    input: {},
    prepare: failAll('retry_twice', 'a'),
    contenders: [retry, retry],
    ways: ['"started" | PT409 → started', 'PT409 | "started" → started'],
  },
  {
    name: 'a failed run is retried against a late result of another of its tasks',
    slug: 'retry_late',
    steps: [`'a'`, `'b'`],
    input: {},
    prepare: failAll('retry_late', 'a'),
    contenders: [retry, complete('b', 1)],
    ways: ['"started" | false → started'],
  },
  {
    name: 'a failed run is retried against its pruning',
    slug: 'retry_prune',
    steps: chain,
    input: {},
    prepare: failAll('retry_prune', 'a'),
    arrange: `update pgflow.runs set ${end} where run_id = $1`,
    contenders: [retry, prune],
    ways: ['"started" | 0 → started', 'PT404 | 1 → gone'],
  },
  {
    name: 'a failed run is retried against its undo',
    slug: 'undone',
    steps: chain,
    input: {},
    prepare: `
      select pgflow.create_flow('undone_undo'), pgflow.add_step('undone_undo', 'a');
      update pgflow.flows set undo_flow = 'undone_undo' where flow_slug = 'undone';
      ${claimAll('undone')};
      select race.settle(run_id, 'a', 0, 1, '{"output": 1}') from race.rounds where race = 'undone';
      ${claimAll('undone')}`,
    arrange: fail('b'),
    contenders: [retry, `select to_jsonb(pgflow.begin_undos(10))`],
    ways: ['"started" | 0 → started 0 undo runs', 'PT409 | 1 → failed 1 undo runs'],
    also: `(select count(*) || ' undo runs' from pgflow.runs u where u.undoes = run.run_id)`,
  },
]

const forget = `select to_jsonb(pgflow.forget_owner(md5($2::text)::uuid))`
const owned = `update pgflow.runs set owner_id = md5($2::text)::uuid where run_id = $1`

const forgetting: Race[] = [
  {
    name: 'a run is erased with its owner against its completion',
    slug: 'forget_settle',
    steps: chain,
    input: {},
    prepare: claimAll('forget_settle'),
    arrange: owned,
    contenders: [forget, complete('a', 1)],
    ways: ['1 | false → gone', '1 | true → gone'],
  },
  {
    name: 'a run is erased with its owner against a watch',
    slug: 'forget_watch',
    steps: single,
    input: {},
    arrange: owned,
    contenders: [
      forget,
      `select pgflow_public.get_run($1, watch => '30000000-0000-4000-8000-000000000001') -> 'seq'`,
    ],
    ways: ['1 | PT404 → gone', '1 | 2 → gone', '1 | null → gone'],
  },
  {
    name: 'a run is erased with its owner against a start with its key',
    slug: 'forget_key',
    steps: single,
    input: {},
    arrange: `
      with run as (
        update pgflow.runs set owner_id = md5($2::text)::uuid, idempotency_key = 'k' where run_id = $1 returning run_id, owner_id
      )
      insert into pgflow.run_keys (run_id, alias, key, owner_id) select run_id, 'forget_key', 'k', owner_id from run`,
    contenders: [
      forget,
      `select to_jsonb(case run_id = $1 when true then 'old' when false then 'new' end)
       from pgflow.start_flow('forget_key', '{}', idempotency_key => 'k', owner_id => md5($2::text)::uuid)`,
    ],
    ways: ['1 | "old" → gone', '1 | "new" → gone'],
  },
]

const starting: Race[] = [
  {
    name: 'four clients start with one key',
    slug: 'one_key',
    steps: single,
    contenders: Array(4).fill(
      `select to_jsonb(run_id) from pgflow.start_flow('one_key', '{}', idempotency_key => $2::text)`,
    ),
    words: sameAnswer,
    ways: ['the same'],
  },
  {
    name: 'two batches start with the same keys in opposite orders',
    slug: 'keys',
    steps: single,
    contenders: ['n', '-n'].map(
      (order) => `
        select jsonb_agg(run_id order by idempotency_key)
        from pgflow.start_flows('keys', '[1, 1, 1, 1]', (
          select array_agg($2 || ' ' || n order by ${order}) from generate_series(1, 4) n
        ))`,
    ),
    words: sameAnswer,
    ways: ['the same'],
  },
  {
    name: 'a run is started with a key against the pruning of the run that had it',
    slug: 'key_prune',
    steps: single,
    input: {},
    prepare: failAll('key_prune', 'a'),
    arrange: `
      with run as (update pgflow.runs set idempotency_key = $2::text, ${end} where run_id = $1 returning run_id)
      insert into pgflow.run_keys (run_id, alias, key) select run_id, 'key_prune', $2::text from run`,
    contenders: [
      `select to_jsonb(case run_id = $1 when true then 'old' when false then 'new' end)
       from pgflow.start_flow('key_prune', '{}', idempotency_key => $2::text)`,
      prune,
    ],
    ways: ['"old" | 1 → gone', '"new" | 1 → gone'],
  },
  {
    name: 'a step is added against the start of a run',
    slug: 'add_step',
    steps: single,
    cost: 10,
    arrange: `
      select pgflow.create_flow('add_step_' || $2),
             pgflow.add_step('add_step_' || $2, 'a')`,
    contenders: [
      `select to_jsonb(step_slug) from pgflow.add_step('add_step_' || $2, 'b', array['a'])`,
      `with run as materialized (select * from pgflow.start_flow('add_step_' || $2, '{}'))
       select to_jsonb(jsonb_array_length(pgflow_public.get_run(run_id) -> 'steps')) from run`,
    ],
    ways: ['"b" | 2', 'PT409 | 1'],
  },
]

const claiming: Race[] = [
  {
    name: 'four workers claim the items of a map',
    slug: 'claimed',
    steps: map,
    input: [1, 2, 3, 4, 5, 6, 7, 8],
    prepare: hideAll('claimed'),
    arrange: expire('claimed'),
    contenders: Array(4).fill(`select race.claim('claimed', 3)`),
    words: (outcomes) => {
      const tasks = outcomes.flatMap(({ answer }) => answer as { task_index: number; attempt: number }[])
      return `${new Set(tasks.map((task) => task.task_index)).size} of ${tasks.length}`
    },
    ways: ['8 of 8 → started'],
  },
  {
    name: 'a late completion against a new claim',
    slug: 'late',
    steps: single,
    input: {},
    prepare: claimAll('late'),
    arrange: expire('late'),
    contenders: [complete('a', 1), claimOne('late')],
    ways: ['true | 0 → completed {"a": 1} 1 attempts', 'false | 1 → started 2 attempts'],
    also: attempts,
  },
  {
    name: 'a late completion against a claim that finds no attempt left',
    slug: 'last_lease',
    steps: [`'a', max_attempts => 1`],
    input: {},
    prepare: claimAll('last_lease'),
    arrange: expire('last_lease'),
    contenders: [complete('a', 1), claimOne('last_lease')],
    ways: ['true | 0 → completed {"a": 1}', 'false | 0 → failed'],
  },
  {
    name: 'a late failure against a new claim',
    slug: 'late_failure',
    steps: single,
    input: {},
    prepare: claimAll('late_failure'),
    arrange: expire('late_failure'),
    contenders: [retryIn(3600), claimOne('late_failure')],
    ways: ['true | 0 → started hidden', 'false | 1 → started not hidden'],
    also: isHidden('late_failure', '50 minutes'),
  },
  {
    name: 'a lease is extended against a new claim',
    slug: 'extended',
    steps: single,
    input: {},
    prepare: claimAll('extended'),
    arrange: expire('extended'),
    contenders: [extend, claimOne('extended')],
    ways: ['true | 0 → started hidden', 'true | 1 → started hidden', 'false | 1 → started hidden'],
    also: isHidden('extended', '20 seconds'),
  },
  {
    name: 'a lease is extended against a failure that is repeated later',
    slug: 'extend_fail',
    steps: single,
    input: {},
    prepare: claimAll('extend_fail'),
    contenders: [extend, retryIn(3600)],
    ways: ['true | true → started hidden', 'false | true → started hidden'],
    also: isHidden('extend_fail', '50 minutes'),
  },
  {
    name: 'leases of many tasks are extended against a failure of one that is repeated later',
    slug: 'extend_many',
    steps: map,
    input: Array(300).fill(null),
    cost: 10,
    prepare: claimAll('extend_many'),
    contenders: [
      `select to_jsonb(count(*) filter (where active)) from pgflow.extend_leases((
         select jsonb_agg(jsonb_build_object('run_id', $1, 'step_slug', 'a', 'task_index', n, 'attempt', 1))
         from generate_series(0, 299) n
       ), 1000)`,
      retryIn(3600),
    ],
    ways: ['300 | true → started hidden', '299 | true → started hidden'],
    also: isHidden('extend_many', '50 minutes'),
  },
  {
    name: 'a task is handed back against its completion',
    slug: 'returned',
    steps: single,
    input: {},
    prepare: claimAll('returned'),
    contenders: [handBack, complete('a', 1)],
    ways: ['1 | false → started', '0 | true → completed {"a": 1}'],
  },
  {
    name: 'a task is handed back against a claim after its lease',
    slug: 'return_late',
    steps: single,
    input: {},
    prepare: claimAll('return_late'),
    arrange: expire('return_late'),
    contenders: [handBack, claimOne('return_late')],
    // A claim takes any task of these rounds.
    ways: [
      '1 | 0 → started 1 attempts',
      '1 | 0 → started 2 attempts',
      '1 | 1 → started 1 attempts',
      '1 | 1 → started 2 attempts',
      '0 | 1 → started 2 attempts',
    ],
    also: attempts,
  },
  {
    name: 'a task is handed back against a cancel',
    slug: 'return_cancel',
    steps: single,
    input: {},
    prepare: claimAll('return_cancel'),
    contenders: [handBack, cancel],
    ways: ['1 | "cancelled" → cancelled', '0 | "cancelled" → cancelled'],
  },
]

const wait = [`'a', step_type => 'wait', completed_by => 'authenticated', timeout => 31536000`]
const completeWait = (value: unknown, step = 'a'): Statement =>
  `select to_jsonb('done'::text) from pgflow.complete_wait($1, '${step}', '${JSON.stringify(value)}')`
const timeIsOver = `update pgflow.step_tasks set due_at = clock_timestamp() where run_id = $1 and status = 'waiting'`
const tick = `select to_jsonb(settled) from pgflow.tick()`
const reject = `select to_jsonb('done'::text) from pgflow.reject_wait($1, 'a', 'no')`

const waiting: Race[] = [
  {
    name: 'a wait is completed against another value',
    slug: 'wait_twice',
    steps: wait,
    input: {},
    contenders: [completeWait('one'), completeWait('two')],
    ways: ['"done" | PT409 → completed {"a": "one"}', 'PT409 | "done" → completed {"a": "two"}'],
  },
  {
    name: 'a wait is completed against its timeout and a cancel',
    slug: 'wait_over',
    steps: wait,
    input: {},
    arrange: timeIsOver,
    contenders: [completeWait(1), tick, cancel],
    ways: [
      '"done" | 0 | PT409 → completed {"a": 1}',
      'PT409 | 1 | PT409 → failed',
      'PT409 | 0 | "cancelled" → cancelled',
    ],
  },
  {
    name: 'two tick at once',
    slug: 'ticks',
    steps: [`'a', step_type => 'sleep', sleep_for => 31536000`, `'b', array['a']`],
    input: {},
    arrange: timeIsOver,
    contenders: [tick, tick],
    ways: ['1 | 0 → started', '0 | 1 → started'],
  },
  {
    name: 'a wait that was rejected is completed against a retry',
    slug: 'wait_retry',
    steps: wait,
    input: {},
    prepare: `select pgflow.reject_wait(run_id, 'a', 'no') from race.rounds where race = 'wait_retry'`,
    contenders: [completeWait(1), retry],
    ways: ['"done" | "started" → completed {"a": 1}', 'PT409 | "started" → started'],
  },
  {
    name: 'a wait is completed against its beginning and a rejection',
    slug: 'wait_early',
    steps: [`'first'`, `'a', array['first'], step_type => 'wait'`],
    input: {},
    prepare: claimAll('wait_early'),
    contenders: [complete('first', 1), completeWait(2), reject],
    ways: ['true | "done" | PT409 → completed {"a": 2}', 'true | PT409 | "done" → failed'],
  },
]

const watching: Race[] = [
  {
    name: 'a watch begins against a completion',
    slug: 'watched',
    steps: chain,
    input: {},
    prepare: claimAll('watched'),
    contenders: [
      `select pgflow_public.get_run($1, watch => '30000000-0000-4000-8000-000000000001') -> 'seq'`,
      `select race.settle($1, 'a', 0, 1, '{"output": 1}')`,
    ],
    ways: ['2 | true → started 2 events told', '4 | true → started 0 events told'],
    also: `(
      select coalesce(sum(jsonb_array_length(r -> 'events')), 0) || ' events told'
      from realtime.messages m cross join lateral jsonb_array_elements(m.payload -> 'runs') r
      where m.topic = 'pgflow:watch:30000000-0000-4000-8000-000000000001' and r ->> 'run_id' = run.run_id::text
    )`,
  },
]

const keeping: Race[] = [
  {
    name: 'watches are deleted against the pruning of their runs',
    slug: 'watch_prune',
    steps: single,
    cost: 4,
    arrange: endedAndWatched('watch_prune'),
    contenders: [`select to_jsonb(pgflow.maintain() ->> 'runs')`, prune],
    ways: ['"0" | 30'],
  },
  {
    name: 'runs are maintained by two at once',
    slug: 'maintained',
    steps: single,
    cost: 4,
    arrange: endedAndWatched('maintained'),
    contenders: Array(2).fill(`select pgflow.maintain(keep_runs => interval '12 hours') -> 'runs'`),
    words: (outcomes) => {
      const failed = outcomes.find(({ sqlstate }) => sqlstate)
      return failed?.sqlstate ?? `${outcomes.reduce((sum, { answer }) => sum + Number(answer), 0)} runs`
    },
    ways: ['30 runs'],
  },
]

export const races = [
  ...settling,
  ...ending,
  ...forgetting,
  ...starting,
  ...claiming,
  ...waiting,
  ...watching,
  ...keeping,
]
