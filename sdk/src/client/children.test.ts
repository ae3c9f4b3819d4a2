import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest'
import { compile, Flow, relatedFlows } from '../flow/index.ts'
import { type ChildRow, PgflowClient } from './index.ts'
import { Rig } from './testing/rig.ts'

const Line = new Flow({ slug: 'line' }).input<{ sku: string }>().step('price', ({ run }) => run.sku.length)

const Order = new Flow({ slug: 'order', startRole: 'authenticated' })
  .input<{ first: { sku: string }; lines: { sku: string }[] }>()
  .flow({ slug: 'first', flow: Line, input: 'run.first' })
  .flowMap({ slug: 'lines', flow: Line, dependsOn: ['first'], items: 'run.lines' })

let rig: Rig
let client: PgflowClient<{ order: typeof Order }>

beforeAll(async () => {
  rig = await Rig.start()
  for (const flow of relatedFlows([Order])) await rig.sql.unsafe(compile(flow))
  client = new PgflowClient(await rig.user())
})
afterAll(() => rig.stop())

/** As a worker's clock: what somebody else holds at the moment is left for the next tick. */
async function tick(): Promise<void> {
  const [{ settled }] = await rig.sql<[{ settled: number }]>`select settled from pgflow.tick()`
  if (settled === 0) await tick()
}

describe('the children of a step', () => {
  it('are listed with their place, may be followed, and are no root runs', async () => {
    const lines = ['a', 'bb', 'ccc'].map((sku) => ({ sku }))
    const run = await client.startFlow('order', { first: { sku: 'x' }, lines })
    expect(run.steps.first).toMatchObject({ status: 'started', waits_for: 'run' })
    await tick()
    const [first] = await run.step('first').children()
    expectTypeOf(first!).toEqualTypeOf<ChildRow<typeof Line>>()
    expect(first).toMatchObject({
      ...{ flow_slug: 'line', status: 'started', input: { sku: 'x' }, depth: 1 },
      ...{ parent_run_id: run.runId, parent_step_slug: 'first', parent_task_index: 0 },
    })
    const child = await client.getRun<typeof Line>(first!.run_id)
    expect(child.snapshot).toMatchObject({ parent_run_id: run.runId })
    const output = run.step('first').waitForCompletion()
    await rig.settle(child.runId, 'price', { output: 1 })
    await tick()
    expect(await output).toEqual({ price: 1 })
    expect(await child.waitForCompletion()).toEqual({ price: 1 })

    const page = await run.step('lines').children({ limit: 2 })
    const rest = await run.step('lines').children({ afterChild: page.at(-1) })
    expect([...page, ...rest].map(({ input }) => input)).toEqual(lines)
    expect(page).toHaveLength(2)

    const slugs = async (children?: boolean) =>
      (await client.listRuns<typeof Order>(children ? { children } : {})).runs.map(
        ({ flow_slug }) => flow_slug,
      )
    expect(await slugs()).toEqual(['order'])
    expect((await slugs(true)).sort()).toEqual(['line', 'line', 'line', 'line', 'order'])
    const wrong = run.step('lines').children({ limit: 0 })
    await expect(wrong).rejects.toMatchObject({ message: 'limit is 0' })
  })
})
