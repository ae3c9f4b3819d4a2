import type { Sql, TransactionSql } from 'postgres'
import { onAbort } from '../shared/abort.ts'
import { isTransient } from './faults.ts'
import { after, retryPause, sleep } from './time.ts'
import type { TransactionRequest } from './transport.ts'

export interface TransactionsOptions {
  /** One connection. */
  readonly connect: () => Sql
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
  readonly #idle: Sql[] = []
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
    await Promise.all(this.#idle.splice(0).map((sql) => sql.end({ timeout })))
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
    const sql = this.#idle.pop() ?? this.#connected()
    const interruption = interruptionOf(signal)
    const cancelPatience = after(this.#options.patience, () =>
      interruption.interrupt(new Error(`The database did not answer for ${this.#options.patience} s`)),
    )
    let isOpen = true
    try {
      const transaction = sql.begin(async (tx) => {
        cancelPatience()
        // No query, so that the handler may choose an isolation level; and sent together with its first one.
        tx.unsafe(settings(name, timeout)).execute()
        await work(whileOpen(tx, () => isOpen))
        isOpen = false
      })
      await Promise.race([transaction, interruption.promise])
      this.#idle.push(sql)
    } catch (error) {
      void this.#discard(sql, name, interruption.isInterrupted)
      throw error
    } finally {
      isOpen = false
      cancelPatience()
      interruption.forget()
    }
  }

  #connected(): Sql {
    const sql = this.#options.connect()
    if (this.#prepares) sql.options.prepare = true
    return sql
  }

  /** What runs on it at the moment is ended in the database, too, with its locks. */
  async #discard(sql: Sql, name: string, isInterrupted: boolean): Promise<void> {
    await Promise.allSettled([
      sql.end({ timeout: 0 }),
      // A session that has ended meanwhile is not found. What cannot be ended is, when its time is over.
      isInterrupted ? this.#options.end(name) : undefined,
    ])
  }
}

/** Of a worker that dies in silence, the database ends the transaction after a while. */
function settings(name: string, timeout: number): string {
  const milliseconds = Math.min(Math.ceil(timeout * 1000), 2 ** 31 - 1)
  return `
    set local application_name = '${name}';
    set local statement_timeout = ${milliseconds};
    set local idle_in_transaction_session_timeout = ${milliseconds}`
}

function interruptionOf(signal: AbortSignal) {
  let isInterrupted = false
  let interrupt: (reason: unknown) => void = () => {}
  const promise = new Promise<never>((_, reject) => {
    interrupt = (reason) => {
      isInterrupted = true
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

/** The same `sql`, which refuses what comes after the end: the connection is another transaction's by then. */
function whileOpen(sql: TransactionSql, isOpen: () => boolean): TransactionSql {
  const check = () => {
    if (isOpen()) return
    throw new Error('The transaction is over: await all of its queries before its function returns')
  }
  return new Proxy(sql, {
    apply(target, self, args) {
      check()
      return Reflect.apply(target as never, self, args)
    },
    get(target, name) {
      const value = Reflect.get(target, name)
      if (name !== 'unsafe' && name !== 'file' && name !== 'notify' && name !== 'savepoint') return value
      return (...args: unknown[]) => {
        check()
        const given = args.map((arg) => {
          if (name !== 'savepoint' || typeof arg !== 'function') return arg
          return (inner: TransactionSql) => arg(whileOpen(inner, isOpen))
        })
        return Reflect.apply(value as never, target, given)
      }
    },
  })
}
