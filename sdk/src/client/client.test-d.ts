import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { describe, expectTypeOf, it } from 'vitest'
import { type AnyFlow, Flow } from '../flow/index.ts'
import { type Json, PgflowClient, type Run, type RunEvent, type StepStatus } from './index.ts'

const Review = new Flow<{ path: string; since?: Date }>({ slug: 'review' })
  .step('read', async ({ run }) => ({ text: run.path, at: new Date() }))
  .step('words', ['read'], ({ read }) => read.text.length)
  .step('report', ['words'], ({ words }) => words > 0)

type Database = {
  public: {
    Tables: {
      notes: { Row: { id: number }; Insert: { id: number }; Update: { id?: number }; Relationships: [] }
    }
    Views: Record<never, never>
    Functions: { now: { Args: Record<never, never>; Returns: string } }
  }
}

declare const supabase: SupabaseClient
declare const client: PgflowClient
declare const run: Run<typeof Review>

describe('PgflowClient', () => {
  it('takes any supabase-js client', () => {
    new PgflowClient(supabase)
    new PgflowClient(createClient('', ''))
    new PgflowClient(createClient<Database>('', ''))
    new PgflowClient({} as SupabaseClient<any, 'public', any>)
    // @ts-expect-error: the client, not its URL
    new PgflowClient('http://localhost')
  })

  it('takes the input of the flow, and gives a run of it', () => {
    expectTypeOf(client.startFlow<typeof Review>('review', { path: 'a' })).resolves.toEqualTypeOf<
      Run<typeof Review>
    >()
    expectTypeOf(client.getRun<typeof Review>('id')).resolves.toEqualTypeOf<Run<typeof Review>>()
    // @ts-expect-error: the flow takes a path
    void client.startFlow<typeof Review>('review', { paths: 'a' })
    // @ts-expect-error: the flow takes an input
    void client.startFlow<typeof Review>('review')
  })

  it('takes anything for a flow that it does not know', () => {
    expectTypeOf(client.startFlow('any', 1)).resolves.toEqualTypeOf<Run<AnyFlow>>()
    expectTypeOf(client.getRun('id')).resolves.toEqualTypeOf<Run<AnyFlow>>()
  })
})

describe('Run', () => {
  it('has the input and output as JSON keeps them', () => {
    expectTypeOf(run.input).toEqualTypeOf<{ path: string; since?: string }>()
    expectTypeOf(run.output).toEqualTypeOf<{ report: boolean } | null>()
    expectTypeOf(run.waitForCompletion()).resolves.toEqualTypeOf<{ report: boolean }>()
  })

  it('knows its steps', () => {
    expectTypeOf(run.steps).toHaveProperty('words')
    expectTypeOf(run.steps.read.output).toEqualTypeOf<{ text: string; at: string } | null>()
    expectTypeOf(run.steps.read.status).toEqualTypeOf<StepStatus>()
    expectTypeOf(run.step('words').output).toEqualTypeOf<number | null>()
    expectTypeOf(run.step('words').slug).toEqualTypeOf<'words'>()
    expectTypeOf(run.step('words').waitForCompletion()).resolves.toEqualTypeOf<number>()
    // @ts-expect-error: there is no such step
    run.step('word')
  })

  it('has its steps in the snapshot, told apart by their slugs', () => {
    const step = run.snapshot.steps[0]!
    expectTypeOf(step.step_slug).toEqualTypeOf<'read' | 'words' | 'report'>()
    if (step.step_slug === 'words') expectTypeOf(step.output).toEqualTypeOf<number | null>()
  })

  it('tells of events by their types', () => {
    run.on('step:completed', (event) => {
      expectTypeOf(event.type).toEqualTypeOf<'step:completed'>()
      expectTypeOf(event.step_slug).toEqualTypeOf<'read' | 'words' | 'report'>()
      if (event.step_slug === 'report') expectTypeOf(event.output).toEqualTypeOf<boolean>()
    })
    run.on('run:completed', (event) => {
      expectTypeOf(event.step_slug).toEqualTypeOf<null>()
      expectTypeOf(event.output).toEqualTypeOf<{ report: boolean }>()
    })
    run.on('run:failed', (event) => expectTypeOf(event.error).toEqualTypeOf<string>())
    run.on('step:progress', (event) => expectTypeOf(event.progress).toEqualTypeOf<Json>())
    run.on('*', (event) => {
      expectTypeOf(event).toEqualTypeOf<RunEvent<typeof Review>>()
      if (event.type === 'step:retrying') expectTypeOf(event.retry_at).toEqualTypeOf<string>()
      // @ts-expect-error: only some events have an output
      void event.output
    })
    // @ts-expect-error: there is no such type
    run.on('step:done', () => undefined)
    expectTypeOf(run.on('*', () => undefined)).toEqualTypeOf<() => void>()
  })

  it('tells of the events of one step', () => {
    run.step('words').on('completed', (event) => {
      expectTypeOf(event.output).toEqualTypeOf<number>()
      expectTypeOf(event.step_slug).toEqualTypeOf<'words'>()
    })
    run.step('words').on('retrying', (event) => expectTypeOf(event.retries).toEqualTypeOf<number>())
    run.step('words').on('*', (event) => {
      if (event.type === 'step:completed') expectTypeOf(event.output).toEqualTypeOf<number>()
    })
    // @ts-expect-error: that is an event of runs
    run.step('words').on('retried', () => undefined)
  })

  it('goes to functions that take a run of any flow', () => {
    const show = <F extends AnyFlow>({ runId, status, error }: Run<F>) => `${runId} ${status} ${error}`
    show(run)
    show({} as Run)
  })

  it('of an unknown flow has steps that may be there', () => {
    const unknown = {} as Run
    expectTypeOf(unknown.steps.any?.output).toEqualTypeOf<unknown>()
    unknown.on('step:completed', (event) => {
      expectTypeOf(event.step_slug).toEqualTypeOf<string>()
      expectTypeOf(event.output).toEqualTypeOf<unknown>()
    })
    expectTypeOf(unknown.step('any').waitForCompletion()).resolves.toEqualTypeOf<unknown>()
  })
})
