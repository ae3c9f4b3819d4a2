import pg from 'pg'

// biome-ignore lint/suspicious/noExplicitAny: tests know what they select
type Row = any

/** Runs statements on a connection of their own and returns the rows of the last one. */
export async function sql(url: string, text: string, values?: unknown[]): Promise<Row[]> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    const result: pg.QueryResult | pg.QueryResult[] = await client.query(text, values)
    return (Array.isArray(result) ? result.at(-1)! : result).rows
  } finally {
    await client.end()
  }
}
