import type { PgflowClient } from '@pgflow/sdk'
import { Flow, type Json } from '@pgflow/sdk/flow'
import type { Sql } from 'postgres'
import type { ToolDescription } from './model.ts'

export interface ToolContext {
  readonly runId: string
  /** Names the call: it is the same when the turn is attempted again. */
  readonly callId: string
  readonly signal: AbortSignal
}

export interface Tool extends Omit<ToolDescription, 'name'> {
  /** Whether the owner of the run has to approve the call. */
  readonly costsMoney: boolean
  run(input: Json, context: ToolContext): Promise<Json>
}

export type Tools = Readonly<Record<string, Tool>>

/** A tool that is a flow: it asks all suppliers at the same time, each with attempts of its own. */
export const ComparePrices = new Flow({ slug: 'compare_prices' })
  .input<{ productId: string }>()
  .resources<{ sql: Sql }>()
  .step('suppliers', async ({ run }, { resources: { sql } }) => {
    const offers = await sql<{ supplier: string }[]>`
      select supplier from public.offers where product_id = ${run.productId}`
    return offers.map(({ supplier }) => supplier)
  })
  .map({ slug: 'prices', items: 'suppliers' }, async (supplier, { payload, resources: { sql } }) => {
    const { run } = await payload()
    const [offer] = await sql<{ price: number }[]>`
      select price::float8 from public.offers where product_id = ${run.productId} and supplier = ${supplier}`
    return { supplier, price: offer?.price ?? null }
  })

export function createTools({ sql, client }: { sql: Sql; client: PgflowClient }): Tools {
  return {
    // A plain function.
    search_products: {
      description: 'Finds products by a part of their name',
      parameters: objectOf({ name: { type: 'string' } }),
      costsMoney: false,
      async run(input) {
        const { name } = input as { name: string }
        return sql<{ product_id: string; name: string }[]>`
          select product_id, name from public.products where name ilike ${`%${name}%`} order by 1`
      },
    },

    // A flow. The key makes another attempt of the turn wait for the run that exists.
    compare_prices: {
      description: 'Gives the price of a product at each supplier',
      parameters: objectOf({ productId: { type: 'string' } }),
      costsMoney: false,
      async run(input, { runId, callId, signal }) {
        const run = await client.startFlow<typeof ComparePrices>(
          'compare_prices',
          input as { productId: string },
          { idempotencyKey: `${runId}:${callId}` },
        )
        const { prices } = await run.waitForCompletion({ signal })
        return prices
      },
    },

    // A run orders once, however often this is called.
    place_order: {
      description: 'Orders a product from a supplier',
      parameters: objectOf({
        productId: { type: 'string' },
        supplier: { type: 'string' },
        quantity: { type: 'integer' },
      }),
      costsMoney: true,
      async run(input, { runId }) {
        const order = input as { productId: string; supplier: string; quantity: number }
        await sql`
          insert into public.orders (run_id, product_id, supplier, quantity)
          values (${runId}, ${order.productId}, ${order.supplier}, ${order.quantity})
          on conflict (run_id) do nothing`
        return { ordered: true }
      },
    },
  }
}

function objectOf(properties: Record<string, Json>): ToolDescription['parameters'] {
  return { type: 'object', properties, required: Object.keys(properties), additionalProperties: false }
}
