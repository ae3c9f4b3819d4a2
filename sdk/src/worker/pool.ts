import postgres, { type Sql } from 'postgres'
import { after } from './time.ts'

/** Connections that answer queries. */
export interface Pool {
  use<Answer>(query: (sql: Sql) => Promise<Answer>): Promise<Answer>
}

/**
 * Connections that are replaced when one is lost, and when a query has no answer for too long: a connection that died in
 * silence, as behind a gateway that forgot it, would keep its queries for many minutes; and postgres.js does not connect
 * again after a loss that came between a query and its being sent.
 */
export class RenewedPool implements Pool {
  readonly #connect: () => Sql
  /** Seconds. */
  readonly #patience: number
  readonly #onReplaced: () => void
  #sql: Sql
  #prepares = false

  constructor(connect: () => Sql, patience: number, onReplaced: () => void = () => {}) {
    this.#connect = connect
    this.#patience = patience
    this.#onReplaced = onReplaced
    this.#sql = connect()
  }

  use<Answer>(query: (sql: Sql) => Promise<Answer>): Promise<Answer> {
    const sql = this.#sql
    return new Promise((resolve, reject) => {
      const cancel = after(this.#patience, () => {
        this.#replace(sql)
        reject(new Error(`The database did not answer for ${this.#patience} s`))
      })
      query(sql)
        .catch((error) => {
          if (!(error instanceof postgres.PostgresError)) this.#replace(sql)
          throw error
        })
        .then(resolve, reject)
        .finally(cancel)
    })
  }

  /**
   * From now on statements are prepared once a connection, and then need one round trip instead of two: for sessions, since
   * a transaction pooler runs each statement on any connection.
   */
  prepare(): void {
    this.#prepares = true
    this.#sql.options.prepare = true
  }

  /** @param timeout seconds for queries that run */
  close(timeout: number): Promise<void> {
    return this.#sql.end({ timeout })
  }

  #replace(sql: Sql): void {
    if (sql !== this.#sql) return
    this.#sql = this.#connect()
    if (this.#prepares) this.prepare()
    void sql.end({ timeout: 0 })
    this.#onReplaced()
  }
}
