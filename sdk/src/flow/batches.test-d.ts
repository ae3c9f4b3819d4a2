import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import { Flow, type ItemResult, type OutputOf, type StepInputOf, type StepOutputOf, type } from './index.ts'

interface Doc {
  id: number
  text: string
}

/** What looks like an error, and is data. */
type Message = { name: string; message: string }

const Import = new Flow({ slug: 'import' })
  .input<{ documents: Doc[]; tenant: string }>()
  .resources<{ embed: (texts: string[]) => Promise<number[][]> }>()

const batch = { size: 100, wait: '50ms' } as const

describe('a batch handler', () => {
  test('of a map gets items and returns results, and the output is one for each', () => {
    const flow = Import.map(
      { slug: 'vectors', items: 'run.documents', batch },
      async (documents, context) => {
        expectTypeOf(documents).toEqualTypeOf<readonly Doc[]>()
        return context.resources.embed(documents.map(({ text }) => text))
      },
    ).step('end', ['vectors'], ({ vectors }) => {
      expectTypeOf(vectors).toEqualTypeOf<number[][]>()
      return vectors.length
    })
    expectTypeOf<StepInputOf<typeof flow, 'vectors'>>().toEqualTypeOf<Doc>()
    expectTypeOf<StepOutputOf<typeof flow, 'vectors'>>().toEqualTypeOf<number[][]>()
  })

  test('of a map that collects failures has outputs that say so', () => {
    const options = {
      slug: 'a',
      items: 'run.documents',
      batch,
      whenItemFails: 'collect',
      tolerate: 3,
    } as const
    const flow = Import.map(options, (documents) => documents.map(({ id }) => id))
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ a: ItemResult<number>[] }>()
  })

  test('of a step gets the payloads of several runs', () => {
    const flow = Import.step({ slug: 'a', batch: { size: 10 } }, (payloads) => {
      expectTypeOf(payloads).toEqualTypeOf<readonly { run: { documents: Doc[]; tenant: string } }[]>()
      return payloads.map(({ run }) => ({ tenant: run.tenant, at: new Date() }))
    })
      .step('b', ['a'], (payloads) => payloads.map(({ a }) => a.at), { batch })
      .step('c', (payloads) => payloads.map(({ run }) => run.tenant.length), { batch })
    expectTypeOf<StepOutputOf<typeof flow, 'a'>>().toEqualTypeOf<{ tenant: string; at: string }>()
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ b: string; c: number }>()
  })

  test('needs no payload, and may return errors, which are no outputs', () => {
    const flow = Import.step({ slug: 'a', batch }, (payloads) =>
      payloads.map(({ run }) => (run.tenant === '' ? new TypeError('who?') : run.tenant)),
    )
      .step({ slug: 'b', batch }, () => [1, new Error('2')])
      .step({ slug: 'c', batch }, async (): Promise<(Message | Error)[]> => [new Error('3')])
      .step({ slug: 'd', batch }, () => [undefined])
      .step({ slug: 'e', batch }, () => [new Error('always')])
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{
      a: string
      b: number
      c: Message
      d: null
      e: never
    }>()
  })

  test('has a context for all, and one for each task', () => {
    Import.map(
      { slug: 'a', items: 'run.documents', batch, progress: type<{ page: number }>() },
      async (documents, context) => {
        expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>()
        expectTypeOf(context.stepSlug).toEqualTypeOf<string>()
        for (const { runId, attempt, taskIndex, progress, payload, signal } of context.tasks) {
          expectTypeOf([attempt, taskIndex]).toEqualTypeOf<number[]>()
          expectTypeOf(runId).toEqualTypeOf<string>()
          expectTypeOf(signal).toEqualTypeOf<AbortSignal>()
          expectTypeOf((await payload()).run.tenant).toEqualTypeOf<string>()
          progress(0.5, { page: 1 })
          // @ts-expect-error the flow says another type
          progress(0.5, { page: 'one' })
        }
        // @ts-expect-error a batch has tasks of several attempts
        context.attempt
        // @ts-expect-error a batch has tasks of several runs
        context.runId
        // @ts-expect-error a batch has several tasks
        context.taskIndex
        // @ts-expect-error each task has its own progress
        context.progress
        // @ts-expect-error each task has its own payload
        context.payload
        return documents.map(() => 1)
      },
    )
  })

  test('has schemas of each payload and each result', () => {
    const flow = new Flow({ slug: 'f', input: z.object({ at: z.iso.datetime() }) }).step(
      {
        slug: 'a',
        batch,
        input: z.object({ run: z.object({ at: z.coerce.date() }) }),
        output: z.object({ kind: z.enum(['a', 'b']), n: z.number().default(1) }),
      },
      (payloads) => {
        expectTypeOf(payloads).toEqualTypeOf<readonly { run: { at: Date } }[]>()
        return payloads.map(({ run }) => (run.at.getTime() > 0 ? { kind: 'a' } : new Error('too old')))
      },
    )
    expectTypeOf<OutputOf<typeof flow>>().toEqualTypeOf<{ a: { kind: 'a' | 'b'; n: number } }>()
    Import.step(
      { slug: 'a', batch, output: z.object({ n: z.number() }) },
      // @ts-expect-error n is a number
      (payloads) => payloads.map(() => ({ n: 'one' })),
    )
  })

  test('returns an array of JSON', () => {
    // @ts-expect-error one result for all
    Import.step({ slug: 'a', batch }, (payloads) => payloads.length)
    // @ts-expect-error nothing
    Import.step({ slug: 'a', batch }, async () => {})
    // @ts-expect-error a bigint is not JSON
    Import.step({ slug: 'a', batch }, (payloads) => payloads.map(() => 1n))
    // @ts-expect-error promises
    Import.step({ slug: 'a', batch }, (payloads) => payloads.map(async () => 1))
    // @ts-expect-error it takes an array
    Import.step({ slug: 'a', batch }, ({ run }) => [run.tenant])
    // @ts-expect-error without batch it gets one payload
    Import.step({ slug: 'a' }, (payloads) => payloads.map(() => 1))
    // @ts-expect-error without batch, an error is thrown
    Import.step({ slug: 'a' }, () => [new Error('x')])
    // @ts-expect-error items are documents
    Import.map({ slug: 'a', items: 'run.documents', batch }, (numbers: readonly number[]) => numbers)
  })

  test('has a size and a wait', () => {
    const none = () => []
    // @ts-expect-error the size is missing
    Import.step({ slug: 'a', batch: { wait: '1s' } }, none)
    // @ts-expect-error there is no option waits
    Import.step({ slug: 'a', batch: { size: 1, waits: '1s' } }, none)
    // @ts-expect-error it is no duration
    Import.step({ slug: 'a', batch: { size: 1, wait: 'soon' } }, none)
    // @ts-expect-error the size is a number
    Import.map({ slug: 'a', items: 'run.documents', batch: { size: '10' } }, none)
    // @ts-expect-error it is an object
    Import.step('a', none, { batch: 10 })
    // @ts-expect-error no worker runs a wait
    Import.wait({ slug: 'a', batch })
    // @ts-expect-error no worker runs a sleep
    Import.sleep({ slug: 'a', for: '1d', batch })
    // @ts-expect-error steps have batches, flows do not
    new Flow({ slug: 'f', batch })
    const size: number = Math.random()
    Import.step({ slug: 'a', batch: { size } }, (payloads) => payloads.map(({ run }) => run.tenant))
  })
})
