import type { Sql } from 'postgres'

/** What a worker gets of a task. */
export interface Task {
  run_id: string
  step_slug: string
  task_index: number
  attempt: number
  input: unknown
}

const worker = crypto.randomUUID()

/** Settles tasks, and claims others. */
export async function exchanged(
  sql: Sql,
  flow: string,
  done: readonly Task[],
  quantity: number,
): Promise<Task[]> {
  const results = done.map(({ input, ...task }) => ({ ...task, output: true }))
  const [answer] = await sql`
    select tasks from pgflow.settle_and_claim(${sql.json(results)}, ${[flow]}, ${quantity}, ${worker}::uuid, inline_limit => 65536)`
  return answer?.tasks
}

/**
 * Settles and claims in turn until no run of the flow is open; where nothing is there to claim meanwhile, because others hold the
 * slots, it looks again when something is due.
 *
 * @returns the number of calls
 */
export async function drainLimited(sql: Sql, flow: string, batch: number): Promise<number> {
  let tasks: Task[] = []
  for (let calls = 1; ; calls++) {
    tasks = await exchanged(sql, flow, tasks, batch)
    if (tasks.length > 0) continue
    const [found] = await sql`
      select exists (select from pgflow.runs r where r.flow_slug = ${flow} and r.status = 'started') as is_open,
             pgflow.next_due_in() as seconds`
    if (!found?.is_open) return calls
    await new Promise((resolve) =>
      setTimeout(resolve, Math.min(Math.max(found.seconds ?? 0.005, 0.001), 0.02) * 1000),
    )
  }
}
