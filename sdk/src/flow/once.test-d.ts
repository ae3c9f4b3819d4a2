import type { TransactionSql } from 'postgres'
import { describe, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { Flow, type OutputOf, type StepOutputOf } from './index.ts'

describe('context.once', () => {
  it('has the type of what is stored', () => {
    new Flow<string>({ slug: 'f' }).step('a', async ({ run }, { once, idempotencyKey }) => {
      expectTypeOf(idempotencyKey).toEqualTypeOf<string>()
      expectTypeOf(await once('x', () => run.length)).toEqualTypeOf<number>()
      expectTypeOf(
        await once('x', async () => ({ at: new Date(), by: run as string | undefined })),
      ).toEqualTypeOf<{
        at: string
        by?: string
      }>()
      expectTypeOf(await once('x', () => {})).toEqualTypeOf<null>()
      // @ts-expect-error a function is no JSON
      await once('x', () => ({ no: () => 1 }))
      // @ts-expect-error nor is a bigint
      await once('x', async () => [1n])
    })
  })

  it('is there for each task of a batch, and a transaction is not', () => {
    new Flow<number[]>({ slug: 'f' }).map({ slug: 'a', batch: { size: 2 } }, (items, { tasks }) => {
      // @ts-expect-error which task would it complete?
      void tasks[0]?.transaction
      return Promise.all(items.map((item, n) => tasks[n]!.once('x', () => item)))
    })
  })
})

describe('context.transaction', () => {
  it('makes the output of its step', () => {
    const flow = new Flow<string>({ slug: 'f' }).step('a', (_, { transaction }) =>
      transaction(async (sql) => {
        expectTypeOf(sql).toEqualTypeOf<TransactionSql>()
        const [row] = await sql<{ id: number }[]>`select 1 as id`
        return { id: row!.id, at: new Date() }
      }),
    )
    expectTypeOf<StepOutputOf<typeof flow, 'a'>>().toEqualTypeOf<{ id: number; at: string }>()
  })

  it('takes what an output schema takes', () => {
    const flow = new Flow<string>({ slug: 'f' }).step(
      { slug: 'a', output: z.object({ is: z.literal('ok') }) },
      (_, { transaction }) => transaction(async () => ({ is: 'ok' as const })),
    )
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ a: { is: 'ok' } }>()
  })

  it('takes JSON only', () => {
    new Flow<string>({ slug: 'f' }).step('a', (_, { transaction }) =>
      // @ts-expect-error a function is no JSON
      transaction(async () => ({ no: () => 1 })),
    )
  })
})
