import pg from 'pg'

/** One connection that is opened when needed and used by one piece of work at a time, in order of arrival. */
export class Session {
  readonly #config: pg.ClientConfig
  #client: pg.Client | undefined
  #queue: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(config: pg.ClientConfig) {
    this.#config = config
  }

  /** @throws {ConnectionError} when the database cannot be reached, and whatever `work` throws */
  run<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const result = this.#queue.then(async () => work(await this.#connected()))
    this.#queue = result.catch(() => {})
    return result
  }

  /** Cuts the connection; running and waiting work fails. */
  async close(): Promise<void> {
    this.#closed = true
    if (this.#client) disconnect(this.#client)
    await this.#queue
  }

  async #connected(): Promise<pg.Client> {
    if (this.#closed) throw new ConnectionError('the session is closed')
    if (this.#client) return this.#client
    const client = new pg.Client(this.#config)
    this.#client = client
    const forget = () => {
      if (this.#client === client) this.#client = undefined
    }
    client.on('error', forget).on('end', forget)
    try {
      await client.connect()
      await client.query(`set timezone = 'Etc/UTC'`)
      return client
    } catch (error) {
      forget()
      disconnect(client)
      throw new ConnectionError('the database cannot be reached', { cause: error })
    }
  }
}

/** The database did not answer; nothing is known about the statement. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError'
}

/** Cuts a connection at once, whatever it is doing. */
export function disconnect(client: pg.Client): void {
  client.connection.stream.destroy()
}
