import postgres, { type Sql } from 'postgres'
import * as queries from './queries.ts'
import { Bell, retryPause, sleep } from './time.ts'

/** Seconds for a notification to come back. */
const patience = 3

export type ConnectionOptions = NonNullable<Parameters<typeof postgres>[1]>

/** A connection that hears of new tasks, and comes back when it was lost. */
export class Listener {
  readonly #connection: Sql
  readonly #onTasks: (flow_slug: string | undefined) => void
  readonly #closing = new AbortController()
  readonly #lost = new Bell()
  readonly #probe = `probe ${crypto.randomUUID()}`
  readonly #heard = new Bell()

  constructor(url: string, options: ConnectionOptions, onTasks: (flow_slug: string | undefined) => void) {
    this.#onTasks = onTasks
    const settings = {
      ...options,
      max: 1,
      max_lifetime: null,
      onclose: () => this.#lost.ring(),
      onnotify: (_channel: string, payload: string) => this.#hear(payload),
    }
    this.#connection = postgres(url, settings)
  }

  /**
   * Listens from now on.
   *
   * @param sql another connection to the same database
   * @returns whether what the other one notifies is heard: a transaction pooler takes LISTEN and forgets it
   */
  async listen(sql: Sql): Promise<boolean> {
    await queries.listen(this.#connection)
    await queries.notify(sql, this.#probe)
    const works = (await this.#heard.wait(patience)) && !this.#closing.signal.aborted
    if (works) void this.#keepListening()
    return works
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#lost.ring()
    this.#heard.ring()
    await this.#connection.end({ timeout: 1 })
  }

  #hear(payload: string): void {
    if (payload === this.#probe) this.#heard.ring()
    else this.#onTasks(payload)
  }

  async #keepListening(): Promise<void> {
    let failures = 0
    while (!this.#closing.signal.aborted) {
      if (failures === 0) await this.#lost.wait(Number.POSITIVE_INFINITY)
      await sleep(retryPause(failures), this.#closing.signal)
      if (this.#closing.signal.aborted) return
      try {
        await queries.listen(this.#connection)
        failures = 0
        // Some may have been missed.
        this.#onTasks(undefined)
      } catch {
        failures++
      }
    }
  }
}
