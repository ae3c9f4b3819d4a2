/** The engine as a history sees it: one connection, and everything that the database shows of some runs. */
import { randomUUID } from 'node:crypto'
import type { RunSnapshot } from '@pgflow/sdk'
import postgres, { type ISql, type Sql } from 'postgres'
import type { WireEvent } from '../../../sdk/src/client/store.ts'
import type { FlowDefinition, LimitDefinition, LimitUse, Source, StepDefinition } from './definition.ts'
import type { Json } from './json.ts'
import type { Limit } from './slots.ts'
import type { Ending } from './task.ts'

/** A task of a run, by its names. */
export interface TaskKey {
  run_id: string
  step_slug: string
  task_index: number
}

export interface Result extends TaskKey {
  attempt: number | null
  ending: Ending
}

export interface ClaimedTask extends TaskKey {
  flow_slug: string
  attempt: number
  input: Json
  msg_id: number
}

/** What only the database knows of a task: whether it has a slot, whether it was claimed, its message. */
export interface TaskRow extends TaskKey {
  waits_for: string | null
  attempts_count: number
  child_run_id: string | null
  message_id: number | null
}

/** A run that the engine has started for another one. */
export interface Descendant {
  run_id: string
  parent_run_id: string | null
  parent_step_slug: string | null
  parent_task_index: number | null
  undoes: string | null
}

/** A task's message; times are in seconds. */
export interface Message extends TaskKey {
  flow_slug: string
  msg_id: number
  hidden_until: number | null
}

/** A run as it stands: its rows, its whole log, and what a client reads. */
export interface Observation {
  run: {
    run_id: string
    status: string
    output: Json
    error: string | null
    parent_run_id: string | null
    parent_step_slug: string | null
    parent_task_index: number | null
    depth: number
    undoes: string | null
  }
  steps: {
    step_slug: string
    status: string
    output: Json
    error: string | null
    skip_reason: string | null
    progress: Json
    retries: number
    retry_at: string | null
    initial_tasks: number | null
    waits_for: string | null
    due_at: string | null
    remaining_deps: number
    remaining_tasks: number | null
  }[]
  tasks: {
    step_slug: string
    task_index: number
    status: string
    attempts_count: number
    input: Json
    output: Json
    error_message: string | null
    waits_for: string | null
    due_at: string | null
    slot_keys: string[] | null
    slot_rank: string | null
    child_run_id: string | null
    message_id: number | null
  }[]
  events: WireEvent[]
  snapshot: RunSnapshot
}

/** The one violation that may pass: a message is archived later if somebody held it. */
export const orphan = 'message without an open task'

const worker = randomUUID()
const lease = 3600

export class Database {
  readonly sql: Sql

  constructor(url: string, connections = 1) {
    this.sql = postgres(url, { max: connections, onnotice: () => undefined })
  }

  end(): Promise<void> {
    return this.sql.end()
  }

  /** Makes limits under new names. */
  async defineLimits(definitions: readonly LimitDefinition[]): Promise<Limit[]> {
    const limits = definitions.map((definition) => ({ ...definition, slug: `l_${randomUUID()}` }))
    for (const limit of limits) await this.setLimit(limit)
    return limits
  }

  async setLimit({ slug, running, rate }: Limit): Promise<void> {
    await this.sql`select pgflow.set_limit(${slug}, ${running}, ${rate?.[0] ?? null}, ${rate?.[1] ?? null})`
  }

  /**
   * Defines a flow under a new slug, in one round trip. `slugs` are those of the flows that came before it, which its sub-flows
   * may name; one that names another calls the flow itself. `undoFlow` is the slug of the one that undoes it.
   */
  async define(
    flow: FlowDefinition,
    limits: readonly Limit[] = [],
    slugs: readonly string[] = [],
    undoFlow?: string,
  ): Promise<string> {
    const slug = `f_${randomUUID().replaceAll('-', '')}`
    const steps = flow.steps.map(
      ({ child, loop, map, runIf, runUnless, wait, sleep, hasUndo, ...step }, n) => ({
        ...step,
        ...((wait ?? sleep) && { startDelay: null }),
        ...((wait ?? sleep ?? child) && { maxAttempts: null, baseDelay: null }),
        type: map ? 'map' : wait ? 'wait' : sleep ? 'sleep' : loop ? 'loop' : 'single',
        ...(wait && { ...wait, completedBy: 'authenticated' }),
        ...(sleep && 'for' in sleep ? { sleepFor: sleep.for } : sleep && { until: `run.${sleep.until}` }),
        n,
        ...sourceOf(map ?? child?.input ?? loop?.start),
        // A fragment may be JSON's null, which a column cannot tell from none.
        runIf: runIf === undefined ? undefined : JSON.stringify(runIf),
        runUnless: runUnless === undefined ? undefined : JSON.stringify(runUnless),
        options: {
          ...(wait || sleep ? {} : optionsOf(step, limits)),
          ...(child && { child_flow: slugs[child.flow] ?? slug, when_parent_ends: child.whenParentEnds }),
          ...(loop && { loop_until: loop.until, loop_max: loop.max, when_exceeded: loop.whenExceeded }),
        },
      }),
    )
    const options = { limits: usesOf(flow.limits, limits), deadline: flow.deadline, undo_flow: undoFlow }
    await this.sql`
      select pgflow.create_flow(${slug}, options => ${json(options)}::text::jsonb),
             pgflow.add_step(
               ${slug}, s ->> 'slug', array(select jsonb_array_elements_text(s -> 'deps')),
               max_attempts => (s ->> 'maxAttempts')::int, base_delay => (s ->> 'baseDelay')::numeric,
               start_delay => (s ->> 'startDelay')::int,
               step_type => s ->> 'type',
               map_source => s ->> 'map', map_path => s ->> 'path',
               run_if => (s ->> 'runIf')::jsonb, run_unless => (s ->> 'runUnless')::jsonb,
               when_unmet => s ->> 'whenUnmet', when_exhausted => s ->> 'whenExhausted',
               completed_by => s ->> 'completedBy', timeout => (s ->> 'timeout')::int, when_timed_out => s ->> 'whenTimedOut',
               timed_out_output => case s ->> 'whenTimedOut' when 'complete' then s -> 'timedOutOutput' end,
               sleep_for => (s ->> 'sleepFor')::int, until_path => s ->> 'until', options => jsonb_strip_nulls(s -> 'options')
             )
      from jsonb_array_elements(${json(steps)}::text::jsonb) s
      order by (s ->> 'n')::int`
    return slug
  }

  async start(flow: string, input: Json, options: { runId?: string; delay?: number } = {}): Promise<string> {
    const [run] = await this.sql<{ run_id: string }[]>`
      select run_id from pgflow.start_flow(
        ${flow}, ${json(input)}::text::jsonb, run_id => ${options.runId ?? null}, delay => ${options.delay ?? 0}
      )`
    return run!.run_id
  }

  async startMany(flow: string, inputs: Json[], keys: string[], delay: number): Promise<string[]> {
    const runs = await this.sql<{ run_id: string }[]>`
      select run_id from pgflow.start_flows(
        ${flow}, ${json(inputs)}::text::jsonb, idempotency_keys => ${keys}, delay => ${delay}
      )`
    return runs.map(({ run_id }) => run_id)
  }

  async claim(flows: string[], quantity: number): Promise<ClaimedTask[]> {
    const rows = await this.sql<{ task: ClaimedTask }[]>`
      select to_jsonb(t) as task from pgflow.claim_tasks(${flows}, ${quantity}, ${worker}, ${lease}) t`
    return rows.map(({ task }) => task)
  }

  /** Claims as workers written in SQL do. */
  async poll(flow: string, quantity: number): Promise<ClaimedTask[]> {
    const rows = await this.sql<{ task: ClaimedTask }[]>`
      select to_jsonb(t) as task from pgflow.poll_for_tasks(${flow}, ${lease}, ${quantity}, max_poll_seconds => 0) t`
    return rows.map(({ task }) => task)
  }

  /** Whether the task is still this attempt's. */
  async extend(task: TaskKey & { attempt: number | null }): Promise<boolean> {
    const [answer] = await this.sql<{ active: boolean }[]>`
      select active from pgflow.extend_leases(${json([task])}::text::jsonb, ${lease})`
    return answer!.active
  }

  /** How many were given back. */
  async handBack(task: TaskKey & { attempt: number | null }): Promise<number> {
    const [answer] = await this.sql<{ tasks: number }[]>`
      select pgflow.hand_back(${json([task])}::text::jsonb) as tasks`
    return answer!.tasks
  }

  async settle(results: Result[]): Promise<boolean[]> {
    const rows = await this.sql<{ applied: boolean }[]>`
      select applied from pgflow.settle_tasks(${json(results.map(wireResult))}::text::jsonb)`
    return rows.map(({ applied }) => applied)
  }

  async settleAndClaim(
    results: Result[],
    flows: string[],
    quantity: number,
  ): Promise<{ stale: Omit<Result, 'ending'>[]; held: Omit<Result, 'ending'>[]; tasks: ClaimedTask[] }> {
    const [answer] = await this.sql<{ stale: []; held: []; tasks: ClaimedTask[] }[]>`
      select * from pgflow.settle_and_claim(
        ${json(results.map(wireResult))}::text::jsonb, ${flows}, ${quantity}, ${worker}, ${lease}
      )`
    return answer!
  }

  /** Settles a task as a person does; whether it was open. */
  async settleByHand({ run_id, step_slug, task_index }: TaskKey, ending: Ending): Promise<boolean> {
    const rows =
      'output' in ending
        ? await this.sql`
            select from pgflow.complete_task(${run_id}, ${step_slug}, ${task_index}, ${json(ending.output)}::text::jsonb)`
        : await this.sql`
            select from pgflow.fail_task(${run_id}, ${step_slug}, ${task_index}, ${ending.error})`
    return rows.length === 1
  }

  async completeWait(runId: string, step: string, value: Json): Promise<void> {
    await this.sql`select pgflow.complete_wait(${runId}, ${step}, ${json(value)}::text::jsonb)`
  }

  async rejectWait(runId: string, step: string, reason: string): Promise<void> {
    await this.sql`select pgflow.reject_wait(${runId}, ${step}, ${reason})`
  }

  /** Settles what is due, at another time than the engine's if it is given; times are in seconds. */
  async tick(at?: string): Promise<{ settled: number; nextDueAt: number | null }> {
    const tick = (sql: ISql) => sql<{ settled: number; nextDueAt: number | null }[]>`
      select settled, extract(epoch from next_due_at)::float8 as "nextDueAt" from pgflow.tick()`
    if (at === undefined) return (await tick(this.sql))[0]!
    return await this.sql.begin(async (sql) => {
      await sql`select set_config('pgflow.now', ${at}, true)`
      return (await tick(sql))[0]!
    })
  }

  /** The waits of flows that wait. */
  async waits(flows: string[]): Promise<{ run_id: string; step_slug: string }[]> {
    return await this.sql`
      select run_id, step_slug from pgflow.step_tasks where flow_slug = any (${flows}) and waits_for = 'signal'`
  }

  /** Deletes runs that an earlier history, which has failed, left open: a clock ticks for all. */
  async deleteOpenRuns(): Promise<void> {
    await this.sql`delete from pgflow.runs where status = 'started'`
    await this.sql`delete from pgflow.alarms`
  }

  /** Sets the engine's time, in seconds; messages still appear by the real one. */
  async setClock(now: number): Promise<void> {
    await this.sql.unsafe(`set pgflow.now = '${new Date(now * 1000).toISOString()}'`)
  }

  /** Lets delays and leases of messages run out. */
  async elapse(flow: string, messages: number[]): Promise<void> {
    if (messages.length === 0) return
    await this.sql.unsafe(`update pgmq.q_${flow} set vt = clock_timestamp() where msg_id = any ($1)`, [
      messages,
    ])
  }

  async cancel(runId: string, undo = false): Promise<void> {
    if (undo) await this.sql`select pgflow.cancel_run(${runId}, 'enough', undo => true)`
    else await this.sql`select pgflow.cancel_run(${runId}, 'enough')`
  }

  async retry(runId: string): Promise<void> {
    await this.sql`select pgflow.retry_run(${runId})`
  }

  /** Reads runs, of each the events after the one so numbered. */
  async observe(runIds: string[], after: number[] = runIds.map(() => 0)): Promise<Observation[]> {
    const rows = await this.sql<{ seen: Observation }[]>`
      select jsonb_build_object(
        'run', to_jsonb(r),
        'steps', (
          select jsonb_agg(to_jsonb(ss) order by ss.step_slug) from pgflow.step_states ss where ss.run_id = r.run_id
        ),
        'tasks', (
          select coalesce(jsonb_agg(to_jsonb(t) order by t.step_slug, t.task_index), '[]')
          from pgflow.step_tasks t where t.run_id = r.run_id
        ),
        'events', (
          select coalesce(jsonb_agg(e.event order by e.seq), '[]')
          from pgflow.run_event_records e where e.run_id = r.run_id and e.seq > wanted.after
        ),
        'snapshot', pgflow.snapshot(r.run_id)
      ) as seen
      from unnest(${runIds}::uuid[], ${after}::int[]) with ordinality as wanted (run_id, after, n)
      join pgflow.runs r using (run_id)
      order by wanted.n`
    return rows.map(({ seen }) => seen)
  }

  /** The tasks of runs, as far as the model has to ask for them. */
  async tasks(runIds: string[]): Promise<TaskRow[]> {
    return await this.sql`
      select run_id, step_slug, task_index, waits_for, attempts_count, child_run_id, message_id::int
      from pgflow.step_tasks where run_id = any (${runIds}::uuid[])`
  }

  /** The runs that were started for some runs, for those, and so on. */
  async descendants(runIds: string[]): Promise<Descendant[]> {
    return await this.sql`
      with recursive descendant as (
        select r.run_id, r.parent_run_id, r.parent_step_slug, r.parent_task_index, r.undoes from pgflow.runs r
        where r.parent_run_id = any (${runIds}::uuid[]) or r.undoes = any (${runIds}::uuid[])
        union
        select r.run_id, r.parent_run_id, r.parent_step_slug, r.parent_task_index, r.undoes
        from descendant d join pgflow.runs r on r.parent_run_id = d.run_id or r.undoes = d.run_id
      )
      select * from descendant`
  }

  /** Lets the delays of a flow's tasks run out that nobody holds. */
  async elapseQueued(flow: string): Promise<void> {
    await this.sql.unsafe(
      `with waiting as (
         select t.message_id from pgflow.step_tasks t
         where t.flow_slug = $1 and t.status = 'queued'
         for no key update skip locked
       )
       update pgmq.q_${flow} q set vt = clock_timestamp() from waiting where q.msg_id = waiting.message_id`,
      [flow],
    )
  }

  async elapseAll(flow: string): Promise<void> {
    await this.sql.unsafe(`update pgmq.q_${flow} set vt = clock_timestamp()`)
  }

  /** Whether runs go on, or something is to be done because of one that does not. */
  async isBusy(flows: string[]): Promise<boolean> {
    const [row] = await this.sql<{ busy: boolean }[]>`
      select exists (select from pgflow.runs where flow_slug = any (${flows}) and status = 'started') or exists (
        select from pgflow.alarms where kind in ('child', 'ended', 'cancel', 'retried', 'undo')
      ) as busy`
    return row!.busy
  }

  /** What may never be, whatever has happened: open things under closed ones, lost messages, counters that are wrong. */
  async violations(flow: string): Promise<{ what: string }[]> {
    return await this.sql.unsafe(
      `select * from (
         select 'open step in a closed run' as what, ss.run_id, ss.step_slug
         from pgflow.step_states ss join pgflow.runs r using (run_id)
         where r.flow_slug = $1 and r.status <> 'started' and ss.status in ('created', 'started')
         union all
         select 'open task in a step that is not started', ss.run_id, ss.step_slug
         from pgflow.step_tasks t join pgflow.step_states ss using (run_id, step_slug)
         where t.flow_slug = $1 and t.status in ('waiting', 'queued', 'started') and ss.status <> 'started'
         union all
         select '${orphan}', null, m.message ->> 'step_slug'
         from pgmq.q_${flow} m
         where not exists (
           select from pgflow.step_tasks t
           where t.flow_slug = $1 and t.message_id = m.msg_id and t.status in ('queued', 'started')
         )
         union all
         select 'open task without a message', t.run_id, t.step_slug
         from pgflow.step_tasks t
         where t.flow_slug = $1 and t.status in ('queued', 'started')
           and not exists (select from pgmq.q_${flow} m where m.msg_id = t.message_id)
         union all
         select 'open run without open steps', r.run_id, null
         from pgflow.runs r
         where r.flow_slug = $1 and r.status = 'started' and not exists (
           select from pgflow.step_states ss where ss.run_id = r.run_id and ss.status in ('created', 'started')
         )
         union all
         select 'step state without its run', ss.run_id, ss.step_slug
         from pgflow.step_states ss
         where ss.flow_slug = $1 and not exists (select from pgflow.runs r where r.run_id = ss.run_id)
         union all
         select 'task without its step state', t.run_id, t.step_slug
         from pgflow.step_tasks t
         where t.flow_slug = $1 and not exists (
           select from pgflow.step_states ss where ss.run_id = t.run_id and ss.step_slug = t.step_slug
         )
         union all
         select 'event without its run', e.run_id, e.step_slug
         from pgflow.run_events e
         where not exists (select from pgflow.runs r where r.run_id = e.run_id)
         union all
         select 'wrong remaining_tasks', ss.run_id, ss.step_slug
         from pgflow.step_states ss
         where ss.flow_slug = $1 and ss.status = 'started' and ss.remaining_tasks <> (
           select count(*) from pgflow.step_tasks t
           where t.run_id = ss.run_id and t.step_slug = ss.step_slug and t.status in ('waiting', 'queued', 'started')
         )
         union all
         select 'a wait that asks nobody, or somebody who is asked for nothing', t.run_id, t.step_slug
         from pgflow.step_tasks t join pgflow.steps s using (flow_slug, step_slug)
         where t.flow_slug = $1 and s.step_type = 'wait' and (t.status = 'waiting') <> exists (
           select from pgflow.wait_assignees w where w.run_id = t.run_id and w.step_slug = t.step_slug and w.is_open
         )
         union all
         select 'more slots than the limit', null, s.key
         from (
           select key, count(*) as held
           from pgflow.step_tasks t cross join unnest(t.slot_keys) key
           where t.status in ('queued', 'started') or t.waits_for = 'run'
           group by key
         ) s
         where s.held > coalesce(
           (select l.running from pgflow.limits l where l.limit_slug = split_part(s.key, ':', 1)),
           (
             select o.opt_concurrency from pgflow.runs r join pgflow.steps o using (flow_slug)
             where s.key = ':' || r.run_id || ':' || o.step_slug
           ),
           s.held
         )
         union all
         select 'gap in the log', e.run_id, null
         from pgflow.run_events e join pgflow.runs r using (run_id)
         where r.flow_slug = $1 group by e.run_id having max(e.seq) <> count(*)
       ) violation`,
      [flow],
    )
  }

  /** How often each message of the flow was read, archived ones too. */
  async reads(flow: string): Promise<Map<number, number>> {
    const rows = await this.sql.unsafe(
      `select msg_id::int, read_ct from pgmq.q_${flow} union all select msg_id::int, read_ct from pgmq.a_${flow}`,
    )
    return new Map(rows.map(({ msg_id, read_ct }) => [msg_id, read_ct]))
  }

  /** What is in the flows' queues, and until when it is hidden by the engine's time, if that is another. */
  async messages(flows: string[]): Promise<Message[]> {
    const queues = flows.map(
      (flow) =>
        `select '${flow}' as flow_slug, msg_id::int, message ->> 'run_id' as run_id, message ->> 'step_slug' as step_slug,
                (message ->> 'task_index')::int as task_index,
                case when abs(extract(epoch from vt - clock_timestamp())) > 86400 then extract(epoch from vt)::float8 end
                  as hidden_until
         from pgmq.q_${flow}`,
    )
    return await this.sql.unsafe(`${queues.join(' union all ')} order by flow_slug, msg_id`)
  }
}

/** Where a step has its items or its input, as arguments of add_step. */
function sourceOf(place: Source | undefined) {
  return place && { map: place.source, path: place.path.length > 0 ? place.path.join('.') : undefined }
}

/** What has no argument of its own. */
function optionsOf(
  step: Pick<StepDefinition, 'concurrency' | 'deadline' | 'collect' | 'limits'>,
  limits: readonly Limit[],
) {
  const { concurrency, deadline, collect } = step
  return {
    ...{ concurrency, deadline, limits: usesOf(step.limits, limits) },
    ...(collect && {
      when_item_fails: 'collect',
      tolerate_count: collect.count,
      tolerate_share: collect.share,
    }),
  }
}

/** The limits of a flow or step in its definition. */
function usesOf(uses: readonly LimitUse[], limits: readonly Limit[]): object[] {
  return uses.map(({ limit, by }) => {
    const { slug, running, rate } = limits[limit]!
    return {
      limit_slug: slug,
      by_path: by?.join('.'),
      running,
      rate_count: rate?.[0],
      rate_period: rate?.[1],
    }
  })
}

function wireResult({ ending, ...key }: Result): Json {
  if ('output' in ending) return { ...key, output: ending.output }
  const { error, retryDelay, permanent, uncounted } = ending
  return {
    ...key,
    error,
    ...(retryDelay !== undefined && { retry_delay: retryDelay }),
    ...(permanent !== undefined && { permanent }),
    ...(uncounted !== undefined && { uncounted }),
  }
}

const json = (value: unknown): string => JSON.stringify(value)
