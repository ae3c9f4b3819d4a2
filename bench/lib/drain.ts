import type { Sql } from 'postgres'

/**
 * Settles and claims in turn until nothing is left; each task's output is the run's input, or the item.
 *
 * @returns the number of calls
 */
export async function drain(sql: Sql, flow: string, batch: number): Promise<number> {
  const worker = crypto.randomUUID()
  let results: object[] = []
  let calls = 0
  do {
    const [answer] = await sql`
      select tasks from pgflow.settle_and_claim(${sql.json(results as never)}, ${[flow]}, ${batch}, ${worker}::uuid, inline_limit => 65536)`
    results = answer?.tasks.map(
      ({ run_id, step_slug, task_index, attempt, input }: Record<string, unknown>) => ({
        run_id,
        step_slug,
        task_index,
        attempt,
        output: (input as { run?: unknown }).run ?? input,
      }),
    )
    calls += 1
  } while (results.length > 0)
  return calls
}
