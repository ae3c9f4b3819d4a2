import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  type Context,
  Flow,
  type Json,
  type OutputOf,
  type StepInputOf,
  type StepOutputOf,
  type StepProgressOf,
} from './index.ts'

interface Message {
  role: 'user' | 'assistant'
  text: string
}

const Agent = new Flow({ slug: 'agent' })
  .input<{ goal: string; budget?: number; at: Date }>()
  .resources<{ model: (text: string) => Promise<string> }>()
  .step('plan', () => ({ tasks: ['a'], n: 0 }))
  .step({ slug: 'hint', runIf: { run: { goal: 'x' } }, whenUnmet: 'skip' }, () => ({ n: 1 }))

describe('the state of a loop', () => {
  test('has the type of what it starts with', () => {
    Agent.loop({ slug: 'a', start: 'plan', until: { n: 3 } }, (state) => {
      expectTypeOf(state).toEqualTypeOf<{ tasks: string[]; n: number }>()
      return { ...state, n: state.n + 1 }
    })
    Agent.loop({ slug: 'a', dependsOn: ['plan'], until: { n: 3 } }, (state) => {
      expectTypeOf(state).toEqualTypeOf<{ tasks: string[]; n: number }>()
      return state
    })
    Agent.loop({ slug: 'a', start: 'plan.tasks', until: ['done'] }, (tasks) => {
      expectTypeOf(tasks).toEqualTypeOf<string[]>()
      return tasks.slice(1)
    })
    Agent.loop({ slug: 'a', whenExceeded: 'complete' }, (state) => {
      expectTypeOf(state).toEqualTypeOf<{ goal: string; budget?: number; at: string }>()
      return state
    })
    Agent.loop({ slug: 'a', start: 'run.budget', until: 3 }, (state) => {
      expectTypeOf(state).toEqualTypeOf<number | null>()
      return (state ?? 0) + 1
    })
    Agent.loop({ slug: 'a', start: 'hint', until: { n: 3 } }, (state) => {
      expectTypeOf(state).toEqualTypeOf<{ n: number } | null>()
      return { n: (state?.n ?? 0) + 1 }
    })
    new Flow({ slug: 'f' }).loop({ slug: 'a', until: 1 }, (state) => {
      expectTypeOf(state).toEqualTypeOf<Json>()
      return 1
    })
  })

  test('is a wider one where the handler says so', () => {
    interface State {
      goal: string
      messages?: Message[]
      answer?: string
    }
    const Wide = Agent.loop(
      { slug: 'a', start: 'run', until: { answer: 'yes' } },
      async (state: State): Promise<State> => state,
    )
    expectTypeOf<StepOutputOf<typeof Wide, 'a'>>().toEqualTypeOf<State>()
    expectTypeOf<StepInputOf<typeof Wide, 'a'>>().toEqualTypeOf<State>()
    const hasTasks = (state: { goal: string; tasks: string[] }) => state
    // @ts-expect-error the first turn has no tasks
    Agent.loop({ slug: 'a', start: 'run', until: { goal: '' } }, hasTasks)
    const hasBudget = (state: { goal: string; budget: number }) => state
    // @ts-expect-error the first turn may have no budget
    Agent.loop({ slug: 'a', start: 'run', until: { goal: '' } }, hasBudget)
  })

  test('is what each turn returns', () => {
    // @ts-expect-error the next turn needs tasks, too
    Agent.loop({ slug: 'a', start: 'plan', until: { n: 3 } }, (state) => ({ n: state.n + 1 }))
    // @ts-expect-error a promise of it neither
    Agent.loop({ slug: 'a', start: 'plan', until: { n: 3 } }, async (state) => ({ n: state.n + 1 }))
    // @ts-expect-error the next turn gets null
    Agent.loop({ slug: 'a', start: 'plan', whenExceeded: 'complete' }, () => {})
    const hasDate = (state: { goal: string; at?: Date }) => state
    // @ts-expect-error at arrives as a string
    Agent.loop({ slug: 'a', start: 'run', until: { goal: '' } }, hasDate)
    // @ts-expect-error a function is not JSON
    Agent.loop({ slug: 'a', start: 'plan.n', until: { n: 3 } }, () => () => 1)
    const add = (state: { n: number }) => ({ n: state.n + 1, done: state.n > 1 })
    const Added = Agent.loop({ slug: 'a', start: 'plan', until: { done: true } }, (state) => ({
      ...state,
      ...add(state),
    }))
    expectTypeOf<StepOutputOf<typeof Added, 'a'>>().toEqualTypeOf<{
      n: number
      done: boolean
      tasks: string[]
    }>()
    expectTypeOf<OutputOf<typeof Added>['a']>().toEqualTypeOf<{ n: number; done: boolean; tasks: string[] }>()
    expectTypeOf<StepProgressOf<typeof Added, 'a'>>().toExtend<
      { value: number; task_index: number } | { done: number; total: number } | null
    >()
  })

  test('goes through the schemas at each turn', () => {
    const state = z.object({ n: z.number(), at: z.coerce.date().optional() })
    const Checked = Agent.loop(
      { slug: 'a', start: 'plan', input: state, output: z.object({ n: z.number() }), until: { n: 3 } },
      (given) => {
        expectTypeOf(given).toEqualTypeOf<{ n: number; at?: Date | undefined }>()
        return { n: given.n + 1 }
      },
    )
    expectTypeOf<StepOutputOf<typeof Checked, 'a'>>().toEqualTypeOf<{ n: number }>()
    // @ts-expect-error the schema of the input needs n
    Agent.loop({ slug: 'a', start: 'plan', input: z.object({ n: z.number() }), until: { m: 3 } }, () => ({
      m: 1,
    }))
    Agent.loop(
      // @ts-expect-error what this schema makes is no state
      { slug: 'a', start: 'plan', output: z.object({ m: z.number() }), until: { m: 3 } },
      () => ({ m: 1 }),
    )
  })
})

describe('a loop', () => {
  test('ends with a part of what a turn returns', () => {
    // @ts-expect-error no turn returns 'text'
    Agent.loop({ slug: 'a', start: 'plan.n', until: 'text' }, (n) => n + 1)
    // @ts-expect-error no turn returns this property
    Agent.loop({ slug: 'a', start: 'plan', until: { done: true } }, (state) => state)
    // @ts-expect-error n is a number
    Agent.loop({ slug: 'a', start: 'plan', until: { n: 'three' } }, (state) => state)
    // @ts-expect-error null stands for nothing
    Agent.loop({ slug: 'a', start: 'plan', until: null }, () => null)
    // @ts-expect-error it says neither until nor whenExceeded: 'complete'
    Agent.loop({ slug: 'a', start: 'plan' }, (state) => state)
    // @ts-expect-error it would fail after 100 turns
    Agent.loop({ slug: 'a', start: 'plan', whenExceeded: 'fail' }, (state) => state)
  })

  test('has the options of a step', () => {
    const WithAll = Agent.loop(
      {
        slug: 'a',
        dependsOn: ['plan', 'hint'],
        start: 'plan',
        until: { n: 3 },
        max: 25,
        whenExceeded: 'fail',
        maxAttempts: 5,
        startDelay: '1m',
        deadline: '2h',
        limits: [{ by: 'run.goal', running: 1 }],
        runIf: { plan: { n: 0 } },
        whenExhausted: 'skip',
      },
      (state, context) => {
        expectTypeOf(context).toEqualTypeOf<
          Context<
            { model: (text: string) => Promise<string> },
            {
              run: { goal: string; budget?: number; at: string }
              plan: { tasks: string[]; n: number }
              hint?: { n: number }
            }
          >
        >()
        return state
      },
    ).step('b', ['a'], ({ a }) => {
      expectTypeOf(a).toEqualTypeOf<{ tasks: string[]; n: number } | undefined>()
    })
    expectTypeOf<OutputOf<typeof WithAll>>().toHaveProperty('b')
    // @ts-expect-error there is no such step
    Agent.loop({ slug: 'a', start: 'nothing', until: 1 }, () => 1)
    // @ts-expect-error plan has no such property
    Agent.loop({ slug: 'a', start: 'plan.nothing', until: 1 }, () => 1)
    // @ts-expect-error it has several deps
    Agent.loop({ slug: 'a', dependsOn: ['plan', 'hint'], until: 1 }, () => 1)
    // @ts-expect-error there is a step of this name
    Agent.loop({ slug: 'plan', until: 1 }, () => 1)
    // @ts-expect-error only maps have items
    Agent.loop({ slug: 'a', items: 'plan.tasks', until: 1 }, () => 1)
    // @ts-expect-error a loop has no batches
    Agent.loop({ slug: 'a', batch: { size: 2 }, until: 1 }, () => 1)
  })
})
