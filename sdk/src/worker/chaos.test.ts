import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { violations } from '../../../supabase/tests/testing/invariants.ts'
import { persist } from '../../../supabase/tests/testing/load.ts'
import { compile } from '../flow/index.ts'
import { chaosFlows, chaosRun } from './testing/chaos-flows.ts'
import { migrations } from './testing/database.ts'

/** What breaks when; for another history: `CHAOS_SEED=7 npx vitest run sdk/src/worker/chaos.test.ts`. */
const SEED = Number(process.env.CHAOS_SEED ?? 1)
/** How many times everything breaks; for a long one: `CHAOS_ROUNDS=100`. */
const ROUNDS = Number(process.env.CHAOS_ROUNDS ?? 10)
const RUNS = 20 * ROUNDS
const WORKERS = 4
const CONCURRENCY = 4
/** Seconds. */
const LEASE = 2

const script = fileURLToPath(new URL('./testing/chaos-worker.ts', import.meta.url))
const slugs = chaosFlows(() => {}).map(({ slug }) => slug)

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({ migrations: [migrations], fsync: false })
  sql = postgres(stack.dbUrl, { max: 2, onnotice: () => {} })
  await sql.unsafe(
    chaosFlows(() => {})
      .map(compile)
      .join(''),
  )
  // Whatever the engine answers: each time that a task completes, it is written down here.
  await sql.unsafe(`
    create table public.completions (run_id uuid, step_slug text, task_index int);
    create function public.note_completion() returns trigger language plpgsql as $$
    begin
      insert into public.completions values (new.run_id, new.step_slug, new.task_index);
      return null;
    end $$;
    create trigger note_completion after update of status on pgflow.step_tasks
    for each row when (new.status = 'completed') execute function public.note_completion()`)
})

afterAll(async () => {
  await sql?.end({ timeout: 1 })
  await stack?.stop()
})

it(`runs outlive the loss of workers, of connections and of Postgres (seed ${SEED})`, {
  timeout: 60_000 + 6_000 * ROUNDS,
}, async () => {
  const random = numbersFrom(SEED)
  const crew = new Crew([
    { connection: stack.dbUrl },
    { connection: stack.poolerUrl },
    { connection: stack.dbUrl },
    { url: stack.url, secretKey: stack.secretKey },
  ])
  onTestFinished(() => crew.kill())
  await crew.complete()
  for (let round = 0; round < ROUNDS; round++) {
    const started = startRuns(20 * round)
    await crew.attempts(1 + random(30))
    await [
      () => crew.lose(random(WORKERS)),
      () =>
        persist(
          () =>
            sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgflow worker'`,
        ),
      () => crew.lose(random(WORKERS)),
      () => stack.postgres.restart(),
      () => crew.loseAll(),
    ][round % 5]!()
    await Promise.all([started, crew.complete()])
  }
  await untilAllEnded()
  expect(await crew.stop()).toEqual(Array.from({ length: WORKERS }, () => 'SIGTERM'))

  expect(await endings()).toEqual(expectedEndings())
  expect(await violations(sql, slugs)).toEqual([])
  expect(await completionsThatAreNotOne()).toEqual([])
  expect(repeated(crew.said)).toEqual([])
  expect(await attemptsBeyondTheLimit()).toEqual([])
  expect(await unexplainedAttempts()).toBeLessThanOrEqual(ROUNDS * WORKERS * CONCURRENCY)
})

/** Workers in processes of their own, each with a way to connect. */
class Crew {
  /** Each attempt that a handler began, as the workers said it. */
  readonly said: string[] = []
  readonly #connections: readonly object[]
  readonly #members: (ChildProcess | undefined)[] = []
  readonly #attempts = new EventEmitter()

  constructor(connections: readonly object[]) {
    this.#connections = connections
  }

  /** Starts those that are missing. */
  async complete(): Promise<void> {
    await Promise.all(
      this.#connections.map((connection, n) => this.#members[n] ?? this.#start(n, connection)),
    )
  }

  /** Resolves when handlers have begun so many attempts. */
  async attempts(count: number): Promise<void> {
    for (const end = this.said.length + count; this.said.length < end; ) await once(this.#attempts, 'one')
  }

  /** Kills a worker where it stands. */
  async lose(n: number): Promise<void> {
    const member = this.#members[n]!
    this.#members[n] = undefined
    member.kill('SIGKILL')
    await once(member, 'close')
  }

  async loseAll(): Promise<void> {
    await Promise.all(this.#members.map((_, n) => this.lose(n)))
  }

  /** @returns the signals that ended them */
  stop(): Promise<(NodeJS.Signals | null)[]> {
    return Promise.all(
      this.#members.splice(0).map(async (member) => {
        member!.kill('SIGTERM')
        const [, signal] = await once(member!, 'close')
        return signal
      }),
    )
  }

  kill(): void {
    for (const member of this.#members.splice(0)) member?.kill('SIGKILL')
  }

  async #start(n: number, connection: object): Promise<void> {
    const member = spawn(
      process.execPath,
      [
        ...['--conditions=pgflow-source', '--import', 'tsx', script],
        JSON.stringify({ ...connection, name: `worker ${n}`, lease: LEASE, concurrency: CONCURRENCY }),
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    this.#members[n] = member
    member.on('close', (code) => {
      if (this.#members[n] === member && code !== 0) {
        this.#attempts.emit('error', new Error(`worker ${n} ended with ${code}`))
      }
    })
    const lines = createInterface(member.stdout!)
    const [first] = await once(lines, 'line')
    expect(first).toBe('ready')
    lines.on('line', (line) => {
      this.said.push(line)
      this.#attempts.emit('one')
    })
  }
}

/** The next 20, one transaction each. */
async function startRuns(first: number): Promise<void> {
  for (let n = first; n < first + 20; n++) {
    const { flow_slug, input } = chaosRun(n)
    await persist(
      () => sql`
        select pgflow.start_flow(${flow_slug}, ${JSON.stringify(input)}::text::jsonb, idempotency_key => ${String(n)})`,
    )
  }
}

async function untilAllEnded(): Promise<void> {
  await sql.unsafe(`
    create function public.announce_end() returns trigger language plpgsql as $$
    begin
      perform pg_notify('run_ended', new.run_id::text);
      return null;
    end $$;
    create trigger announce_end after update of status on pgflow.runs
    for each row when (new.status <> 'started') execute function public.announce_end()`)
  const ends = new EventEmitter()
  const { unlisten } = await sql.listen('run_ended', () => ends.emit('one'))
  while (true) {
    const next = once(ends, 'one')
    const open = await sql`select from pgflow.runs where status = 'started' limit 1`
    if (open.length === 0) break
    await next
  }
  await unlisten()
}

/** A small generator of numbers below a limit, the same for the same seed. */
function numbersFrom(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

async function endings() {
  return [
    ...(await sql`select (input ->> 'n')::int as n, flow_slug, status, output from pgflow.runs order by n`),
  ]
}

function expectedEndings() {
  return Array.from({ length: RUNS }, (_, n) => {
    const { flow_slug, status, output } = chaosRun(n)
    return { n, flow_slug, status, output }
  })
}

/** Completed tasks that did not complete once, and steps of which there is not one event that says so. */
async function completionsThatAreNotOne() {
  return sql`
    select t.run_id, t.step_slug, t.task_index, count(c.run_id) as completions
    from pgflow.step_tasks t left join public.completions c using (run_id, step_slug, task_index)
    where t.status = 'completed'
    group by t.run_id, t.step_slug, t.task_index
    having count(c.run_id) <> 1
    union all
    select ss.run_id, ss.step_slug, null, count(e.seq)
    from pgflow.step_states ss
    left join pgflow.run_events e on (e.run_id, e.step_slug, e.type) = (ss.run_id, ss.step_slug, 'step:completed')
    where ss.status = 'completed'
    group by ss.run_id, ss.step_slug
    having count(e.seq) <> 1`
}

/** An attempt is one worker's, once. */
function repeated(said: readonly string[]): string[] {
  return said.filter((line, n) => said.indexOf(line) !== n)
}

async function attemptsBeyondTheLimit() {
  return sql`
    select t.run_id, t.step_slug, t.task_index, t.attempts_count
    from pgflow.step_tasks t join pgflow.flows f using (flow_slug)
    where t.attempts_count - t.attempts_before > f.opt_max_attempts`
}

/** Attempts that no failure of the attempt before asked for: their leases were lost, or what they were handed back. */
async function unexplainedAttempts(): Promise<number> {
  const [row] = await sql`
    select sum(t.attempts_count - least(t.attempts_count, case
      when t.step_slug = 'try' then 2
      when t.step_slug = 'reserve' and (r.input ->> 'n')::int % 3 = 0 then 2
      when t.step_slug = 'squares' and (t.input #>> '{}')::int % 4 = 0 then 2
      else 1
    end))::int as attempts
    from pgflow.step_tasks t join pgflow.runs r using (run_id)`
  return row!.attempts
}
