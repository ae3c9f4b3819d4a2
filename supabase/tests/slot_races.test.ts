import { hash, randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type ISql, type PendingQuery, type Row, type Sql } from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { violations } from './testing/invariants.ts'
import { noteInForce, recordSlots, slotHistory } from './testing/slot_history.ts'

/** Tasks of each race; for a longer run: `SLOT_TASKS=10000 npx vitest run supabase/tests/slot_races.test.ts`. */
const TASKS = Number(process.env.SLOT_TASKS ?? 40)
const WORKERS = 8
const CONCURRENCY = 2

let stack: LocalSupabase
let sql: Sql
let admin: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: WORKERS, onnotice: () => undefined })
  admin = postgres(stack.adminDbUrl, { max: 1, onnotice: () => undefined })
  await recordSlots(sql, admin)
})

afterAll(async () => {
  await sql?.end()
  await admin?.end()
  await stack?.stop()
})

interface Limit {
  slug: string
  running: number
  by?: string
}

interface SlotRace {
  slug: string
  limits: Limit[]
  /** Items of a map in each run, of which two have a slot at once. @default no map */
  items?: number
  /** How many values the paths of limits have. */
  keys: number
}

const races: SlotRace[] = [
  { slug: 'one_key', limits: [{ slug: 'shared', running: 3 }], keys: 1 },
  {
    slug: 'many_keys',
    limits: [{ slug: 'tenant', running: 2, by: 'run.key' }],
    keys: Math.min(100, TASKS / 10),
  },
  {
    slug: 'two_keys',
    limits: [
      { slug: 'both', running: 6 },
      { slug: 'customer', running: 2, by: 'run.key' },
    ],
    keys: Math.min(100, TASKS / 10),
  },
  { slug: 'map', limits: [{ slug: 'items', running: 5 }], items: 10, keys: 1 },
]

test.each(races)(
  'no commit gives more slots than the limit: $slug',
  { timeout: 60_000 + 20 * TASKS },
  async (race) => {
    await define(race)
    const inputs = Array.from({ length: TASKS / (race.items ?? 1) }, (_, n) => ({
      key: `k${n % race.keys}`,
      items: Array.from({ length: race.items ?? 0 }, (_, item) => item),
    }))
    await sql`select pgflow.start_flows(${race.slug}, ${sql.json(inputs)})`
    const commotion = new Commotion(race)
    await Promise.all(Array.from({ length: WORKERS }, (_, n) => commotion.work(n)))
    await commotion.end()

    const { excesses, peaks, held } = await slotHistory(admin, CONCURRENCY)
    expect(excesses).toEqual([])
    for (const { slug } of race.limits) expect(peaks[slug]).toBeGreaterThan(1)
    if (race.items) expect(peaks['']).toBe(CONCURRENCY)
    expect(held).toEqual([])
    expect([
      ...(await sql`select from pgflow.step_tasks where status in ('waiting', 'queued', 'started')`),
    ]).toEqual([])
    await later((tx) => tx`select pgflow.tick()`)
    expect([...(await sql`select * from pgflow.alarms`)]).toEqual([])
    expect(await violations(sql, [race.slug])).toEqual([])
  },
)

test('a task that a transaction has locked, and lets go, is admitted later', async () => {
  await define({ slug: 'locked', limits: [{ slug: 'one_by_one', running: 1 }], keys: 1 })
  const [run] = await sql<{ run_id: string }[]>`select run_id from pgflow.start_flow('locked', '{}')`
  const claim = (tx: ISql) => tx`select run_id from pgflow.claim_tasks(array['locked'], 1, null)`
  const rollback = new Error('rollback')
  const cancelled = sql.begin(async (other) => {
    await other`select from pgflow.cancel_run(${run!.run_id})`
    expect([...(await claim(sql))]).toEqual([])
    throw rollback
  })
  await expect(cancelled).rejects.toBe(rollback)
  expect(await later(claim)).toEqual([run])
})

/** What happens a minute later. */
async function later(act: (tx: ISql) => PendingQuery<Row[]>): Promise<Row[]> {
  const [, rows] = await sql.begin((tx) => [
    tx`select set_config('pgflow.now', (clock_timestamp() + interval '1 minute')::text, true)`,
    act(tx),
  ])
  return [...rows]
}

async function define({ slug, limits, items }: SlotRace): Promise<void> {
  const uses = limits.map(({ slug, running, by }) => ({ limit_slug: slug, running, by_path: by ?? null }))
  const step = items ? { step_type: 'map', map_path: 'items', concurrency: CONCURRENCY } : {}
  const flow = { flow_slug: slug, max_attempts: 1000, base_delay: 0 }
  await sql`
    select pgflow.register_flow(${sql.json({ ...flow, steps: [{ step_slug: 'a', ...step, limits: uses }] })})`
}

interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
}

/** Workers that are killed now and then, while runs are cancelled and retried and limits changed. */
class Commotion {
  readonly #race: SlotRace
  readonly #random = numbersFrom(1)
  readonly #living: string[] = []
  #deaths = 0
  #changing: Promise<void> | undefined

  constructor(race: SlotRace) {
    this.#race = race
  }

  async work(n: number): Promise<void> {
    const { slug } = this.#race
    const connection = postgres(stack.dbUrl, {
      ...{ max: 1, fetch_types: false, onnotice: () => undefined },
      connection: { application_name: `worker ${n}` },
    })
    this.#living[n] = randomUUID()
    let results: object[] = []
    for (let isOver = false; !isOver; ) {
      try {
        const [answer] = await connection<{ held: Task[]; tasks: Task[] }[]>`
          select held, tasks from pgflow.settle_and_claim(
            ${sql.json(results as never)}, array[${slug}], ${1 + this.#random(8)}::int, ${this.#living[n]!}::uuid, 1000
          )`
        const held = new Set(answer!.held.map(keyOf))
        results = results.filter((result) => held.has(keyOf(result as Task)))
        results.push(...answer!.tasks.map(resultOf))
      } catch (error) {
        if (!isLost(error)) throw error
        // It has died with all that it has claimed.
        this.#living[n] = randomUUID()
        this.#deaths++
        results = []
      }
      if (results.length === 0) isOver = await this.#idle()
      if (!isOver) await this.#meddle()
    }
    await connection.end({ timeout: 0 })
  }

  async end(): Promise<void> {
    await this.#changing
  }

  /** Whether all is done. */
  async #idle(): Promise<boolean> {
    const { slug } = this.#race
    await setTimeout(this.#random(20))
    if (this.#deaths > 0) await this.#expire()
    await sql`select pgflow.tick()`
    return (
      (await sql`select from pgflow.runs where flow_slug = ${slug} and status = 'started' limit 1`).length ===
      0
    )
  }

  /** Lets the leases of those who have died run out. */
  async #expire(): Promise<void> {
    const { slug } = this.#race
    this.#deaths = 0
    await sql.unsafe(
      `with lost as (
         select q.msg_id from pgmq.q_${slug} q join pgflow.step_tasks t on t.message_id = q.msg_id
         where t.flow_slug = $1 and t.status = 'started' and t.last_worker_id <> all ($2::text[]::uuid[])
         for update of q skip locked
       )
       update pgmq.q_${slug} q set vt = '-infinity' from lost where q.msg_id = lost.msg_id`,
      [slug, this.#living],
    )
  }

  async #meddle(): Promise<void> {
    const { slug } = this.#race
    switch (this.#random(40)) {
      case 0:
      case 1:
        await sql`
          select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${`worker ${this.#random(WORKERS)}`}`
        break
      case 2:
      case 3:
        this.#changing ??= this.#changeLimit().finally(() => {
          this.#changing = undefined
        })
        break
      case 4:
        await sql`
          select pgflow.cancel_run(r.run_id) from (
            select run_id from pgflow.runs where flow_slug = ${slug} and status = 'started' order by random() limit 1
          ) r`.catch(unlessLate)
        break
      case 5:
        await sql`
          select pgflow.retry_run(r.run_id) from (
            select run_id from pgflow.runs where flow_slug = ${slug} and status in ('cancelled', 'failed') order by random() limit 1
          ) r`.catch(unlessLate)
    }
  }

  async #changeLimit(): Promise<void> {
    const { slug } = this.#race.limits[this.#random(this.#race.limits.length)]!
    await sql`select pgflow.set_limit(${slug}, ${1 + this.#random(5)}::int)`
    await noteInForce(sql, slug)
  }
}

/** Some are to be tried again, at once or later, some fail for good; how depends on nothing but the attempt. */
function resultOf({ run_id, step_slug, task_index, attempt }: Task): object {
  const task = { run_id, step_slug, task_index, attempt }
  const chance =
    Number.parseInt(hash('sha1', `${run_id.slice(-12)} ${task_index} ${attempt}`).slice(0, 6), 16) % 40
  if (chance < 4) return { ...task, error: 'again', retry_delay: 0 }
  if (chance < 6) return { ...task, error: 'busy', retry_delay: 0.01, uncounted: true }
  if (chance === 6) return { ...task, error: 'never', permanent: true }
  return { ...task, output: task_index }
}

const keyOf = ({ run_id, step_slug, task_index, attempt }: Task) =>
  `${run_id} ${step_slug} ${task_index} ${attempt}`

function isLost(error: unknown): boolean {
  const { code } = error as { code?: string }
  return (
    code === '57P01' || code?.startsWith('CONNECTION_') === true || code === 'ECONNRESET' || code === 'EPIPE'
  )
}

/** Somebody else was faster. */
function unlessLate(error: { code?: string }): void {
  if (error.code !== 'PT409') throw error
}

/** A small generator of numbers below a limit, the same for the same seed. */
function numbersFrom(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}
