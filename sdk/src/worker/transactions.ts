import type { ReservedSql, Sql, TransactionSql } from 'postgres'
import { onAbort } from '../shared/abort.ts'
import { isTransient } from './faults.ts'
import { after, retryPause, sleep } from './time.ts'
import type { TransactionRequest } from './transport.ts'

export interface TransactionsOptions {
  /** One connection, which calls back when it is lost. */
  readonly connect: (onclose: () => void) => Sql
  /** How many are open at the same time. */
  readonly limit: number
  /** Seconds until a connection that does not begin a transaction is replaced. */
  readonly patience: number
  /** Ends the session of a transaction in the database. */
  readonly end: (name: string) => Promise<unknown>
}

/**
 * Transactions of handlers, each on a connection that nobody else uses meanwhile. A connection whose transaction has failed is not used
 * again.
 */
export class Transactions {
  readonly #options: TransactionsOptions
  readonly #idle: Connection[] = []
  /** Those that wait for others to end, in their order. */
  readonly #waiting = new Set<() => void>()
  #open = 0
  #prepares = false

  constructor(options: TransactionsOptions) {
    this.#options = options
  }

  /** @throws the signal's reason, or what `work` or the database threw: then it has not been committed, or that is unknown */
  async run(work: (sql: TransactionSql) => Promise<void>, request: TransactionRequest): Promise<void> {
    const { signal } = request
    await this.#place(signal)
    try {
      for (let failures = 0; ; failures++) {
        let hasBegun = false
        const begun = (sql: TransactionSql) => {
          hasBegun = true
          return work(sql)
        }
        try {
          return await this.#begin(begun, request)
        } catch (error) {
          // What has not begun may be repeated: a connection was lost, or the database restarts.
          if (hasBegun || signal.aborted || !isTransient(error)) throw error
          await sleep(retryPause(failures), signal)
        }
      }
    } finally {
      this.#leave()
    }
  }

  /** From now on statements are prepared: the connections are sessions. */
  prepare(): void {
    this.#prepares = true
  }

  /** @param timeout seconds for queries that run */
  async close(timeout: number): Promise<void> {
    await Promise.all(this.#idle.splice(0).map(({ sql }) => sql.end({ timeout })))
  }

  async #place(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#open < this.#options.limit) {
      this.#open++
      return
    }
    // Whoever leaves hands the place over.
    await new Promise<void>((resolve, reject) => {
      const take = () => {
        forget()
        resolve()
      }
      const forget = onAbort(signal, () => {
        this.#waiting.delete(take)
        reject(signal.reason)
      })
      this.#waiting.add(take)
    })
  }

  #leave(): void {
    const [next] = this.#waiting
    if (next === undefined) this.#open--
    else {
      this.#waiting.delete(next)
      next()
    }
  }

  async #begin(
    work: (sql: TransactionSql) => Promise<void>,
    { name, timeout, signal }: TransactionRequest,
  ): Promise<void> {
    const connection = this.#idle.pop() ?? this.#connected()
    const usable = { now: true }
    const interruption = interruptionOf(signal, usable)
    connection.onLost = () => interruption.interrupt(new Error('The connection of the transaction was lost'))
    const cancelPatience = after(this.#options.patience, () =>
      interruption.interrupt(new Error(`The database did not answer for ${this.#options.patience} s`)),
    )
    try {
      const transaction = this.#transaction(connection, usable, async (sql, reserved) => {
        cancelPatience()
        // No query, so that the handler may choose an isolation level; and sent together with its first one.
        reserved.unsafe(settings(name, timeout)).catch(() => {})
        await work(sql)
      })
      await Promise.race([transaction, interruption.promise])
      this.#keep(connection)
    } catch (error) {
      connection.onLost = () => {}
      void this.#discard(connection, name, interruption.isInterrupted)
      throw error
    } finally {
      usable.now = false
      cancelPatience()
      interruption.forget()
    }
  }

  /** For the next transaction, unless it is closed before. */
  #keep(connection: Connection): void {
    this.#idle.push(connection)
    connection.onLost = () => {
      const place = this.#idle.indexOf(connection)
      if (place >= 0) this.#idle.splice(place, 1)
    }
  }

  /**
   * Not by `sql.begin`, which sends a rollback to a connection that was lost, and so ends the process. What is not committed is rolled
   * back, at the latest when the connection is discarded.
   */
  async #transaction(
    connection: Connection,
    usable: { now: boolean },
    work: (sql: TransactionSql, reserved: ReservedSql) => Promise<void>,
  ): Promise<void> {
    const { sql } = connection
    if (!connection.isConnected) {
      // `reserve` alone never resolves where it has to connect first.
      await sql.unsafe('select 1')
      connection.isConnected = true
      if (!usable.now) return
    }
    const reserved = await sql.reserve()
    if (!usable.now) return
    await reserved.unsafe('begin')
    const isOpen = () => usable.now
    try {
      await work(transactionSql(reserved, isOpen), reserved)
    } catch (error) {
      if (usable.now) await reserved.unsafe('rollback')
      throw error
    }
    if (!usable.now) return
    const { command } = await reserved.unsafe('commit')
    if (command !== 'COMMIT') throw new Error('The transaction was rolled back, since a query in it failed')
    reserved.release()
  }

  #connected(): Connection {
    const connection: Connection = {
      sql: this.#options.connect(() => connection.onLost()),
      isConnected: false,
      onLost: () => {},
    }
    if (this.#prepares) connection.sql.options.prepare = true
    return connection
  }

  /** What runs on it at the moment is ended in the database, too, with its locks. */
  async #discard({ sql }: Connection, name: string, isInterrupted: boolean): Promise<void> {
    await Promise.allSettled([
      sql.end({ timeout: 0 }),
      // A session that has ended meanwhile is not found. What cannot be ended is, when its time is over.
      isInterrupted ? this.#options.end(name) : undefined,
    ])
  }
}

interface Connection {
  readonly sql: Sql
  isConnected: boolean
  /** What happens when it is lost. */
  onLost: () => void
}

/** Of a worker that dies in silence, the database ends the transaction after a while. */
function settings(name: string, timeout: number): string {
  const milliseconds = Math.min(Math.ceil(timeout * 1000), 2 ** 31 - 1)
  return `
    set local application_name = '${name}';
    set local statement_timeout = ${milliseconds};
    set local idle_in_transaction_session_timeout = ${milliseconds}`
}

/** What ends a transaction from outside; from then on, in the same moment, its connection is not used. */
function interruptionOf(signal: AbortSignal, usable: { now: boolean }) {
  let isInterrupted = false
  let interrupt: (reason: unknown) => void = () => {}
  const promise = new Promise<never>((_, reject) => {
    interrupt = (reason) => {
      isInterrupted = true
      usable.now = false
      reject(reason)
    }
  })
  promise.catch(() => {})
  const forget = onAbort(signal, () => interrupt(signal.reason))
  return {
    promise,
    interrupt: (reason: unknown) => interrupt(reason),
    forget,
    get isInterrupted() {
      return isInterrupted
    },
  }
}

/** The `sql` of a transaction. It refuses what comes after the end: the connection is lost, or another transaction's by then. */
function transactionSql(reserved: ReservedSql, isOpen: () => boolean): TransactionSql {
  let savepoints = 0
  const check = () => {
    if (!isOpen()) {
      throw new Error('The transaction is over: await all of its queries before its function returns')
    }
  }
  const noted = (query: unknown) => {
    // A failure that the handler does not wait for fails the transaction, not the process. (`catch` itself would send the query.)
    if (query instanceof Promise) Promise.prototype.then.call(query, undefined, () => {})
    return query
  }
  const own: Record<string, (...args: never[]) => unknown> = {
    async savepoint(...args: (string | ((sql: TransactionSql) => unknown))[]) {
      check()
      const save = args.find((arg) => typeof arg === 'function')
      const name = `pgflow_${++savepoints}`
      await reserved.unsafe(`savepoint ${name}`)
      try {
        return await save!(sql)
      } catch (error) {
        if (isOpen()) await reserved.unsafe(`rollback to ${name}`)
        throw error
      }
    },
    prepare() {
      throw new Error('A transaction of a handler cannot be prepared')
    },
    unsafe: (...args) => checked(reserved.unsafe, args),
    file: (...args) => checked(reserved.file, args),
    notify: (...args) => checked(reserved.notify, args),
  }
  const checked = (method: unknown, args: readonly unknown[]) => {
    check()
    return noted(Reflect.apply(method as never, reserved, args))
  }
  const sql = new Proxy(reserved, {
    apply: (target, _, args) => checked(target, args),
    get: (target, name) => (typeof name === 'string' && own[name]) || Reflect.get(target, name),
  }) as unknown as TransactionSql
  return sql
}
