import { startLocalSupabase } from '@pgflow/local'
import { expect, it } from 'vitest'
import { connect, migrations } from './connect.ts'
import { jainOf, sharesOf } from './fairness.ts'

it('the index is 1 where all get the same, and 1/n where one gets everything', () => {
  expect(jainOf([5, 5, 5, 5])).toBe(1)
  expect(jainOf([9, 0, 0, 0])).toBe(0.25)
})

it('a limit per tenant keeps the flood of one from the others', async () => {
  await using stack = await startLocalSupabase({ migrations: [migrations], fsync: false })
  const sql = connect(stack.dbUrl, 1)
  const limits = [{ by_path: 'run.tenant', running: 1 }]
  const load = { tenants: 20, tasks: 2, slots: 20 }
  const index = async (flow_slug: string, more: object) => {
    await sql`select pgflow.register_flow(${sql.json({ flow_slug, steps: [{ step_slug: 'work' }], ...more })})`
    return jainOf(await sharesOf(sql, flow_slug, load))
  }
  expect(await index('unlimited', {})).toBeLessThan(0.3)
  expect(await index('limited', { limits })).toBeGreaterThan(0.8)
  await sql.end()
})
