import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import postgres, { type Sql } from 'postgres'

/**
 * A flow with a chain, a map, a retry, a wait, a sleep, limits and, for every seventh run, a failure; what its handlers answer depends on
 * nothing but their input and attempt.
 */
export async function createLoad(sql: Sql, flowSlug: string): Promise<void> {
  await sql`
    select pgflow.create_flow(${flowSlug}, max_attempts => 1000, base_delay => 0, broadcast => 'always')`
  await sql`select pgflow.add_step(${flowSlug}, 'numbers')`
  await sql`
    select pgflow.add_step(${flowSlug}, 'squares', array['numbers'], step_type => 'map', options => '{"concurrency": 2}')`
  const limited = { limits: [{ by_path: 'run.n', running: 1 }] }
  await sql`select pgflow.add_step(${flowSlug}, 'again', options => ${sql.json(limited)})`
  await sql`select pgflow.add_step(${flowSlug}, 'approved', array['numbers'], step_type => 'wait', completed_by => 'authenticated')`
  await sql`select pgflow.add_step(${flowSlug}, 'pause', array['approved'], step_type => 'sleep', sleep_for => 1)`
  await sql`select pgflow.add_step(${flowSlug}, 'sum', array['squares', 'again', 'pause'])`
}

/** How the run with the input `{ n }` ends. */
export function expectedEnd(n: number): { status: string; output: unknown } {
  if (n % 7 === 0) return { status: 'failed', output: null }
  return { status: 'completed', output: { sum: sum(numbersOf(n).map((number) => number ** 2)) } }
}

const numbersOf = (n: number) => Array.from({ length: 1 + (n % 5) }, (_, index) => n + index)
const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0)

interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
  // biome-ignore lint/suspicious/noExplicitAny: each step knows what its input is
  input: any
}

type Result = Omit<Task, 'input'> & {
  output?: unknown
  error?: string
  retry_delay?: number
  permanent?: true
}

function handle({ input, ...task }: Task): Result {
  switch (task.step_slug) {
    case 'numbers':
      return { ...task, output: numbersOf(input.run.n) }
    case 'squares':
      return { ...task, output: input ** 2 }
    case 'again':
      if (task.attempt === 1) return { ...task, error: 'again', retry_delay: 0 }
      return input.run.n % 7 === 0 ? { ...task, error: 'never', permanent: true } : { ...task, output: null }
    default:
      return { ...task, output: sum(input.squares) }
  }
}

/** Whether an attempt, by its key, fails and is followed by another. */
export const isRepeated = (key: string) => / again \d+ 1$/.test(key)

/** What postgres.js and the server say when a connection is lost, or cannot be made yet. */
const LOST = new Set([
  ...['CONNECTION_CLOSED', 'CONNECTION_ENDED', 'CONNECTION_DESTROYED', 'CONNECT_TIMEOUT'],
  ...['ECONNREFUSED', 'ECONNRESET', 'EPIPE', '57P01', '57P02', '57P03'],
])

/** Asks until there is an answer, waiting longer each time; only a lost connection is asked again. */
export async function persist<T>(ask: () => Promise<T>): Promise<T> {
  for (let delay = 10; ; delay = Math.min(2 * delay, 500)) {
    try {
      return await ask()
    } catch (error) {
      if (!LOST.has((error as { code: string }).code)) throw error
      await setTimeout(delay)
    }
  }
}

export interface Worker {
  name: string
  dbUrl: string
  flowSlug: string
  /** Seconds. */
  lease: number
  /** Hears of each attempt that it is given. */
  onClaimed?: (key: string) => void
  /** Hears of each result that an answer says was applied. */
  onApplied?: (key: string) => void
  /** How long it works on a batch, in milliseconds. @default not at all */
  workFor?: () => number
  /** Aborted when all runs have ended. */
  signal: AbortSignal
}

/** Settles and claims until all is done. A settlement without an answer is sent again, as a settlement. */
export async function work(worker: Worker): Promise<void> {
  const { name, dbUrl, flowSlug, lease, onClaimed, onApplied, workFor, signal } = worker
  const sql = postgres(dbUrl, {
    ...{ max: 1, fetch_types: false, onnotice: () => undefined },
    connection: { application_name: name },
  })
  const workerId = randomUUID()
  let results: Result[] = []
  try {
    while (!signal.aborted) {
      const [answer] = await persist(
        () => sql<[{ stale: Result[]; held: Result[]; tasks: Task[] }]>`
          select * from pgflow.settle_and_claim(
            ${sql.json(results as never)}, array[${flowSlug}], 10, ${workerId}, ${lease}::int
          )`,
      )
      const stale = new Set(answer.stale.map(keyOf))
      const held = new Set(answer.held.map(keyOf))
      for (const key of results.map(keyOf)) if (!stale.has(key) && !held.has(key)) onApplied?.(key)
      for (const key of answer.tasks.map(keyOf)) onClaimed?.(key)
      results = [...results.filter((result) => held.has(keyOf(result))), ...answer.tasks.map(handle)]
      if (answer.tasks.length === 0) {
        await endWaits(sql, flowSlug)
        await setTimeout(20)
      } else if (workFor) await setTimeout(workFor())
    }
  } finally {
    await sql.end()
  }
}

/** Ticks, and completes waits, as others may at the same time. */
async function endWaits(sql: Sql, flowSlug: string): Promise<void> {
  await persist(() => sql`select pgflow.tick()`)
  const waiting = await persist(
    () => sql<{ run_id: string }[]>`
      select run_id from pgflow.step_tasks where flow_slug = ${flowSlug} and waits_for = 'signal' limit 10`,
  )
  for (const { run_id } of waiting) {
    await persist(() => sql`select pgflow.complete_wait(${run_id}, 'approved', 'true')`).catch(unlessOver)
  }
}

/** The run has failed meanwhile. */
function unlessOver(error: { code?: string }): void {
  if (error.code !== 'PT409') throw error
}

const keyOf = (task: Omit<Task, 'input'>) =>
  `${task.run_id} ${task.step_slug} ${task.task_index} ${task.attempt}`
