/** Random flows, inputs and histories. They are plain data, so that a failing one is printed in full and shrinks. */
import fc from 'fast-check'
import type {
  FlowDefinition,
  LimitDefinition,
  LimitUse,
  Reaction,
  StepDefinition,
  TimedOut,
} from './definition.ts'
import type { Json } from './json.ts'

type Drawn<A> = A extends fc.Arbitrary<infer T> ? T : never

/** One of several, each as often as its weight says; shrinks towards the first. */
function weighted<T>(...choices: [weight: number, arbitrary: fc.Arbitrary<T>][]): fc.Arbitrary<T> {
  return fc.oneof(...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })))
}

/** Something once in so many times, else nothing. */
function sometimes<T>(times: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return weighted<T | undefined>([times - 1, fc.constant(undefined)], [1, arbitrary])
}

const scalar = fc.constantFrom<Json>(null, false, true, 0, 1, -2.5, '', 'x', '123', 'null', '"quoted" \\ü')
const sequence = (length: number): Json[] => Array.from({ length }, (_, n) => n)

const array = weighted<Json>(
  [6, fc.array(scalar, { maxLength: 4 })],
  [2, fc.constantFrom<Json[]>([], [[]], [[1], { a: 1 }])],
  [1, fc.integer({ min: 20, max: 45 }).map(sequence)],
)
/** A time that is past, or two hours into the year of half of the histories. */
const time = weighted<Json>(
  [3, fc.constantFrom<Json>(0, '2000-01-01')],
  [5, fc.constantFrom<Json>(Date.UTC(2100) / 1000 + 7200, '2100-01-01T02:00:00Z')],
  [1, fc.constantFrom<Json>('soon', null, [0])],
)
/** What runs are mostly given; `kids` are for runs that they start. */
const objectWith = (kids: fc.Arbitrary<Json>): fc.Arbitrary<Json> =>
  fc
    .record({ items: array, b: array, at: time, kids })
    .map(({ items, b, at, kids }): Json => ({ items, a: { b }, at, kids }))
const kid = objectWith(fc.constantFrom<Json[]>([], [{}], [{ items: [1], a: { b: [] } }, 'x']))
const object = objectWith(fc.array(kid, { maxLength: 3 }))
const oddity = fc.constantFrom<Json>(
  {},
  { items: null },
  { items: [], a: 1 },
  { items: { a: 1 }, a: { b: {} } },
)

/** What runs are given: mostly what maps can do something with. */
const input = weighted<Json>([12, object], [1, array], [1, scalar], [1, oddity])

/** What handlers return. */
const output = weighted<Json>([8, array], [2, scalar], [1, object], [1, oddity])

const fragment = weighted<Json>(
  [2, fc.constantFrom<Json>({}, [], { items: [] }, { a: {} })],
  [1, fc.constantFrom<Json>(null, false, 0, '', [1], [null], { items: [null] })],
)
const condition = sometimes(4, fc.record({ of: fc.nat(5), fragment }))
const reaction = fc.constantFrom<Reaction>('skip-cascade', 'skip', 'fail')

const wait = fc.record({
  timeout: fc.constantFrom(null, 60, 3600),
  whenTimedOut: fc.constantFrom<TimedOut>('fail', 'skip', 'skip-cascade', 'complete'),
  timedOutOutput: fc.constantFrom<Json>([1], 'x'),
})
const sleep = weighted<{ for: number } | { until: string }>(
  [2, fc.record({ for: fc.constantFrom(1, 3600) })],
  [1, fc.constant({ until: 'at' })],
)

/** What flows and steps are limited by: each once, so that no task has more than three keys. */
const limitUse = (limit: number) =>
  fc.record({
    limit: fc.constant(limit),
    by: weighted<readonly string[] | null>(
      [4, fc.constant(null)],
      [2, fc.constantFrom(['run', 'at'], ['run', 'a', 'b'], ['run'])],
    ),
  })
const limits = weighted<LimitUse[]>(
  [2, fc.constant([])],
  [1, fc.tuple(limitUse(1))],
  [1, fc.tuple(limitUse(1), limitUse(2))],
)
const limit = weighted<LimitDefinition>(
  [6, fc.record({ running: fc.constantFrom(1, 1, 2, 4), rate: fc.constant(null) })],
  [
    1,
    fc.record({
      running: fc.constantFrom(null, 2),
      rate: fc.constantFrom([1, 1], [3, 60], [20, 600]),
    }),
  ],
)

const place = fc.record({ source: fc.nat(3), path: sometimes(20, fc.constantFrom([], ['items'])) })

/** A run of an earlier flow, or seldom, at this place, of the flow itself: by one step only, else there would be too many. */
const self = 9
const child = fc.record({
  flow: fc.nat(self),
  isMap: fc.boolean(),
  source: weighted([2, fc.constant(0)], [1, fc.nat(3)]),
  whenParentEnds: weighted<'cancel' | 'leave'>([3, fc.constant('cancel')], [1, fc.constant('leave')]),
})
const loop = fc.record({
  place,
  until: weighted<Json | undefined>(
    [4, fc.constantFrom<Json>([], [1], {}, 'x', false)],
    [1, fc.constant(undefined)],
  ),
  max: fc.constantFrom(1, 2, 3, 5),
  whenExceeded: fc.constantFrom<'fail' | 'complete'>('complete', 'fail'),
})

const rawStep = fc.record({
  limits,
  other: sometimes(3, weighted<Partial<StepDefinition>>([2, fc.record({ wait })], [1, fc.record({ sleep })])),
  child: sometimes(2, child),
  loop: sometimes(5, loop),
  hasUndo: fc.boolean(),
  deps: fc.array(fc.nat(6), { maxLength: 3 }),
  map: sometimes(2, place),
  collect: sometimes(
    3,
    fc.constantFrom<NonNullable<StepDefinition['collect']>>(
      { count: null, share: null },
      { count: 1, share: null },
      { count: null, share: 0.5 },
    ),
  ),
  deadline: sometimes(8, fc.constantFrom(60, 3600)),
  concurrency: weighted<number | null>([2, fc.constant(null)], [1, fc.constantFrom(1, 4, 15)]),
  runIf: condition,
  runUnless: condition,
  whenUnmet: weighted<Reaction>([5, fc.constantFrom('skip-cascade', 'skip')], [1, reaction]),
  whenExhausted: reaction,
  maxAttempts: fc.integer({ min: 1, max: 3 }),
  baseDelay: fc.constantFrom(0, 5, 0.5),
  startDelay: weighted([9, fc.constant(0)], [1, fc.constant(3600)]),
})

/** A DAG of one to so many steps; a step waits for some that come before it. Half of the flows have no limits, most no undo. */
const rawFlow = (maxLength: number) =>
  fc.record({
    steps: fc.array(rawStep, { minLength: 1, maxLength, size: 'max' }),
    isLimited: fc.boolean(),
    canUndo: sometimes(2, fc.constant(true)),
    limits: sometimes(2, fc.tuple(limitUse(0))),
    deadline: sometimes(8, fc.constantFrom(60, 7200)),
  })

/** A flow that comes after so many others, whose runs it may start. */
function flowDefinition({ steps, ...raw }: Drawn<ReturnType<typeof rawFlow>>, place: number): FlowDefinition {
  const limits = (raw.isLimited && raw.limits) || []
  const definitions = steps.map((step, n) => {
    const { hasUndo, ...definition } = limited(
      stepDefinition(step, n, place),
      raw.isLimited,
      3 - limits.length,
    )
    return raw.canUndo && hasUndo ? { ...definition, hasUndo } : definition
  })
  return { steps: definitions, limits, deadline: raw.deadline ?? null }
}

/** One flow, or a small one or two with another that starts runs of them. */
const flows = weighted<Drawn<ReturnType<typeof rawFlow>>[]>(
  [5, fc.tuple(rawFlow(8))],
  [4, fc.tuple(rawFlow(3), rawFlow(6))],
  [1, fc.tuple(rawFlow(2), rawFlow(3), rawFlow(4))],
).map((raw) => raw.map(flowDefinition))

/** No task has more than so many keys. */
function limited(step: StepDefinition, isLimited: boolean, keys: number): StepDefinition {
  const limits = isLimited ? step.limits : []
  const concurrency = isLimited && limits.length < keys ? step.concurrency : null
  return { ...step, limits, concurrency }
}

function stepDefinition(raw: Drawn<typeof rawStep>, n: number, place: number): StepDefinition {
  const { runIf, runUnless, concurrency, collect, deadline, ...rest } = raw
  const { map: _map, other: _other, child: _child, loop: _loop, ...options } = rest
  const deps = n === 0 ? [] : [...new Set(raw.deps.map((dep) => `s${dep % n}`))]
  const names = [...deps, 'run']
  const nameOf = (k: number) => names[k % names.length]!
  const fragmentOf = ({ of, fragment }: { of: number; fragment: Json }): Json =>
    of === 5 ? {} : { [nameOf(of)]: fragment }
  const kind = kindOf(raw, n, place, nameOf)
  const isOther = (kind.wait ?? kind.sleep) !== undefined
  return {
    ...options,
    hasUndo: raw.hasUndo && !isOther && !kind.child,
    slug: `s${n}`,
    deps,
    limits: isOther
      ? []
      : raw.limits.map((use, k) => (use.by && k === 1 && deps[0] ? { ...use, by: [deps[0]] } : use)),
    concurrency: kind.map ? concurrency : null,
    collect: (kind.map && collect) || null,
    deadline: (!isOther && deadline) || null,
    ...kind,
    ...(runIf && { runIf: fragmentOf(runIf) }),
    ...(runUnless && { runUnless: fragmentOf(runUnless) }),
  }
}

/** What does the work of a step, or what it waits for. */
function kindOf(
  { other, child, loop, map }: Drawn<typeof rawStep>,
  n: number,
  place: number,
  nameOf: (n: number) => string,
): Partial<StepDefinition> {
  if (other) return other
  const isOfItself = child?.flow === self && n === 0
  if (child && (place > 0 || isOfItself)) {
    const isMap = child.isMap && !isOfItself
    const source = nameOf(child.source)
    const input = { source, path: isMap && source === 'run' ? ['kids'] : [] }
    const flow = isOfItself ? place : child.flow % place
    return {
      child: { flow, input, whenParentEnds: child.whenParentEnds },
      ...(isMap && { map: input }),
    }
  }
  if (loop) {
    const { place, until, max, whenExceeded } = loop
    const start = sourceOf(nameOf(place.source), place.path)
    // One without an end completes when it has taken all its turns.
    return until === undefined
      ? { loop: { start, max, whenExceeded: 'complete' } }
      : { loop: { start, until, max, whenExceeded } }
  }
  return map ? { map: sourceOf(nameOf(map.source), map.path) } : {}
}

/** Where a source mostly has an array, or somewhere else. */
function sourceOf(source: string, path: readonly string[] | undefined) {
  return { source, path: path ?? (source === 'run' ? ['a', 'b'] : []) }
}

const failure = fc.record(
  {
    error: fc.constantFrom('broken', 'lost', 'odd'),
    retryDelay: fc.constantFrom(0, 90, 3600),
    permanent: weighted([3, fc.constant(false)], [1, fc.constant(true)]),
    uncounted: weighted([3, fc.constant(false)], [1, fc.constant(true)]),
  },
  { requiredKeys: ['error'] },
)
const ending = weighted<{ output: Json } | Drawn<typeof failure>>([4, fc.record({ output })], [1, failure])

/** How a task ends: the nth of those that are claimed, or of all that ever were. */
const pick = fc.record({
  of: fc.nat(50),
  among: weighted<'claimed' | 'all'>([5, fc.constant('claimed')], [1, fc.constant('all')]),
  attempt: weighted<'current' | 'older' | 'newer' | 'none'>(
    [12, fc.constant('current')],
    [1, fc.constant('older')],
    [1, fc.constant('newer')],
    [1, fc.constant('none')],
  ),
  ending,
})
export type Pick = Drawn<typeof pick>

const picks = fc.array(pick, { minLength: 1, maxLength: 10 })
const quantity = fc.constantFrom<number>(1, 2, 5, 100)
const delay = weighted([4, fc.constant(0)], [1, fc.constant(3600)])
const run = fc.nat(9)
const task = fc.nat(50)
/** One of the flows, counted from the last one. */
const of = fc.constantFrom(0, 0, 0, 1, 2)
/** One of the flows, or all of them. */
const from = weighted<number | 'all'>([2, fc.nat(5)], [1, fc.constant('all')])

const operations = {
  claim: fc.record({ from, quantity }),
  poll: fc.record({ of, quantity }),
  settle: fc.record({ picks }),
  settleAndClaim: fc.record({ picks, from, quantity }),
  settleByHand: fc.record({ pick }),
  extend: fc.record({ task, attempt: pick.map(({ attempt }) => attempt) }),
  handBack: fc.record({ task, attempt: pick.map(({ attempt }) => attempt) }),
  /** Ends the wait of one message, or of all. */
  elapse: fc.record({ task: sometimes(2, task) }),
  completeWait: fc.record({ wait: task, value: fc.constantFrom<Json>([1], [2], 'x') }),
  rejectWait: fc.record({ wait: task, reason: fc.constantFrom('no', 'never') }),
  tick: fc.record({}),
  /** The engine's clock jumps. */
  jump: fc.record({ seconds: fc.constantFrom(1, 60, 3600, 100_000, -3600) }),
  setLimit: fc.record({ limit: fc.nat(2), running: fc.integer({ min: 1, max: 5 }) }),
  cancel: fc.record({
    run,
    undo: fc.boolean(),
  }),
  retry: fc.record({ run }),
  start: fc.record({ of, input, delay }),
  startMany: fc.record({ of, inputs: fc.array(input, { maxLength: 3 }), delay }),
  startAgain: fc.record({ run, input: sometimes(2, input) }),
}

type Operations = { [Kind in keyof typeof operations]: { do: Kind } & Drawn<(typeof operations)[Kind]> }
/** Something that happens to the runs of a flow. */
export type Operation = Operations[keyof Operations]

const weights: Record<keyof typeof operations, number> = {
  claim: 4,
  poll: 1,
  settle: 5,
  settleAndClaim: 8,
  settleByHand: 2,
  extend: 1,
  handBack: 2,
  elapse: 3,
  completeWait: 4,
  rejectWait: 1,
  tick: 3,
  jump: 3,
  setLimit: 2,
  cancel: 2,
  retry: 3,
  start: 1,
  startMany: 1,
  startAgain: 1,
}

const operation = weighted<Operation>(
  ...Object.entries(operations).map(([kind, arbitrary]): [number, fc.Arbitrary<Operation>] => [
    weights[kind as keyof typeof operations],
    (arbitrary as fc.Arbitrary<object>).map((it) => ({ do: kind, ...it }) as Operation),
  ]),
)

/** Some flows, what runs of them start with, and what happens to them at a time long past or yet to come. */
export const history = fc.record({
  limits: fc.tuple(limit, limit, limit),
  flows,
  starts: fc.array(fc.record({ of, input }), { minLength: 1, maxLength: 3 }),
  year: fc.constantFrom(2020, 2100),
  operations: fc.array(operation, { maxLength: 16, size: 'max' }),
  /** How it ends: one of so many tasks fails at first, a run is cancelled, and what has not completed is retried. */
  finish: fc.record({
    failing: fc.constantFrom(0, 0, 4, 3, 2),
    isCancelled: sometimes(3, fc.constant(true)).map((it) => it ?? false),
    retries: fc.constantFrom(0, 0, 0, 1, 2),
  }),
})
export type History = Drawn<typeof history>

const meddling = fc.record({
  do: fc.constantFrom<'cancel' | 'retry'>('cancel', 'retry'),
  run,
  undo: fc.boolean(),
})

/** Flows whose tasks all end as planned, while several workers and somebody who meddles are at it at once. */
export const commotion = fc.record({
  limits: fc.tuple(limit, limit, limit),
  flows,
  inputs: fc.array(input, { minLength: 1, maxLength: 4 }),
  endings: fc.array(ending, { minLength: 1, maxLength: 12 }),
  workers: fc.array(quantity, { minLength: 2, maxLength: 3 }),
  meddling: weighted<Drawn<typeof meddling>[]>(
    [1, fc.constant([])],
    [1, fc.array(meddling, { maxLength: 6 })],
  ),
})
export type Commotion = Drawn<typeof commotion>
