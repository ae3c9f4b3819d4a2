import type { Pool, RenewedPool } from './pool.ts'
import * as queries from './queries.ts'
import { Notifier, retryPause, sleep } from './time.ts'

/** Seconds for a notification to come back. */
const patience = 3

export interface ListenerHooks {
  readonly max_lifetime: null
  onclose(): void
  onnotify(channel: string, payload: string): void
}

/** A connection that is notified of new tasks, and is made again when it was lost. */
export class Listener {
  /** The connection; it is free for statements that wait for nobody. */
  readonly pool: RenewedPool
  #onTasks: (flow_slug: string | undefined) => void = () => {}
  readonly #closing = new AbortController()
  readonly #lost = new Notifier()
  readonly #probe = `probe ${crypto.randomUUID()}`
  readonly #answered = new Notifier()

  constructor(connect: (hooks: ListenerHooks) => RenewedPool) {
    this.pool = connect({
      max_lifetime: null,
      onclose: () => this.#lost.notify(),
      onnotify: (_, payload) => this.#receive(payload),
    })
  }

  /**
   * Listens from now on.
   *
   * @param other another connection to the same database
   * @returns whether notifications of the other one arrive: a transaction pooler accepts LISTEN without any effect
   */
  async listen(other: Pool, onTasks: (flow_slug: string | undefined) => void): Promise<boolean> {
    this.#onTasks = onTasks
    await this.pool.use(queries.listen)
    await other.use((sql) => queries.notify(sql, this.#probe))
    const works = (await this.#answered.wait(patience)) && !this.#closing.signal.aborted
    if (works) void this.#keepListening()
    return works
  }

  /** Stops listening; the connection stays. */
  close(): void {
    this.#closing.abort()
    this.#lost.notify()
    this.#answered.notify()
  }

  #receive(payload: string): void {
    if (payload === this.#probe) this.#answered.notify()
    else this.#onTasks(payload)
  }

  async #keepListening(): Promise<void> {
    let failures = 0
    while (!this.#closing.signal.aborted) {
      if (failures === 0) await this.#lost.wait(Number.POSITIVE_INFINITY)
      await sleep(retryPause(failures), this.#closing.signal)
      if (this.#closing.signal.aborted) return
      try {
        await this.pool.use(queries.listen)
        failures = 0
        // Some may have been missed.
        this.#onTasks(undefined)
      } catch {
        failures++
      }
    }
  }
}
