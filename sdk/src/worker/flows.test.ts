import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AnyFlow, compile, Flow, NonRetryableError } from '../flow/index.ts'
import { startWorker } from './index.ts'
import { startTestDatabase, type TestDatabase } from './testing/database.ts'

// What the types of a flow promise is what its handlers get.

interface Shop {
  orders: { id: number; price: number | null }[]
  discount?: boolean
}

const Invoice = new Flow<Shop>({ slug: 'invoice', maxAttempts: 1 })
  .map({ slug: 'prices', items: 'run.orders' }, ({ id, price }, { taskIndex }) => ({ id, price, taskIndex }))
  .step({ slug: 'rate', runIf: { run: { discount: true } }, whenUnmet: 'skip' }, () => 0.5)
  .map({ slug: 'checks', dependsOn: ['prices'], whenExhausted: 'skip' }, ({ price }) => {
    if (price === null) throw new NonRetryableError('there is no price')
    return price > 0
  })
  .step('total', ['prices', 'rate', 'checks'], ({ run, prices, rate = 1, checks }) => ({
    sum: prices.reduce((sum, { price }) => sum + (price ?? 0), 0) * rate,
    orders: run.orders.length,
    checks: checks ?? 'skipped',
  }))
  .step({ slug: 'gift', dependsOn: ['total'], runIf: { total: { sum: 10 } } }, () => ({
    toys: ['car', null],
  }))
  .map({ slug: 'toys', items: 'gift.toys' }, (toy) => toy ?? 'none')
  .map({ slug: 'refunds', items: 'checks', runUnless: { run: { discount: true } } }, (isPaid) => !isPaid)

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
  const worker = await startWorker({ connection: db.url, flows: [Invoice] })
  return () => worker.stop()
})
afterAll(() => db[Symbol.asyncDispose]())

async function outcomeOf(input: Shop) {
  const run = await db.runEnded(await db.startRun(Invoice.slug, JSON.parse(JSON.stringify(input))))
  return { status: run.status, output: run.output, error: run.error }
}

describe('A worker', () => {
  it('runs maps and conditions', async () => {
    expect(
      await outcomeOf({
        orders: [
          { id: 1, price: 4 },
          { id: 2, price: 6 },
        ],
      }),
    ).toEqual({
      status: 'completed',
      output: { toys: ['car', 'none'], refunds: [false, false] },
      error: null,
    })
  })

  it('leaves out what was skipped', async () => {
    expect(await outcomeOf({ orders: [{ id: 1, price: 4 }], discount: true })).toEqual({
      status: 'completed',
      output: {},
      error: null,
    })
  })

  it('runs dependents of a step whose attempts are exhausted', async () => {
    const outcome = await outcomeOf({
      orders: [
        { id: 1, price: 10 },
        { id: 2, price: null },
      ],
    })
    expect(outcome).toEqual({
      status: 'completed',
      output: { toys: ['car', 'none'], refunds: [] },
      error: null,
    })
  })

  it('runs maps without items', async () => {
    expect(await outcomeOf({ orders: [] })).toMatchObject({ output: { refunds: [] } })
  })

  it('fails a run whose input is not what its type says', async () => {
    expect(await outcomeOf({} as Shop)).toMatchObject({
      status: 'failed',
      error: expect.stringContaining('cannot map run.orders: it is missing, not an array'),
    })
  })
})

describe('compile', () => {
  const options = {
    maxAttempts: 2,
    baseDelay: 0.5,
    timeout: 7,
    startDelay: 3,
    runIf: { run: { text: "it's" } },
    runUnless: { one: [1] },
    whenUnmet: 'skip',
    whenExhausted: 'skip-cascade',
  } as const
  const everything = (slug: string) =>
    new Flow<{ text: string; list: number[] }>({
      slug,
      maxAttempts: 4,
      baseDelay: 1.5,
      timeout: 9,
      startDelay: 1,
      startRole: 'anon',
      broadcast: 'never',
    })
      .map({ slug: 'one', items: 'run.list', concurrency: 5, deadline: '1m' }, (n) => n)
      .step({ slug: 'two', dependsOn: ['one'], ...options }, () => ({ deep: { list: ['a'] } }))
      .map({ slug: 'three', items: 'two.deep.list', dependsOn: ['one'], startDelay: 0 }, (text) => text)

  it('says every option to the database', async () => {
    const flow = everything('every_option')
    await db.sql.unsafe(compile(flow))
    expect(await definedAs(flow)).toEqual({
      flow: {
        opt_max_attempts: 4,
        opt_base_delay: 1.5,
        opt_timeout: 9,
        start_role: 'anon',
        broadcast: 'never',
      },
      steps: [
        {
          ...plain,
          step_slug: 'one',
          step_type: 'map',
          map_source: 'run',
          map_path: 'list',
          opt_start_delay: 1,
          is_limited: true,
          opt_concurrency: 5,
          opt_deadline: 60,
        },
        {
          ...plain,
          step_slug: 'two',
          opt_max_attempts: 2,
          opt_base_delay: 0.5,
          opt_timeout: 7,
          opt_start_delay: 3,
          run_if: options.runIf,
          run_unless: options.runUnless,
          when_unmet: 'skip',
          when_exhausted: 'skip-cascade',
          deps: ['one'],
        },
        {
          ...plain,
          step_slug: 'three',
          step_type: 'map',
          map_source: 'two',
          map_path: 'deep.list',
          opt_start_delay: 0,
          deps: ['one', 'two'],
        },
      ],
    })
  })

  it('gives SQL that changes nothing when it runs again', async () => {
    const flow = everything('run_twice')
    await db.sql.unsafe(compile(flow))
    const first = await definedAs(flow)
    await db.sql.unsafe(compile(everything('run_twice')))
    expect(await definedAs(flow)).toEqual(first)
  })

  const plain = {
    step_type: 'single',
    map_source: null,
    map_path: null,
    opt_max_attempts: null,
    opt_base_delay: null,
    opt_timeout: null,
    opt_start_delay: null,
    run_if: null,
    run_unless: null,
    when_unmet: 'skip-cascade',
    when_exhausted: 'fail',
    ...{
      completed_by: null,
      assignees_path: null,
      not_by_owner: null,
      when_timed_out: null,
      timed_out_output: null,
    },
    ...{ webhook: null, until_path: null, opt_sleep_for: null },
    ...{ is_limited: false, opt_concurrency: null, opt_deadline: null },
    ...{ when_item_fails: 'fail', tolerate_count: null, tolerate_share: null },
    ...{ child_flow: null, when_parent_ends: null, loop_until: null, loop_max: null, when_exceeded: null },
    sql_function: null,
    deps: [],
  }

  async function definedAs(flow: AnyFlow) {
    const [row] = await db.sql<{ flow: object; steps: object[] }[]>`
      select
        (
          select jsonb_build_object(
            'opt_max_attempts', f.opt_max_attempts, 'opt_base_delay', f.opt_base_delay, 'opt_timeout', f.opt_timeout,
            'start_role', f.start_role, 'broadcast', f.broadcast
          )
          from pgflow.flows f where f.flow_slug = ${flow.slug}
        ) as flow,
        (
          select jsonb_agg(
            to_jsonb(s) - array[
              'flow_slug', 'step_index', 'deps_count', 'is_plain', 'created_at', 'input_schema', 'output_schema'
            ] || jsonb_build_object('deps', array(
              select d.dep_slug from pgflow.deps d
              where d.flow_slug = s.flow_slug and d.step_slug = s.step_slug order by d.dep_slug
            )) order by s.step_index
          )
          from pgflow.steps s where s.flow_slug = ${flow.slug}
        ) as steps`
    return row
  }
})
