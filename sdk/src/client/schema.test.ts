import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { PgflowClient } from './client.ts'
import { InvalidInputError } from './errors.ts'
import { type Review, Rig } from './testing/rig.ts'

let rig: Rig
let client: PgflowClient<{ review: typeof Review }>

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

beforeEach(async () => {
  client = new PgflowClient(await rig.user())
})

describe('A schema of the input', () => {
  const schema = z.object({ text: z.string().min(3).toUpperCase() })

  it('refuses before anything is sent, with path and reason', async () => {
    const refused = client.startFlow('review', { text: 'ab' }, { schema })
    await expect(refused).rejects.toThrow(InvalidInputError)
    await expect(refused).rejects.toThrow(/^The input is not what its schema says: \$\.text: Too small/)
    const many = client.startFlows('review', [{ text: 'abc' }, { text: '' }], { schema })
    await expect(many).rejects.toThrow('$.text: Too small')
    expect((await client.listRuns()).runs).toEqual([])
  })

  it('lets pass what it accepts, as it is', async () => {
    const one = await client.startFlow('review', { text: 'abc' }, { schema })
    const [two] = await client.startFlows('review', [{ text: 'def' }], { schema })
    expect([one.input, two!.input]).toEqual([{ text: 'abc' }, { text: 'def' }])
  })
})
