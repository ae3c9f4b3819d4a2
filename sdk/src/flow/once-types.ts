import type { TransactionSql } from 'postgres'
import type { OutputFrom, ReturnedJson } from './json-types.ts'

/** What a handler has so that a repeated attempt does nothing twice. */
export interface OnceMethods {
  /**
   * The same text for each attempt of a task, in other runs and tasks another one: of at most 180 letters, digits, `-`, `_` and `:`.
   * Give it to services that know idempotency keys. Where a handler sends more than one request, append a name of your own to it.
   *
   * @example
   * await stripe.charges.create(charge, { idempotencyKey })
   */
  readonly idempotencyKey: string
  /**
   * Calls a function and keeps what it returns by a name, for later attempts of the task: these get the kept result, and do not call
   * the function. Results are kept over retries of the run and deploys, too. Calls of the same name in an attempt share one promise.
   * What the function throws is not kept. If the worker dies before the result is kept, a later attempt calls the function again.
   *
   * @param name of at most 255 characters; a task keeps at most 1,000 results of 1 MB of JSON each, and 32 MB in all
   * @returns the result as JSON has it: dates are strings, and nothing at all is null
   * @throws LeaseLostError if another attempt has the task, or the run has ended; the signal is aborted, too
   * @throws NotJsonError if the result cannot be stored
   *
   * @example
   * const summary = await once('summary', () => model.summarize(run.text))
   */
  once<Returned>(name: string, call: () => Returned & ReturnedJson<Returned>): Promise<OutputFrom<Returned>>
}

/** What a handler of a single task has for writes to the database. */
export interface TransactionMethods {
  /**
   * Runs a function in a transaction of the database that holds the flows, and completes the task with what it returns, in the same
   * transaction: its writes and the completion commit together, or not at all. Return what it resolves with from the handler; another
   * value has no effect, and is a warning in the log.
   *
   * If the function throws, its writes are rolled back. Another attempt may have the task meanwhile: then they are rolled back, too, and
   * nothing of this attempt counts. When the signal is aborted (timeout, cancelled), the transaction is ended at once.
   *
   * It needs a worker with a connection to the database (`connection` or `sql`). The SQL of other libraries runs by
   * `sql.unsafe(text, parameters)`.
   *
   * @param work gets the `sql` of postgres.js, for this transaction alone
   * @throws LeaseLostError if another attempt has the task, or the run has ended
   * @throws Error in a second call, unless the first one was rolled back; in a step with `batch`; in a worker with `url` and `secretKey`
   *
   * @example
   * .step('order', ({ run }, { transaction }) =>
   *   transaction(async (sql) => {
   *     const [order] = await sql<{ id: number }[]>`insert into orders ${sql(run.order)} returning id`
   *     return { id: order!.id }
   *   }),
   * )
   */
  transaction<Returned>(
    work: (sql: TransactionSql) => Returned & ReturnedJson<Returned>,
  ): Promise<Awaited<Returned>>
}
