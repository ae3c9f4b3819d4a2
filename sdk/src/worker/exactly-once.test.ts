import { fileURLToPath } from 'node:url'
import type postgres from 'postgres'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { type AnyFlow, Flow, type Json } from '../flow/index.ts'
import { LeaseLostError, startWorker, type WorkerSettings } from './index.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'
import { type Point, startHoldingProxy } from './testing/holding-proxy.ts'
import { onceFlows, paymentName, tables } from './testing/once-flows.ts'
import { fromSources, startProcess } from './testing/process.ts'

/** For a long exploration: `ONCE_ROUNDS=50 npx vitest run sdk/src/worker/exactly-once.test.ts`. */
const ROUNDS = Number(process.env.ONCE_ROUNDS ?? 1)

let db: TestDatabase
let slugs = 0

beforeAll(async () => {
  db = await startTestDatabase()
  await db.sql.unsafe(tables)
  // Whatever the engine answers: each completion of a task is written down.
  await db.sql.unsafe(`
    create table public.completions (run_id uuid, step_slug text, task_index int, attempt int);
    create function public.note_completion() returns trigger language plpgsql as $$
    begin
      insert into public.completions values (new.run_id, new.step_slug, new.task_index, new.attempts_count);
      return null;
    end $$;
    create trigger note_completion after update of status on pgflow.step_tasks
    for each row when (new.status = 'completed') execute function public.note_completion()`)
})
afterAll(() => db[Symbol.asyncDispose]())

const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() }

async function start(
  flow: AnyFlow | readonly AnyFlow[],
  more: WorkerSettings & { sql?: Sql; connection?: string } = {},
) {
  const { sql, connection = db.url, ...settings } = more
  const worker = await startWorker({
    flows: [flow].flat() as AnyFlow[],
    log,
    ...settings,
    ...(sql ? { sql } : { connection }),
  })
  onTestFinished(() => worker.stop({ gracePeriod: 0 }))
  return worker
}

async function run(flow: AnyFlow, input: Json = null) {
  return db.runEnded(await db.startRun(flow.slug, input))
}

const newSlug = () => `once_${++slugs}`

/** A promise, and what resolves it. */
function gate<Value = void>() {
  let resolve: (value: Value) => void = () => {}
  const promise = new Promise<Value>((onValue) => {
    resolve = onValue
  })
  return { promise, resolve: (value: Value) => resolve(value) }
}

/** The orders of these runs, without an order and a completion of the same attempt for each task. */
async function ordersThatAreNotOne(run_ids: readonly string[]) {
  return [
    ...(await db.sql`
      select t.run_id, t.task_index, t.status, o.attempts as orders, c.attempts as completions
      from pgflow.step_tasks t
      cross join lateral (
        select array_agg(o.attempt) as attempts from public.orders o
        where (o.run_id, o.step_slug, o.task_index) = (t.run_id, t.step_slug, t.task_index)
      ) o
      cross join lateral (
        select array_agg(c.attempt) as attempts from public.completions c
        where (c.run_id, c.step_slug, c.task_index) = (t.run_id, t.step_slug, t.task_index)
      ) c
      where t.run_id = any (${run_ids}::uuid[]) and t.step_slug = 'write'
        and not (t.status = 'completed' and cardinality(o.attempts) = 1 and o.attempts is not distinct from c.attempts)`),
  ]
}

describe('context.once', () => {
  it('keeps what the function returns for later attempts, and not what it throws', async () => {
    const calls: string[] = []
    const flow = new Flow({ slug: newSlug(), baseDelay: 0, maxAttempts: 3 }).step(
      'a',
      async (_, { once, attempt }) => {
        const [at, again] = await Promise.all([
          once('at', () => {
            calls.push(`at ${attempt}`)
            return { at: new Date(0), no: undefined }
          }),
          once('at', () => expect.unreachable()),
        ])
        expect(again).toBe(at)
        const nothing = await once('nothing', () => void calls.push(`nothing ${attempt}`))
        await once('fails', () => {
          calls.push(`fails ${attempt}`)
          if (attempt < 3) throw new Error('not yet')
        })
        return { at, nothing }
      },
    )
    await start(flow)
    expect(await run(flow)).toMatchObject({
      status: 'completed',
      output: { a: { at: { at: '1970-01-01T00:00:00.000Z' }, nothing: null } },
    })
    expect(calls).toEqual(['at 1', 'nothing 1', 'fails 1', 'fails 2', 'fails 3'])
  })

  it('keeps them over a retry of the run, for each task of a map', async () => {
    const calls: number[] = []
    let isBroken = true
    const flow = new Flow<number[]>({ slug: newSlug(), maxAttempts: 1 }).map(
      { slug: 'each' },
      async (item, { once }) => {
        const result = await once('x', () => calls.push(item) && item * 10)
        if (isBroken) throw new Error('broken')
        return result
      },
    )
    await start(flow)
    const failed = await run(flow, [1, 2])
    expect(failed.status).toBe('failed')
    isBroken = false
    const before = [...calls]
    await db.sql`select pgflow.retry_run(${failed.run_id})`
    await until(
      () => db.sql`select 1 from pgflow.runs where run_id = ${failed.run_id} and status = 'completed'`,
    )
    const [ended] = await db.sql`select output from pgflow.runs where run_id = ${failed.run_id}`
    expect(ended!.output).toEqual({ each: [10, 20] })
    expect(before).toContain(1)
    expect(calls.filter((item) => item === 1)).toEqual([1])
  })

  it('has one for each task of a batch', async () => {
    const flow = new Flow<number[]>({ slug: newSlug() }).map(
      { slug: 'each', batch: { size: 2 } },
      (items, { tasks }) =>
        Promise.all(
          tasks.map(({ once, idempotencyKey }, n) => once('x', () => [items[n]!, idempotencyKey.slice(36)])),
        ),
    )
    await start(flow)
    expect(await run(flow, [1, 2])).toMatchObject({
      output: {
        each: [
          [1, ':each:0'],
          [2, ':each:1'],
        ],
      },
    })
  })

  it('says what cannot be kept', async () => {
    const flow = new Flow<number>({ slug: newSlug(), maxAttempts: 1 }).step(
      'a',
      async ({ run }, { once }) => {
        if (run === 0) await once('big', () => 'x'.repeat(1_048_577))
        if (run === 1) await once('nan', () => [Number.NaN])
        if (run === 2) await once('', () => 1)
        for (let n = 0; n < 33; n++) await once(`${n}`, () => 'x'.repeat(1_040_000))
      },
    )
    await start(flow)
    const errors = await Promise.all([0, 1, 2, 3].map(async (n) => (await run(flow, n)).error))
    expect(errors).toEqual([
      'step "a" failed: RangeError: context.once got 1048579 bytes of JSON for "big": it keeps 1048576 at most. Store it elsewhere, for instance in Supabase Storage, and keep where it is',
      'step "a" failed: $[0] is NaN: JSON has finite numbers only (in context.once("nan"))',
      'step "a" failed: TypeError: context.once got "" as a name: give it a text of 1 to 255 characters',
      expect.stringContaining(
        'context.once cannot keep the result "32": the result "32" is too much: a task keeps 1000 results',
      ),
    ])
  })

  it('is fenced by the attempt: one that has lost its task keeps nothing, and ends', async () => {
    const lost = gate<unknown[]>()
    const isClaimed = gate()
    const flow = new Flow({ slug: newSlug() }).step('a', async (_, { once, attempt, signal }) => {
      if (attempt > 1) return once('x', () => attempt)
      isClaimed.resolve()
      const error = await once('x', async () => {
        await until(
          () =>
            db.sql`select 1 from pgflow.step_states where flow_slug = ${flow.slug} and status = 'completed'`,
        )
        return attempt
      }).catch((error: unknown) => error)
      lost.resolve([error, signal.reason])
      return 0
    })
    const workers = [await start(flow)]
    const run_id = await db.startRun(flow.slug, null)
    await isClaimed.promise
    workers.push(await start(flow))
    await db.sql`update pgmq.${db.sql(`q_${flow.slug}`)} set vt = clock_timestamp()`
    expect(await db.runEnded(run_id)).toMatchObject({ output: { a: 2 } })
    const [error, reason] = await lost.promise
    expect(error).toBeInstanceOf(LeaseLostError)
    expect(reason).toBe(error)
  })
})

it('context.idempotencyKey is the same for each attempt, and another one for each task', async () => {
  const keys: string[] = []
  const flow = new Flow<number[]>({ slug: newSlug(), baseDelay: 0 }).map(
    { slug: 'each' },
    (_, { idempotencyKey, attempt }) => {
      keys.push(idempotencyKey)
      if (attempt === 1) throw new Error('again')
      return null
    },
  )
  await start(flow, { log: false })
  const { run_id } = await run(flow, [1, 2])
  expect(keys.sort()).toEqual([0, 0, 1, 1].map((index) => `${run_id}:each:${index}`))
})

describe('context.transaction', () => {
  const connections: [string, () => { connection?: string; sql?: Sql; maxConnections?: number }][] = [
    ['a session', () => ({ connection: db.url })],
    ['one connection', () => ({ connection: db.url, maxConnections: 1 })],
    ['a transaction pooler', () => ({ connection: db.poolerUrl })],
    ["the user's connection", () => ({ sql: db.sql })],
  ]
  it.each(connections)('commits the writes and the completion together, over %s', async (_, connection) => {
    const items = [1, 2, 3, 4, 5, 6, 7, 8]
    const [order] = onceFlows('me', () => {})
    const chain = new Flow<number[]>({ slug: newSlug() })
      .map(
        { slug: 'write' },
        (item, context) => order.steps.get('write')!.handler!(item, context as never) as Promise<null>,
      )
      .step('count', ['write'], (_, { transaction, runId }) =>
        transaction(async (sql) => {
          const [row] = await sql<{ n: number }[]>`
            select count(*)::int as n from public.orders where run_id = ${runId} and task_index = any (${[0, 1, 2, 3]})`
          return row!.n
        }),
      )
    await start(chain, { ...connection(), maxTransactions: 3 })
    const { run_id, output } = await run(chain, items)
    expect(output).toEqual({ count: 4 })
    expect(await ordersThatAreNotOne([run_id])).toEqual([])
  })

  it('rolls back what the function wrote where it throws, and may then be called again', async () => {
    const flow = new Flow({ slug: newSlug(), baseDelay: 0, maxAttempts: 2 }).step(
      { slug: 'write' },
      async (_, { transaction, runId, attempt }) => {
        const write = (then?: Error) =>
          transaction(async (sql) => {
            await sql`insert into public.orders values (${runId}, 'write', 0, ${attempt})`
            if (then) throw then
            return { attempt }
          })
        await expect(write(new Error('inner'))).rejects.toThrow('inner')
        if (attempt === 1) await write(new Error('outer'))
        return write()
      },
    )
    await start(flow)
    const { run_id, output } = await run(flow)
    expect(output).toEqual({ write: { attempt: 2 } })
    expect(await ordersThatAreNotOne([run_id])).toEqual([])
    expect(await db.tasksOf(run_id)).toMatchObject([{ attempts_count: 2 }])
  })

  it('is awaited, though the handler does not; another value than its own is a warning; a second one is refused', async () => {
    const errors: unknown[] = []
    const flow = new Flow({ slug: newSlug() }).step('a', (_, { transaction }) => {
      void transaction(async (sql) => {
        await sql`select pg_sleep(0.05)`
        return { is: 'mine' }
      })
      transaction(() => 1).catch((error: Error) => errors.push(error.message))
      return 'other'
    })
    log.warn.mockClear()
    await start(flow)
    expect(await run(flow)).toMatchObject({ output: { a: { is: 'mine' } } })
    expect(errors).toEqual([
      'context.transaction was called a second time: a task completes with one transaction; do all writes in it',
    ])
    expect(await until(async () => log.warn.mock.calls)).toEqual([
      expect.stringContaining('return what context.transaction resolves with'),
      expect.objectContaining({ step_slug: 'a' }),
    ])
  })

  it('refuses queries after its end', async () => {
    const late = gate<unknown>()
    const flow = new Flow({ slug: newSlug() }).step('a', async (_, { transaction }) => {
      let leaked: postgres.TransactionSql | undefined
      await transaction(async (sql) => {
        leaked = sql
        await sql.savepoint((inner) => inner`select 1`)
      })
      late.resolve(
        await Promise.resolve()
          .then(() => leaked!`select 1`)
          .catch((error: Error) => error.message),
      )
    })
    await start(flow)
    await run(flow)
    expect(await late.promise).toBe(
      'The transaction is over: await all of its queries before its function returns',
    )
  })

  it('writes and reads arrays', async () => {
    const flow = new Flow({ slug: newSlug(), maxAttempts: 1 }).step('a', (_, { transaction }) =>
      transaction(async (sql) => {
        const [row] = await sql<{ [name: string]: Json }[]>`
          select ${['a"b', null, '\\', '{x,}', '', 'NULL']}::text[] as texts, ${[[1, 2], [3, 4]]}::int[] as numbers,
                 array['1970-01-01 00:00+00'::timestamptz] as times, array['{"a": [1, "}"]}'::jsonb] as json, '{}'::uuid[] as none`
        return row!
      }),
    )
    await start(flow)
    expect(await run(flow)).toMatchObject({
      error: null,
      output: {
        a: {
          texts: ['a"b', null, '\\', '{x,}', '', 'NULL'],
          numbers: [
            [1, 2],
            [3, 4],
          ],
          times: ['1970-01-01T00:00:00.000Z'],
          json: [{ a: [1, '}'] }],
          none: [],
        },
      },
    })
  })

  it('checks the output by its schema and limit before it commits', async () => {
    const { z } = await import('zod')
    const flow = new Flow<number>({ slug: newSlug(), maxAttempts: 1 }).step(
      { slug: 'write', output: z.object({ id: z.number().transform((id) => id * 2) }) },
      ({ run }, { transaction, runId }) =>
        transaction(async (sql) => {
          await sql`insert into public.orders values (${runId}, 'write', 0, 1)`
          return { id: run === 0 ? ('none' as never) : run }
        }),
    )
    await start(flow)
    const [refused, fine] = await Promise.all([run(flow, 0), run(flow, 4)])
    expect(refused.error).toMatch(/step "write" failed: .*id/)
    expect(fine.output).toEqual({ write: { id: 8 } })
    expect(
      await db.sql`select run_id from public.orders where run_id in (${refused.run_id}, ${fine.run_id})`,
    ).toEqual([{ run_id: fine.run_id }])
  })

  it('ends at once when its step times out, in the database too', async () => {
    const flow = new Flow({ slug: newSlug(), timeout: 1, baseDelay: 0, maxAttempts: 2 }).step(
      { slug: 'write' },
      (_, { transaction, runId, attempt }) =>
        transaction(async (sql) => {
          await sql`insert into public.orders values (${runId}, 'write', 0, ${attempt})`
          // Locks what the next attempt needs.
          await sql`select pg_advisory_xact_lock(42)`
          if (attempt === 1) {
            await sql`set local statement_timeout = 0`
            await sql`select pg_sleep(600)`
          }
          return attempt
        }),
    )
    await start(flow, { maxTransactions: 1 })
    const { run_id, output } = await run(flow)
    expect(output).toEqual({ write: 2 })
    expect(await ordersThatAreNotOne([run_id])).toEqual([])
  })

  it('is dropped quietly where another worker has the task', async () => {
    const isOpen = gate()
    const hasOther = gate()
    const ended = gate<unknown>()
    const flow = new Flow({ slug: newSlug() }).step('write', (_, { transaction, runId, attempt }) => {
      const done = transaction(async (sql) => {
        await sql`insert into public.orders values (${runId}, 'write', 0, ${attempt})`
        if (attempt === 1) {
          isOpen.resolve()
          await hasOther.promise
        }
        return attempt
      })
      if (attempt === 1) done.then(ended.resolve, ended.resolve)
      return done
    })
    log.warn.mockClear()
    await start(flow)
    const run_id = await db.startRun(flow.slug, null)
    await isOpen.promise
    await start(flow)
    await db.sql`update pgmq.${db.sql(`q_${flow.slug}`)} set vt = clock_timestamp()`
    expect(await db.runEnded(run_id)).toMatchObject({ output: { write: 2 } })
    hasOther.resolve()
    expect(await ended.promise).toBeInstanceOf(LeaseLostError)
    expect(await ordersThatAreNotOne([run_id])).toEqual([])
    expect(log.warn.mock.calls).toEqual([])
  })

  it('does not keep the worker from its other work while all of its connections are taken', async () => {
    const release = gate()
    const isOpen = gate()
    const slow = new Flow<number[]>({ slug: newSlug() }).map({ slug: 'each' }, (item, { transaction }) =>
      transaction(async (sql) => {
        await sql`select 1`
        isOpen.resolve()
        await release.promise
        return item
      }),
    )
    const other = new Flow({ slug: newSlug() }).step('a', () => 1).step('b', ['a'], ({ a }) => a)
    await start([slow, other], { maxTransactions: 1, maxConnections: 1 })
    const run_id = await db.startRun(slow.slug, [1, 2, 3])
    await isOpen.promise
    expect(await run(other)).toMatchObject({ output: { b: 1 } })
    release.resolve()
    expect(await db.runEnded(run_id)).toMatchObject({ output: { each: [1, 2, 3] } })
  })

  it('says in a worker with a secret key what to do instead; once works there', async () => {
    const flow = new Flow({ slug: newSlug(), maxAttempts: 1, baseDelay: 0 })
      .step('kept', (_, { once }) => once('x', () => [1]))
      .step('a', ['kept'], (_, { transaction }) => transaction(() => 1))
    const { url, secretKey } = db.stack
    const worker = await startWorker({ url, secretKey, flows: [flow], log: false })
    onTestFinished(() => worker.stop())
    const { run_id, error } = await run(flow)
    expect(error).toMatch(
      /needs a worker with a connection to the database .* pgflow\.complete_in_transaction/,
    )
    expect(
      await db.sql`select output from pgflow.step_states where run_id = ${run_id} and step_slug = 'kept'`,
    ).toEqual([{ output: [1] }])
  })
})

it('A transaction runs what Drizzle and Kysely have built', async () => {
  const { drizzle } = await import('drizzle-orm/postgres-js')
  const { integer, pgTable, text, uuid } = await import('drizzle-orm/pg-core')
  const { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } = await import(
    'kysely'
  )
  type Row = { run_id: string; step_slug: string; task_index: number; attempt: number; by: string }
  const kysely = new Kysely<{ orders: Row }>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  })
  const orders = pgTable('orders', {
    runId: uuid('run_id'),
    step: text('step_slug'),
    index: integer('task_index'),
    attempt: integer(),
    by: text(),
  })
  const flow = new Flow<string[]>({ slug: newSlug() }).map(
    { slug: 'write' },
    (by, { transaction, runId, taskIndex, attempt }) =>
      transaction(async (sql) => {
        if (by === 'drizzle') {
          const row = { runId, step: 'write', index: taskIndex, attempt, by }
          const query = drizzle.mock().insert(orders).values(row).returning({ by: orders.by }).toSQL()
          const [inserted] = await sql.unsafe<{ by: string }[]>(query.sql, query.params as never[])
          return inserted!.by
        }
        const row = { run_id: runId, step_slug: 'write', task_index: taskIndex, attempt, by }
        const query = kysely.insertInto('orders').values(row).returning('by').compile()
        const [inserted] = await sql.unsafe<{ by: string }[]>(query.sql, [...query.parameters] as never[])
        return inserted!.by
      }),
  )
  await start(flow)
  const { run_id, output } = await run(flow, ['drizzle', 'kysely'])
  expect(output).toEqual({ write: ['drizzle', 'kysely'] })
  expect(await ordersThatAreNotOne([run_id])).toEqual([])
})

describe('pgflow.complete_in_transaction', () => {
  it.each(['repeatable read', 'serializable'])(
    'fails to serialize at %s where the run has gone on meanwhile',
    async (level) => {
      const flow_slug = newSlug()
      await db.sql`select pgflow.create_flow(${flow_slug}), pgflow.add_step(${flow_slug}, 'a'), pgflow.add_step(${flow_slug}, 'b')`
      const run_id = await db.startRun(flow_slug, null)
      await db.sql`select pgflow.claim_tasks(array[${flow_slug}], 10, gen_random_uuid())`
      const complete = (sql: postgres.ISql, step: string) =>
        sql`select pgflow.complete_in_transaction(${run_id}, ${step}, 0, 1, '1')`
      const first = db.sql.begin(`isolation level ${level}`, async (sql) => {
        await sql`select count(*) from pgflow.runs`
        await db.sql`select pgflow.complete_task(${run_id}, 'b', 0, '2')`
        await complete(sql, 'a')
      })
      await expect(first).rejects.toMatchObject({ code: '40001' })
      await db.sql.begin(`isolation level ${level}`, (sql) => complete(sql, 'a'))
      expect(await db.runEnded(run_id)).toMatchObject({ status: 'completed', output: { a: 1, b: 2 } })
    },
  )

  it('completes a task in a function that is called with a secret key', async () => {
    await db.sql.unsafe(`
      create function public.save_order(run_id uuid, attempt int) returns void language sql as $$
        insert into public.orders values (run_id, 'write', 0, attempt);
        select pgflow.complete_in_transaction(run_id, 'write', 0, attempt, '{"saved": true}');
      $$;
      grant insert on public.orders to service_role;
      notify pgrst, 'reload schema'`)
    const { url, secretKey } = db.stack
    const flow = new Flow({ slug: newSlug() }).step('write', async (_, { runId, attempt }) => {
      const response = await fetch(`${url}/rest/v1/rpc/save_order`, {
        method: 'POST',
        headers: { apikey: secretKey, 'content-type': 'application/json' },
        body: JSON.stringify({ run_id: runId, attempt }),
      })
      if (!response.ok) throw new Error(await response.text())
    })
    const worker = await startWorker({ url, secretKey, flows: [flow], log: false })
    onTestFinished(() => worker.stop())
    const { run_id, output } = await run(flow)
    expect(output).toEqual({ write: { saved: true } })
    expect(await ordersThatAreNotOne([run_id])).toEqual([])
  })
})

describe('What is killed', { timeout: 60_000 + ROUNDS * 10_000 }, () => {
  const points: readonly Point[] = [
    ['sends', 'begin'],
    ['gets', 'BEGIN'],
    ['sends', 'insert into'],
    ['gets', 'INSERT 0 1'],
    ['sends', 'complete_in_transaction'],
    ['gets', 'SELECT 1'],
    ['sends', 'commit'],
    ['gets', 'COMMIT'],
  ]
  const script = fileURLToPath(new URL('./testing/once-worker.ts', import.meta.url))

  it('a worker with SIGKILL, at every step of a transaction and before it keeps a result: all happens once', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      await using proxy = await startHoldingProxy(db.url)
      const options = { connection: proxy.url, lease: 2, maxTransactions: points.length }
      const first = startProcess([...fromSources, script, JSON.stringify(options)])
      onTestFinished(async () => {
        first.kill('SIGKILL')
        await first.ended
      })
      await first.said('ready')
      const held = Promise.all(points.map((point) => proxy.hold(point)))
      // Runs of their own: a completion holds the lock of its run.
      const run_ids = await db.startRuns(
        'order',
        points.map((_, n) => [n]),
      )
      await held
      const kept = await db.startRun('paid', null)
      await first.said(`kept ${kept}`)
      const isKeeping = proxy.holdAny(paymentName)
      const called = await db.startRun('paid', null)
      await isKeeping
      await first.said(`called ${called}`)
      first.kill('SIGKILL')
      await first.ended

      const said: string[] = []
      const second = await start(
        onceFlows('second', (line) => said.push(line)),
        { log: false },
      )
      await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
      expect(await ordersThatAreNotOne(run_ids)).toEqual([])
      // Only what was committed is the first one's.
      const orders =
        await db.sql`select by from public.orders where run_id = any (${run_ids}::uuid[]) order by by`
      expect(orders.map(({ by }) => by)).toEqual(['first', ...points.slice(1).map(() => 'second')])
      expect((await db.runEnded(kept)).output).toEqual({ call: { by: 'first', attempt: 1 } })
      expect((await db.runEnded(called)).output).toEqual({ call: { by: 'second', attempt: 2 } })
      expect(said.sort()).toEqual([`called ${called}`, `kept ${called}`, `kept ${kept}`].sort())
      await second.stop()
    }
  })

  it('sessions in the database, while two workers take tasks from each other: one order, one completion', async () => {
    const [order] = onceFlows('me', () => {})
    const workers = [{}, { connection: db.poolerUrl }].map((more) => start(order, { log: false, ...more }))
    await Promise.all(workers)
    for (let round = 0; round < ROUNDS; round++) {
      const run_ids = await db.startRuns(
        'order',
        Array.from({ length: 5 }, () => Array.from({ length: 20 }, (_, n) => n)),
      )
      for (let trouble = 0; trouble < 10; trouble++) {
        await db.sql`update pgmq.q_order set vt = clock_timestamp() where vt > clock_timestamp() and random() < 0.3`
        await db.sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where application_name like 'pgflow ________-%' and random() < 0.3`
        // Something goes on between.
        const [before] = await db.sql`select count(*)::int as n from public.completions`
        await until(
          () => db.sql`
            select 1 where (select count(*) from public.completions) > ${before!.n}
              or not exists (select from pgflow.runs where run_id = any (${run_ids}::uuid[]) and status = 'started')`,
        )
      }
      const ends = await Promise.all(run_ids.map((run_id) => db.runEnded(run_id)))
      expect(ends.map(({ status }) => status)).toEqual(run_ids.map(() => 'completed'))
      expect(await ordersThatAreNotOne(run_ids)).toEqual([])
    }
  })
})
