import type { Sql } from 'postgres'

/** Creates a flow of three steps, each of which waits for the one before. */
export async function createChain(
  sql: Sql,
  flow = 'chain',
  broadcast: 'watched' | 'always' | 'never' = 'watched',
): Promise<void> {
  await sql`select pgflow.create_flow(${flow}, broadcast => ${broadcast})`
  await sql`
    select pgflow.add_step(${flow}, 'a'), pgflow.add_step(${flow}, 'b', array['a']), pgflow.add_step(${flow}, 'c', array['b'])`
}

/** Starts runs by one call; the input of each is its number. */
export async function startRuns(sql: Sql, flow: string, quantity: number): Promise<void> {
  await sql`
    select count(*) from pgflow.start_flows(${flow}, (select jsonb_agg(n) from generate_series(1, ${quantity}::int) n))`
}
