/** The engine's calls, in one session of a database of its own. */
import { readFileSync } from 'node:fs'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { createChain } from '../lib/chain.ts'

/** One session, whose server process is known. */
export interface Session {
  sql: Sql
  pid: number
}

export interface Engine extends AsyncDisposable {
  name: string
  stack: LocalSupabase
  session: Session
}

export async function startEngine(name: string, migrations: string): Promise<Engine> {
  const stack = await startLocalSupabase({ migrations: [migrations] })
  const session = await openSession(stack)
  const { sql } = session
  await createChain(sql, 'chain', 'never')
  await createChain(sql, 'broadcast_chain', 'always')
  await sql`select pgmq.create('bare')`
  return {
    name,
    stack,
    session,
    async [Symbol.asyncDispose]() {
      await sql.end()
      await stack[Symbol.asyncDispose]()
    },
  }
}

export async function openSession(stack: LocalSupabase): Promise<Session> {
  const sql = postgres(stack.dbUrl, { max: 1, onnotice: () => undefined, idle_timeout: 0, max_lifetime: 0 })
  const [backend] = await sql`select pg_backend_pid() as pid`
  return { sql, pid: backend?.pid }
}

/** The names of flows in which nothing happens. */
export const emptyFlows = (quantity: number): string[] =>
  Array.from({ length: quantity }, (_, n) => `empty_${n}`)

/** Adds those of them that are missing, each with its queue. */
export async function addEmptyFlows(sql: Sql, quantity: number): Promise<void> {
  for (let n = 0; n < quantity; n += 50) {
    await sql`
      select pgflow.create_flow(slug), pgflow.add_step(slug, 'a')
      from unnest(${emptyFlows(quantity).slice(n, n + 50)}::text[]) slug`
  }
}

const worker = '00000000-0000-4000-8000-000000000001'

export interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
}

/** What a worker calls: settles what it has claimed, and claims as many. */
export async function settleAndClaim(
  sql: Sql,
  flows: string[],
  tasks: Task[],
  quantity: number,
): Promise<Task[]> {
  const results = tasks.map(({ run_id, step_slug, task_index, attempt }) => ({
    run_id,
    step_slug,
    task_index,
    attempt,
    output: { ok: true },
  }))
  const [answer] = await sql`
    select tasks, stale from pgflow.settle_and_claim(
      ${sql.json(results)}, ${flows}::text[], ${quantity}::int, ${worker}::uuid, lease => 30, inline_limit => 65536)`
  if (answer?.stale.length) throw new Error('a result was stale')
  return answer?.tasks
}

/** The processor time of a session's server process, in milliseconds: it does not depend on what else the machine does. */
export function cpuOfSession({ pid }: Session): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6
}
