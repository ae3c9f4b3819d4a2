import { durationForms, secondsOf } from '../shared/duration.ts'
import type {
  AnyFlow,
  FlowOptions,
  FlowSchedule,
  Limit,
  MapSource,
  Singleton,
  StepDefinition,
  StepOptions,
  StepType,
} from './definition.ts'
import { FlowDefinitionError } from './errors.ts'
import { toJson } from './json.ts'
import { versionedSlug } from './version.ts'
import { waitRoles } from './wait.ts'

/** Throws if a flow cannot have this slug, these options or this schema. */
export function checkFlow(slug: string, options: FlowOptions, input: unknown): void {
  checkSlug('flow', slug)
  const subject = `flow '${slug}'`
  checkOptions(subject, options, flowOptions)
  options.schedules?.forEach((schedule, index) => {
    checkSchedule(subject, schedule, options.schedules!.slice(0, index))
  })
  if (options.singleton !== undefined) checkSingleton(subject, options.singleton)
  checkLimits(subject, options.limits, ['run'])
  checkLimitCount(subject, options.limits?.length ?? 0)
  checkSlug('flow', versionedSlug(slug, options.version))
  checkSchema(subject, 'input', input)
}

/** Throws if this step cannot follow those that a flow already has. */
export function checkStep(
  step: StepDefinition,
  earlier: ReadonlyMap<string, StepDefinition>,
  flow: FlowOptions,
): void {
  checkSlug('step', step.slug)
  const subject = `step '${step.slug}'`
  if (earlier.has(step.slug)) {
    throw new FlowDefinitionError(
      'duplicate_step',
      `The flow already has a ${subject}: give this one another slug.`,
    )
  }
  checkDeps(subject, step.deps, earlier)
  const isSubFlow = 'child' in step
  if (step.type === 'map' || isSubFlow) checkItems(subject, step)
  if (step.type === 'loop') checkStart(subject, step.items)
  checkOptions(subject, step.options, (isSubFlow && subFlowOptions[step.type]) || stepOptions[step.type])
  if (isSubFlow) checkChild(subject, step.child)
  checkBatch(subject, step)
  checkUndo(subject, step)
  if (step.type === 'wait') checkWait(subject, step.options)
  if (step.type === 'sleep') checkSleep(subject, step.options)
  if (step.type === 'map') checkTolerate(subject, step.options)
  if (step.type === 'loop') checkEnd(subject, step.options)
  if (step.type !== 'wait' && step.type !== 'sleep') checkTaskLimits(subject, step, flow)
  checkSchema(subject, 'input', step.inputSchema)
  checkSchema(subject, 'output', step.outputSchema)
  if (step.type === 'sql') checkCall(subject, step.options)
  if (!isSubFlow && !handlerless.includes(step.type) && typeof step.handler !== 'function') {
    throw new FlowDefinitionError(
      'invalid_handler',
      `The handler of ${subject} is ${shown(step.handler)}: give it a function (payload, context) => output.`,
    )
  }
}

function checkSchedule(flow: string, schedule: FlowSchedule, earlier: readonly FlowSchedule[]): void {
  const { slug, ...options } = schedule
  checkSlug('schedule', slug)
  const subject = `schedule '${slug}' of ${flow}`
  if (earlier.some((other) => other.slug === slug)) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${flow} already has a schedule '${slug}': give this one another slug.`,
    )
  }
  // A schedule without one is refused, too.
  checkOptions(subject, { ...options, cron: options.cron ?? '' }, scheduleOptions)
}

function checkSlug(kind: 'flow' | 'step' | 'schedule', slug: unknown): void {
  const problem = slugProblem(slug)
  if (problem !== undefined) {
    throw new FlowDefinitionError(
      'invalid_slug',
      `${shown(slug)} cannot be the slug of a ${kind}: ${problem}.`,
    )
  }
}

function slugProblem(slug: unknown): string | undefined {
  if (typeof slug !== 'string') return 'a slug is a string'
  if (slug === 'run') return 'run is the name of the input of a run, choose another'
  if (slug.length > 128) return `it has ${slug.length} characters, shorten it to 128 at most`
  if (!/^[a-zA-Z_][a-zA-Z0-9_]*$/.test(slug)) {
    return 'use letters, digits and underscores only, and no digit at the start'
  }
  return undefined
}

function checkDeps(
  subject: string,
  deps: readonly string[],
  earlier: ReadonlyMap<string, StepDefinition>,
): void {
  if (!Array.isArray(deps)) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option dependsOn of ${subject} is ${shown(deps)}: make it an array of slugs.`,
    )
  }
  const unknown = deps.findIndex((dep) => !earlier.has(dep))
  if (unknown !== -1) {
    const known = earlier.size === 0 ? 'no step' : [...earlier.keys()].join(', ')
    throw new FlowDefinitionError(
      'unknown_dep',
      `The ${subject} depends on ${shown(deps[unknown])}, but before it the flow has ${known}: define the dep first, or correct its name.`,
    )
  }
  const twice = deps.find((dep, index) => deps.indexOf(dep) !== index)
  if (twice !== undefined) {
    throw new FlowDefinitionError(
      'duplicate_dep',
      `The ${subject} names its dep '${twice}' twice: name it once.`,
    )
  }
}

function checkItems(subject: string, { type, items }: StepDefinition): void {
  if (items === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      type === 'map'
        ? `The map ${subject} has several deps: name the one with the array in items.`
        : `The sub-flow ${subject} has several deps: name the one with its input in input.`,
    )
  }
  if (items.path?.split('.').includes('')) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option ${type === 'map' ? 'items' : 'input'} of ${subject} is '${items.source}.${items.path}': make it a path like 'toc.urls'.`,
    )
  }
}

function checkChild(subject: string, child: AnyFlow | string | undefined): void {
  const alias = typeof child === 'object' ? child?.alias : child
  const problem = slugProblem(alias)
  if (problem !== undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option flow of ${subject} is ${shown(child)}: make it a flow, or the slug of one.`,
    )
  }
  if (typeof child === 'object' && child.options.singleton !== undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} starts the flow '${alias}', which has a singleton: take one without, since a run that waits for others, or is another's, cannot be a child.`,
    )
  }
}

function checkStart(subject: string, start: MapSource | undefined): void {
  if (start === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The loop ${subject} has several deps: name the one with its first state in start.`,
    )
  }
  if (start.path?.split('.').includes('')) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option start of ${subject} is '${start.source}.${start.path}': make it a path like 'plan.tasks'.`,
    )
  }
}

function checkEnd(subject: string, { until, whenExceeded }: StepOptions): void {
  if (until === undefined && whenExceeded !== 'complete') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The loop ${subject} does not say when it ends: give it until, such as until: { done: true }, or whenExceeded: 'complete'.`,
    )
  }
}

function checkWait(subject: string, { timeout, whenTimedOut }: StepOptions): void {
  if (whenTimedOut !== undefined && timeout === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} has whenTimedOut but no timeout: give it one, such as timeout: '48h'.`,
    )
  }
}

function checkBatch(subject: string, { type, batch }: StepDefinition): void {
  if (batch === undefined) return
  checkOptions(subject, { batch }, stepOptions[type])
  // Without a size it is refused, too.
  checkOptions(`batch of ${subject}`, { ...batch, size: batch.size ?? null }, batchOptions)
}

function checkUndo(subject: string, { type, undo }: StepDefinition): void {
  if (undo === undefined) return
  if (type !== 'single' && type !== 'map') checkOptions(subject, { undo } as StepOptions, stepOptions[type])
  if (typeof undo.handler !== 'function') {
    throw new FlowDefinitionError(
      'invalid_handler',
      `The undo of ${subject} is ${shown(undo.handler)}: give it a function ({ run, output }, context) => …, or { handler, maxAttempts, … }.`,
    )
  }
  checkOptions(`undo of ${subject}`, undo.options, undoOptions)
}

function checkSleep(subject: string, options: StepOptions): void {
  if ((options.for === undefined) === (options.until === undefined)) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} needs either for ('3d') or until ('run.remind_at'): give it one of them.`,
    )
  }
}

function checkCall(subject: string, { call }: StepOptions): void {
  if (call === undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} does not say what it calls: give it the name of a function, such as call: 'public.save_embeddings'.`,
    )
  }
}

function checkTolerate(subject: string, { whenItemFails, tolerate }: StepOptions): void {
  if (tolerate !== undefined && whenItemFails !== 'collect') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} has tolerate, but fails with its first failed item: give it whenItemFails: 'collect'.`,
    )
  }
}

function checkSingleton(flow: string, singleton: Singleton): void {
  checkOptions(`singleton of ${flow}`, singleton, singletonOptions)
  if (singleton.wait !== undefined && singleton.whenBusy !== 'after') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The singleton of ${flow} has wait: give it whenBusy: 'after', or leave it out.`,
    )
  }
  if (singleton.key !== undefined) checkSource(`key of singleton of ${flow}`, singleton.key, ['run'])
}

/** With those of the flow, and that of a map's concurrency. */
function checkTaskLimits(subject: string, { deps, options }: StepDefinition, flow: FlowOptions): void {
  checkLimits(subject, options.limits, ['run', ...deps])
  const own = options.limits ?? []
  const twice = own.find(
    ({ name }) => name !== undefined && flow.limits?.some((other) => other.name === name),
  )
  if (twice !== undefined) {
    throw new FlowDefinitionError(
      'invalid_option',
      `The ${subject} has the limit '${twice.name}', which its flow has, too: leave out one of them.`,
    )
  }
  const others = (flow.limits?.length ?? 0) + (options.concurrency === undefined ? 0 : 1)
  checkLimitCount(subject, own.length + others)
}

function checkLimitCount(subject: string, count: number): void {
  if (count <= 3) return
  throw new FlowDefinitionError(
    'invalid_option',
    `The ${subject} has ${count} limits, with those of its flow and its concurrency: give it three at most.`,
  )
}

function checkLimits(subject: string, limits: readonly Limit[] = [], sources: readonly string[]): void {
  limits.forEach((limit, index) => {
    const name = `limit ${limit.name === undefined ? index + 1 : shown(limit.name)} of ${subject}`
    checkOptions(name, limit, limitOptions)
    if (limit.running === undefined && limit.rate === undefined) {
      throw new FlowDefinitionError(
        'invalid_option',
        `The ${name} has neither running nor rate: give it running: 5, rate: [3000, '1m'], or both.`,
      )
    }
    if (limit.name !== undefined && limits.findIndex((other) => other.name === limit.name) !== index) {
      throw new FlowDefinitionError('invalid_option', `The ${subject} has the ${name} twice: give it once.`)
    }
    if (limit.by !== undefined) checkSource(`by of ${name}`, limit.by, sources)
  })
}

function checkSource(option: string, path: string, sources: readonly string[]): void {
  if (sources.includes(path.split('.')[0]!)) return
  throw new FlowDefinitionError(
    'invalid_option',
    `The option ${option} is ${shown(path)}: begin it with ${sources.join(', ')}.`,
  )
}

function checkSchema(subject: string, name: string, schema: unknown): void {
  if (schema === undefined) return
  const standard = (schema as { '~standard'?: { validate?: unknown } } | null)?.['~standard']
  if (typeof standard?.validate !== 'function') {
    throw new FlowDefinitionError(
      'invalid_option',
      `The option ${name} of ${subject} is ${shown(schema)}: make it a Standard Schema, as zod, valibot and arktype have them.`,
    )
  }
}

const handlerless: readonly StepType[] = ['wait', 'sleep', 'sql']

type Check = readonly [isValid: (value: unknown) => boolean, wanted: string]

const largest = 2_147_483_647

const wholeFrom = (least: number): Check => [
  (value) => Number.isInteger(value) && Number(value) >= least && Number(value) <= largest,
  `a whole number, ${least} or more`,
]

/** Seconds. */
const longest = 366 * 86_400

const duration: Check = [
  (value) => (secondsOf(value) ?? Number.NaN) <= longest,
  `${durationForms}, a year at most`,
]

const wholeSecondsFrom = (least: number): Check => [
  (value) => Number.isInteger(secondsOf(value)) && Number(secondsOf(value)) >= least && duration[0](value),
  `${duration[1]}, in whole seconds, ${least} or more`,
]

const oneOf = (...values: readonly string[]): Check => [
  (value) => values.includes(value as string),
  `one of ${values.join(', ')}`,
]

const fragment: Check = [
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && isJson(value),
  'an object of JSON values, a part of { run: …, <dep>: … }',
]

const otherwise = oneOf('fail', 'skip', 'skip-cascade')

const webhooks = oneOf('stripe', 'github', 'slack', 'standard')

const limitForm = "an array of limits: { name, by, running: 5, rate: [3000, '1m'] }"

const timing = {
  maxAttempts: wholeFrom(1),
  baseDelay: duration,
  timeout: wholeSecondsFrom(1),
  startDelay: wholeSecondsFrom(0),
}

const flag: Check = [(value) => typeof value === 'boolean', 'true or false']

const objects = (wanted: string): Check => [
  (value) => Array.isArray(value) && value.every((one) => typeof one === 'object' && one !== null),
  wanted,
]

const cron: Check = [
  (value) =>
    typeof value === 'string' &&
    (/^@(hourly|daily|midnight|weekly|monthly|yearly|annually)$/i.test(value) ||
      value.trim().split(/\s+/).length === 5),
  "a cron expression with five fields, such as '30 7 * * mon-fri', or '@hourly', '@daily', '@weekly', '@monthly', '@yearly'",
]

const timeZone: Check = [isTimeZone, "the name of a time zone, such as 'Europe/Berlin' or 'UTC'"]

const scheduleOptions: Record<string, Check> = {
  cron,
  timeZone,
  input: [isJson, 'JSON'],
  overlap: oneOf('skip', 'allow', 'cancel'),
  catchUp: oneOf('last', 'none', 'all'),
  catchUpWindow: wholeSecondsFrom(0),
  spread: [
    (value) => wholeSecondsFrom(0)[0](value) && secondsOf(value)! <= 86_400,
    `${durationForms}, a day at most, in whole seconds`,
  ],
}

const flowOptions: Record<string, Check> = {
  ...timing,
  version: wholeFrom(1),
  startRole: oneOf('service_role', 'authenticated', 'anon'),
  broadcast: oneOf('watched', 'always', 'never'),
  schedulable: flag,
  schedules: objects('an array of schedules: { slug, cron, … }'),
  priority: oneOf('high', 'normal', 'low'),
  deadline: wholeSecondsFrom(1),
  singleton: [(value) => typeof value === 'object' && value !== null, 'an object: { key, whenBusy, wait }'],
  limits: objects(limitForm),
}

const path = (wanted: string): Check => [
  (value) => typeof value === 'string' && value.length <= 1000 && !value.split('.').includes(''),
  wanted,
]

const key = path("a path, such as 'run.tenant'")

const limitOptions: Record<string, Check> = {
  name: [
    (value) => typeof value === 'string' && /^[^:]{1,255}$/.test(value),
    'a text of 1 to 255 characters without a colon',
  ],
  by: key,
  running: wholeFrom(1),
  rate: [
    (value) =>
      Array.isArray(value) &&
      value.length === 2 &&
      wholeFrom(1)[0](value[0]) &&
      wholeSecondsFrom(1)[0](value[1]),
    "a whole number, 1 or more, and a period in whole seconds: [3000, '1m']",
  ],
}

const singletonOptions: Record<string, Check> = {
  key,
  whenBusy: oneOf('return', 'reject', 'replace', 'after'),
  wait: wholeSecondsFrom(1),
}

const conditions = { runIf: fragment, runUnless: fragment, whenUnmet: otherwise }

const handled: Record<string, Check> = {
  ...timing,
  ...conditions,
  whenExhausted: otherwise,
  deadline: wholeSecondsFrom(1),
  limits: objects(limitForm),
}

/** As the database checks it. */
const functionName =
  /^("([^"]|""){1,63}"|[a-z_][a-z0-9_$]{0,62})[.]("([^"]|""){1,63}"|[a-z_][a-z0-9_$]{0,62})$/

const undoOptions: Record<string, Check> = {
  maxAttempts: timing.maxAttempts,
  baseDelay: timing.baseDelay,
  timeout: timing.timeout,
}

const batchOptions: Record<string, Check> = {
  size: [(value) => wholeFrom(1)[0](value) && Number(value) <= 1000, 'a whole number from 1 to 1,000'],
  wait: [(value) => (secondsOf(value) ?? Number.NaN) <= 3600, `${durationForms}, an hour at most`],
}

const mapOptions: Record<string, Check> = {
  concurrency: wholeFrom(1),
  whenItemFails: oneOf('fail', 'collect'),
  tolerate: [
    (value) =>
      typeof value === 'string'
        ? /^\d+(\.\d+)?%$/.test(value) && Number.parseFloat(value) <= 100
        : wholeFrom(0)[0](value),
    "a whole number, 0 or more, or a share of at most 100%, such as '5%'",
  ],
}

const batched: Record<string, Check> = {
  ...handled,
  batch: [
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    "an object such as { size: 100, wait: '50ms' }",
  ],
}

const stepOptions: Record<StepType, Record<string, Check>> = {
  single: batched,
  loop: {
    ...handled,
    until: [(value) => value !== null && isJson(value), 'JSON other than null, such as { done: true }'],
    max: [(value) => wholeFrom(1)[0](value) && Number(value) <= 10_000, 'a whole number from 1 to 10,000'],
    whenExceeded: oneOf('fail', 'complete'),
  },
  map: {
    ...batched,
    ...mapOptions,
  },
  wait: {
    ...conditions,
    whenExhausted: otherwise,
    by: path(`one of ${waitRoles.join(', ')}, or the path of user ids, such as 'draft.reviewers'`),
    notBy: oneOf('owner'),
    timeout: timing.timeout,
    whenTimedOut: [
      (value) => otherwise[0](value) || isOutput(value),
      `${otherwise[1]}, or { output: … } with a JSON value`,
    ],
    webhook: [(value) => typeof value === 'boolean' || webhooks[0](value), `true, false, or ${webhooks[1]}`],
  },
  sleep: {
    ...conditions,
    for: wholeSecondsFrom(1),
    until: path("the path of a time, such as 'run.remind_at'"),
  },
  sql: {
    ...timing,
    ...conditions,
    whenExhausted: otherwise,
    deadline: wholeSecondsFrom(1),
    call: [
      (value) => typeof value === 'string' && functionName.test(value),
      "a name with its schema, such as 'public.save_embeddings', with names that have capitals in quotes: 'public.\"saveEmbeddings\"'",
    ],
  },
}

const subFlow: Record<string, Check> = {
  ...conditions,
  whenExhausted: otherwise,
  startDelay: timing.startDelay,
  deadline: handled.deadline!,
  limits: handled.limits!,
  whenParentEnds: oneOf('cancel', 'leave'),
}

const subFlowOptions: Partial<Record<StepType, Record<string, Check>>> = {
  single: subFlow,
  map: { ...subFlow, ...mapOptions },
}

/** `{ output }` alone. */
function isOutput(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && Object.keys(value).join() === 'output' && isJson(value)
  )
}

function checkOptions(subject: string, options: object, checks: Record<string, Check>): void {
  for (const [name, value] of Object.entries(options)) {
    const check = Object.hasOwn(checks, name) ? checks[name] : undefined
    if (check === undefined) {
      throw new FlowDefinitionError(
        'invalid_option',
        `The ${subject} has no option '${name}': the options are ${Object.keys(checks).join(', ')}.`,
      )
    }
    const [isValid, wanted] = check
    if (value !== undefined && !isValid(value)) {
      throw new FlowDefinitionError(
        'invalid_option',
        `The option ${name} of ${subject} is ${shown(value)}: make it ${wanted}.`,
      )
    }
  }
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 140 ? `${value.slice(0, 140)}…` : value}'`
  return typeof value === 'object' && value !== null ? 'an object' : String(value)
}

/** The database looks it up again, in its own list. */
function isTimeZone(name: unknown): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name as string })
    return typeof name === 'string'
  } catch {
    return false
  }
}

function isJson(value: unknown): boolean {
  try {
    toJson(value)
    return true
  } catch {
    return false
  }
}
