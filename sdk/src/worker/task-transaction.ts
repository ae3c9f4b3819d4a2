import type { TransactionSql } from 'postgres'
import { toJson } from '../flow/json.ts'
import { LeaseLostError } from './errors.ts'
import { lostLease } from './lost-lease.ts'
import * as queries from './queries.ts'
import type { ClaimedTask, Transport } from './transport.ts'

export interface TaskTransactionOptions {
  readonly task: ClaimedTask
  readonly transport: Pick<Transport, 'transact'>
  readonly signal: AbortSignal
  /** What is stored of an output, as JSON. */
  readonly store: (output: unknown) => Promise<string>
  /** The attempt is not the task's current one any more. */
  readonly onLost: (reason: LeaseLostError) => void
  readonly onCommitted: () => void
}

/** The transaction that completes a task: `context.transaction`. */
export class TaskTransaction {
  readonly #options: TaskTransactionOptions
  #running: Promise<unknown> | undefined
  #committed: { readonly output: unknown; readonly json: string } | undefined

  constructor(options: TaskTransactionOptions) {
    this.#options = options
  }

  get isCommitted(): boolean {
    return this.#committed !== undefined
  }

  /** Resolves when the handler's transaction, for which it may not wait, has ended; rejects if that has failed. */
  async ended(): Promise<void> {
    await this.#running
  }

  async run<Output>(work: (sql: TransactionSql) => Output): Promise<Awaited<Output>> {
    if (this.#running !== undefined || this.isCommitted) {
      throw new Error(
        'context.transaction was called a second time: a task completes with one transaction; do all writes in it',
      )
    }
    const running = this.#run(work)
    this.#running = running
    try {
      return await running
    } finally {
      this.#running = undefined
    }
  }

  async #run<Output>(work: (sql: TransactionSql) => Output): Promise<Awaited<Output>> {
    const { task, transport, signal, store, onLost, onCommitted } = this.#options
    signal.throwIfAborted()
    if (transport.transact === undefined) {
      throw new Error(
        'context.transaction needs a worker with a connection to the database (its option connection or sql). Over the REST API, call an SQL function of your own that writes and then calls pgflow.complete_in_transaction',
      )
    }
    let done: { output: Awaited<Output>; json: string } | undefined
    const transact = async (sql: TransactionSql) => {
      const output = await work(sql)
      const json = await store(output)
      done = { output, json }
      await queries.completeInTransaction(sql, task, json).catch((error) => {
        throw lostLease(error) ?? error
      })
    }
    const name = `pgflow ${task.run_id} ${crypto.randomUUID().slice(0, 8)}`
    try {
      await transport.transact(transact, { name, timeout: task.timeout, signal })
    } catch (error) {
      if (error instanceof LeaseLostError) onLost(error)
      throw error
    }
    this.#committed = done
    onCommitted()
    return done!.output // it has run, since the transaction is committed
  }

  /** Whether what the handler has returned is another output than that of its transaction. */
  differsFrom(returned: unknown): boolean {
    if (this.#committed === undefined || returned === this.#committed.output) return false
    try {
      return toJson(returned) !== this.#committed.json
    } catch {
      return true
    }
  }
}
