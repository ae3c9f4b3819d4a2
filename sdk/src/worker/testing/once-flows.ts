import { Flow } from '../../flow/index.ts'

/** What the handlers write to. */
export const tables = `
  create table public.orders (run_id uuid, step_slug text, task_index int, attempt int, by text)`

/** The name of the result that `paid` keeps. */
export const paymentName = 'the payment'

/**
 * The same flows for all workers, which say who they are: `order` writes an order in a transaction for each item; `paid` keeps the result of
 * a call, after which the first worker stays.
 */
export function onceFlows(by: string, say: (line: string) => void) {
  const order = new Flow<number[]>({ slug: 'order', baseDelay: 0, maxAttempts: 1_000 }).map(
    { slug: 'write' },
    (_, { transaction, runId, stepSlug, taskIndex, attempt }) =>
      transaction(async (sql) => {
        const row = { run_id: runId, step_slug: stepSlug, task_index: taskIndex, attempt, by }
        await sql`insert into public.orders ${sql(row)}`
        return row
      }),
  )
  const paid = new Flow({ slug: 'paid', baseDelay: 0 }).step('call', async (_, { once, runId, attempt }) => {
    const result = await once(paymentName, () => {
      say(`called ${runId}`)
      return { by, attempt }
    })
    say(`kept ${runId}`)
    if (by === 'first') await new Promise(() => {})
    return result
  })
  return [order, paid] as const
}
