import pg from 'pg'

/** Runs statements on a connection of their own and returns the rows of the last one. */
export async function sql(url: string, text: string, values?: unknown[]): Promise<any[]> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    const result: pg.QueryResult | pg.QueryResult[] = await client.query(text, values)
    return (Array.isArray(result) ? result.at(-1)! : result).rows
  } finally {
    await client.end()
  }
}
