/** Random flows, inputs and histories. They are plain data, so that a failing one is printed in full and shrinks. */
import fc from 'fast-check'
import type { Json } from './json.ts'
import type { FlowDefinition, Reaction, StepDefinition } from './model.ts'

const scalar = fc.constantFrom<Json>(null, false, true, 0, 1, -2.5, '', 'x', '123', 'null', '"quoted" \\ü')

const array = fc.oneof(
  { weight: 5, arbitrary: fc.array(scalar, { maxLength: 4 }) },
  { weight: 2, arbitrary: fc.constantFrom<Json[]>([], [[]], [[1], { a: 1 }]) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 20, max: 45 }).map((n) => Array.from({ length: n }, (_, i) => i)),
  },
)

/** What runs are given and handlers return: mostly what maps and conditions can do something with. */
const value = fc.oneof(
  { weight: 3, arbitrary: array },
  { weight: 3, arbitrary: scalar },
  { weight: 2, arbitrary: array.map((items): Json => ({ items, a: { b: items } })) },
  { weight: 1, arbitrary: scalar.map((a): Json => ({ items: [], a })) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Json>({}, { items: null }, { a: { b: null } }, { items: { a: 1 } }),
  },
)

const fragment = fc.constantFrom<Json>(
  null,
  false,
  0,
  '',
  {},
  [],
  [1],
  { items: [] },
  { items: [null] },
  { a: {} },
)

const condition = sometimes(4, fc.record({ of: fc.nat(5), fragment }))
const reaction = fc.constantFrom<Reaction>('skip-cascade', 'skip', 'fail')

const rawStep = fc.record({
  deps: fc.array(fc.nat(6), { maxLength: 3 }),
  map: sometimes(
    2,
    fc.record({ source: fc.nat(3), path: fc.constantFrom<string[]>([], [], ['items'], ['a', 'b']) }),
  ),
  runIf: condition,
  runUnless: condition,
  whenUnmet: fc.oneof({ weight: 3, arbitrary: fc.constantFrom<Reaction>('skip-cascade', 'skip') }, reaction),
  whenExhausted: reaction,
  maxAttempts: fc.integer({ min: 1, max: 3 }),
  startDelay: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 3600),
})

/** A DAG of one to eight steps; a step waits for some that come before it. */
export const flow: fc.Arbitrary<FlowDefinition> = fc
  .array(rawStep, { minLength: 1, maxLength: 8, size: 'max' })
  .map((steps) => steps.map(stepDefinition))

function stepDefinition(
  raw: typeof rawStep extends fc.Arbitrary<infer T> ? T : never,
  n: number,
): StepDefinition {
  const deps = n === 0 ? [] : [...new Set(raw.deps.map((dep) => `s${dep % n}`))]
  const names = ['run', ...deps]
  const nameOf = (k: number) => names[k % names.length]!
  const fragmentOf = ({ of, fragment }: { of: number; fragment: Json }): Json =>
    of === 5 ? {} : { [nameOf(of)]: fragment }
  return {
    slug: `s${n}`,
    deps,
    ...(raw.map && { map: { source: nameOf(raw.map.source + deps.length), path: raw.map.path } }),
    ...(raw.runIf && { runIf: fragmentOf(raw.runIf) }),
    ...(raw.runUnless && { runUnless: fragmentOf(raw.runUnless) }),
    whenUnmet: raw.whenUnmet,
    whenExhausted: raw.whenExhausted,
    maxAttempts: raw.maxAttempts,
    startDelay: raw.startDelay,
  }
}

/** How a task ends; `of` says which: the nth of those that are claimed, or of all that ever were. */
const pick = fc.record({
  of: fc.nat(50),
  among: fc.constantFrom<'claimed' | 'all'>('claimed', 'claimed', 'claimed', 'all'),
  attempt: fc.constantFrom<'current' | 'older' | 'newer' | 'none'>(
    ...Array.from({ length: 8 }, () => 'current' as const),
    'older',
    'newer',
    'none',
  ),
  ending: fc.oneof(
    { weight: 8, arbitrary: fc.record({ output: value }) },
    {
      weight: 3,
      arbitrary: fc.record(
        {
          error: fc.constantFrom('broken', 'lost', 'odd'),
          retryDelay: fc.constantFrom(0, 3600),
          permanent: fc.boolean(),
        },
        { requiredKeys: ['error'] },
      ),
    },
  ),
})
export type Pick = typeof pick extends fc.Arbitrary<infer T> ? T : never

const picks = fc.array(pick, { minLength: 1, maxLength: 8 })
const quantity = fc.constantFrom<number>(1, 2, 5, 100)
const run = fc.nat(9)
const delay = fc.constantFrom(0, 0, 0, 3600)

/** Something that happens to the runs of a flow. */
const operation = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('claim'), quantity }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('settle'), picks }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('settleAndClaim'), picks, quantity }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('settleByHand'), pick }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('elapse'), of: fc.option(fc.nat(50)) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel'), run }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('retry'), run }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('start'), input: value, delay }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('startMany'), inputs: fc.array(value, { maxLength: 3 }), delay }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('startAgain'), run, input: sometimes(2, value) }) },
)
export type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never

/** A flow, the inputs of the first runs of it, and what happens to them. */
export const history = fc.record({
  flow,
  inputs: fc.array(value, { minLength: 1, maxLength: 2 }),
  operations: fc.array(operation, { maxLength: 16, size: 'max' }),
})
export type History = typeof history extends fc.Arbitrary<infer T> ? T : never

/** Something once in so many times, else nothing. */
function sometimes<T>(times: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: times - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary })
}
