import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type ISql, type Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { untilSomebodyWaits } from './testing/contend.ts'
import { violations } from './testing/invariants.ts'

/** What each connection does in a race; for a longer one: `SINGLETON_ROUNDS=2000 npx vitest run supabase/tests/singletons.test.ts`. */
const ROUNDS = Number(process.env.SINGLETON_ROUNDS ?? 40)

let stack: LocalSupabase
let sql: Sql

beforeAll(async () => {
  stack = await startLocalSupabase({
    migrations: [fileURLToPath(new URL('../migrations', import.meta.url))],
    fsync: false,
  })
  sql = postgres(stack.dbUrl, { max: 12, onnotice: () => undefined })
})

afterAll(async () => {
  await sql?.end()
  await stack?.stop()
})

type Answer = 'return' | 'reject' | 'replace' | 'after'

async function define(flowSlug: string, answer: Answer, path: string | null = 'run.k'): Promise<void> {
  await sql`select pgflow.create_flow(${flowSlug}, base_delay => 0), pgflow.add_step(${flowSlug}, 'a')`
  await sql`
    update pgflow.flows set singleton_when_busy = ${answer}, singleton_path = ${path} where flow_slug = ${flowSlug}`
}

async function start(flowSlug: string, input: object, tx: ISql = sql): Promise<string> {
  const [run] = await tx<
    { run_id: string }[]
  >`select run_id from pgflow.start_flow(${flowSlug}, ${sql.json(input as never)})`
  return run!.run_id
}

const random = (below: number) => Math.floor(Math.random() * below)

describe('starts, ends and cancels of three keys on eight connections at once', () => {
  /** What may be answered to a start or retry beside others; a deadlock would be another error. */
  const ignoreConflicts = (error: { code?: string }) => {
    if (error.code !== 'PT409' && error.code !== 'PT404') throw error
  }

  const deeds: ((flowSlug: string, tx: Sql) => PromiseLike<unknown>)[] = [
    (flowSlug, tx) => start(flowSlug, { k: random(3) }, tx),
    (flowSlug, tx) => start(flowSlug, { k: random(3) }, tx),
    (flowSlug, tx) =>
      tx`select from pgflow.start_flows(${flowSlug}, ${sql.json([0, 1, 2, 1].map(() => ({ k: random(3) })))})`,
    (_flowSlug, tx) => tx`select pgflow.tick()`,
    // As a worker: the tasks that it claims are settled in its next call, among those of others.
    async (flowSlug, tx) => {
      const [answer] = await tx`select tasks from pgflow.settle_and_claim('[]', array[${flowSlug}], 2, null)`
      const results = answer!.tasks.map((task: object) => ({
        ...task,
        ...(random(3) === 0 ? { error: 'e', permanent: true } : { output: 1 }),
      }))
      return tx`select from pgflow.settle_and_claim(${sql.json(results)}, array[${flowSlug}], 0, null)`
    },
    (flowSlug, tx) => tx`
      select pgflow.cancel_run(run_id) from (
        select run_id from pgflow.runs where flow_slug = ${flowSlug} and status = 'started' order by random() limit 1
      ) r`,
    (flowSlug, tx) => tx`
      select pgflow.retry_run(run_id) from (
        select run_id from pgflow.runs where flow_slug = ${flowSlug} and status in ('failed', 'cancelled') order by random() limit 1
      ) r`,
    (flowSlug, tx) => tx`
      delete from pgflow.runs where run_id = (
        select run_id from pgflow.runs where flow_slug = ${flowSlug} order by random() limit 1
      )`,
  ]

  test.each<Answer>(['return', 'reject', 'replace', 'after'])(
    '%s',
    { timeout: 60_000 + 200 * ROUNDS },
    async (answer) => {
      const flowSlug = `race_${answer}`
      await define(flowSlug, answer)
      let isOver = false
      /** Each look is one at a commit: never do two runs of a key go on. */
      const looks = (async () => {
        let seen = 0
        while (!isOver) {
          const twins = await sql`
          select input from pgflow.runs where flow_slug = ${flowSlug} and status = 'started' and waits_for is null
          group by input having count(*) > 1`
          expect([...twins]).toEqual([])
          seen++
        }
        return seen
      })()
      await Promise.all(
        Array.from({ length: 8 }, async () => {
          const connection = await sql.reserve()
          try {
            for (let round = 0; round < ROUNDS; round++) {
              await Promise.resolve(deeds[random(deeds.length)]!(flowSlug, connection)).catch(ignoreConflicts)
            }
          } finally {
            connection.release()
          }
        }),
      ).finally(() => {
        isOver = true
      })
      expect(await looks).toBeGreaterThan(0)

      // Whoever waits begins, as soon as the ones before have ended; nobody is forgotten.
      while ((await openRuns(flowSlug)) > 0) {
        await sql`update pgmq.${sql(`q_${flowSlug}`)} set vt = now() - interval '1 second'`
        const [{ tasks }] = await sql<[{ tasks: object[] }]>`
        select coalesce(jsonb_agg(t), '[]') as tasks from pgflow.claim_tasks(array[${flowSlug}], 100, null) t`
        const done = tasks.map((task) => ({ ...task, output: 1 }))
        await sql`select from pgflow.settle_tasks(${sql.json(done as never)})`
        const [{ due }] = await sql<
          [{ due: boolean }]
        >`select t.settled > 0 or t.next_due_at is not null as due from pgflow.tick() t`
        if (tasks.length === 0 && !due) break
      }
      expect(await openRuns(flowSlug)).toBe(0)
      expect(await sql`select from pgflow.run_singletons where alias = ${flowSlug}`).toHaveLength(0)
      expect(await violations(sql, [flowSlug])).toEqual([])
    },
  )

  const openRuns = async (flowSlug: string) =>
    (await sql`select from pgflow.runs where flow_slug = ${flowSlug} and status = 'started'`).length
})

describe('an open transaction', () => {
  beforeAll(async () => {
    await define('held', 'after')
    await define('held_replace', 'replace')
  })

  /** Nothing waits for longer than this. */
  const promptly = <T>(work: (tx: ISql) => Promise<T>) =>
    sql.begin(async (tx) => {
      await tx`set local lock_timeout = '50ms'`
      return work(tx)
    }) as Promise<T>

  const statusOf = async (runId: string) => {
    const [run] =
      await sql`select concat_ws(' ', status, waits_for) as status from pgflow.runs where run_id = ${runId}`
    return run?.status
  }

  test('of a start holds up no end of the run before, which it does not forget', async () => {
    const first = await start('held', { k: 1 })
    const second = await sql.begin(async (open) => {
      const waiting = await start('held', { k: 1 }, open)
      await promptly((tx) => tx`select pgflow.complete_task(${first}, 'a', 0, '1')`)
      await promptly((tx) => start('held', { k: 2 }, tx))
      await expect(promptly((tx) => start('held', { k: 1 }, tx))).rejects.toMatchObject({ code: '55P03' })
      return waiting
    })
    expect(await statusOf(second)).toBe('started run')
    while ((await statusOf(second)) !== 'started') await sql`select pgflow.tick()`
  })

  test('of an end holds up starts of its key alone, which find it free then', async () => {
    const first = await start('held', { k: 3 })
    const started = await sql.begin(async (open) => {
      await open`select pgflow.cancel_run(${first})`
      await promptly((tx) => start('held', { k: 4 }, tx))
      const starting = start('held', { k: 3 })
      await untilSomebodyWaits(sql)
      return { starting }
    })
    expect(await statusOf(await started.starting)).toBe('started')
  })

  test('that locks the run which waits, or ends it, keeps no tick from what it has to do', async () => {
    const first = await start('held', { k: 5 })
    const second = await start('held', { k: 5 })
    await sql`select pgflow.cancel_run(${first})`
    await sql.begin(async (open) => {
      await open`select from pgflow.runs where run_id = ${second} for no key update`
      await promptly((tx) => tx`select pgflow.tick()`)
    })
    expect(await statusOf(second)).toBe('started run')
    while ((await statusOf(second)) !== 'started') await sql`select pgflow.tick()`
  })

  test('of a start that replaces a run waits for its lock, and no one for it but starts of the key', async () => {
    const first = await start('held_replace', { k: 1 })
    let starting: Promise<string> | undefined
    await sql.begin(async (open) => {
      await open`select pgflow.complete_task(${first}, 'a', 0, '1')`
      starting = start('held_replace', { k: 1 })
      await untilSomebodyWaits(sql)
      await promptly((tx) => start('held_replace', { k: 2 }, tx))
    })
    expect(await statusOf(await starting!)).toBe('started')
    expect(await statusOf(first)).toBe('completed')
  })

  test('of a start or an end leaves the schedules of its key due', async () => {
    await sql`select pgflow.schedule('often', 'held_replace', '* * * * *', '{"k": 9}', overlap => 'cancel')`
    const [run] = await sql<[{ run_id: string }]>`select run_id from pgflow.run_schedule('often')`
    await sql`update pgflow.schedules set next_at = next_at - interval '1 minute', due_at = due_at - interval '1 minute'`
    const startDue = async (tx: ISql = sql) => {
      const [answer] = await tx<[{ started: number }]>`select started from pgflow.start_due_schedules()`
      return answer.started
    }
    for (const hold of [
      (open: ISql) => start('held_replace', { k: 9 }, open),
      (open: ISql) => open`select from pgflow.runs where run_id = ${run.run_id} for no key update`,
    ]) {
      await sql
        .begin(async (open) => {
          await hold(open)
          expect(await promptly(startDue)).toBe(0)
          throw new Error('rolled back')
        })
        .catch((error) => expect(error).toMatchObject({ message: 'rolled back' }))
    }
    expect(await statusOf(run.run_id)).toBe('started')
    expect(await startDue()).toBe(1)
    expect(await statusOf(run.run_id)).toBe('cancelled')
    await sql`select pgflow.unschedule('often')`
  })
})

test('a worker that ends a run has the task of the one that waits in the same call', async () => {
  await define('chain', 'after', null)
  for (let n = 0; n < 2; n++) await start('chain', { n })
  const claim = async (results: object[]) => {
    const [answer] = await sql<[{ tasks: { run_id: string }[] }]>`
      select tasks from pgflow.settle_and_claim(${sql.json(results as never)}, '{chain}', 10, null)`
    return answer.tasks
  }
  const [first] = await claim([])
  const [second] = await claim([{ ...first, output: 1 }])
  expect(second).toMatchObject({ step_slug: 'a', input: { run: { n: 1 } } })
})
