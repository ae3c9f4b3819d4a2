import { durationForms, secondsOf } from '../shared/duration.ts'
import type { StepType } from './definition.ts'
import { FlowDefinitionError } from './errors.ts'
import { toJson } from './json.ts'
import { waitRoles } from './wait.ts'

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

export const scheduleOptions: Record<string, Check> = {
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

export const flowOptions: Record<string, Check> = {
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

export const limitOptions: Record<string, Check> = {
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

export const singletonOptions: Record<string, Check> = {
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

export const undoOptions: Record<string, Check> = {
  maxAttempts: timing.maxAttempts,
  baseDelay: timing.baseDelay,
  timeout: timing.timeout,
}

export const batchOptions: Record<string, Check> = {
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

export const stepOptions: Record<StepType, Record<string, Check>> = {
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

export const subFlowOptions: Partial<Record<StepType, Record<string, Check>>> = {
  single: subFlow,
  map: { ...subFlow, ...mapOptions },
}

/** `{ output }` alone. */
function isOutput(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && Object.keys(value).join() === 'output' && isJson(value)
  )
}

/** Throws for the first option that is unknown or not what it has to be. */
export function checkOptions(subject: string, options: object, checks: Record<string, Check>): void {
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

export function shown(value: unknown): string {
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
