import { type Duration, secondsOf } from '../shared/duration.ts'
import { InvalidInputError } from './errors.ts'

/** Whether a value that is given can be used. */
type Test = (value: unknown) => boolean
type Tests = Readonly<Record<string, Test>>

const matches =
  (pattern: RegExp): Test =>
  (value) =>
    typeof value === 'string' && pattern.test(value)
const isWholeFrom =
  (least: number): Test =>
  (value) =>
    Number.isInteger(value) && (value as number) >= least
const isText = matches(/^/)
const isUuid = matches(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i)
const isSlug = matches(/^[a-z_]\w{0,127}$/i)
const isAnything = () => true

export const runArguments = { runId: isUuid }
export const startArguments = { flowSlug: isSlug, input: (value) => value !== undefined } satisfies Tests
export const startManyArguments = { flowSlug: isSlug, inputs: Array.isArray }

export const requestOptions = {
  signal: (value) => (value as Partial<AbortSignal> | null)?.aborted !== undefined,
} satisfies Tests

const commonStartOptions = {
  metadata: isAnything,
  delay: (value) => Number.isInteger(secondsOf(value)),
  groupId: isUuid,
  schema: (value) => (value as { '~standard'?: unknown } | null)?.['~standard'] !== undefined,
  ...requestOptions,
} satisfies Tests
export const startOptions = { idempotencyKey: isText, ...commonStartOptions }
export const startManyOptions = { idempotencyKeys: Array.isArray, ...commonStartOptions }

export const listOptions = {
  flowSlug: isSlug,
  status: matches(/^(started|completed|failed|cancelled)$/),
  metadata: isAnything,
  ownerId: isUuid,
  groupId: isUuid,
  cursor: (value) => value === null || isUuid(value),
  limit: isWholeFrom(1),
  ...requestOptions,
} satisfies Tests
export const cancelOptions = { reason: isText, ...requestOptions }
export const waitOptions = {
  timeout: (value) => secondsOf(value) !== undefined,
  ...requestOptions,
} satisfies Tests
export const eventsOptions = { after: isWholeFrom(0), ...requestOptions }

/** Each argument and option that is tested. */
export type OptionName = keyof (typeof runArguments &
  typeof startArguments &
  typeof startManyArguments &
  typeof startOptions &
  typeof startManyOptions &
  typeof listOptions &
  typeof cancelOptions &
  typeof waitOptions &
  typeof eventsOptions)

/**
 * Nothing, if each option exists and can be used. One that is `undefined` is left out.
 *
 * @returns otherwise a promise that rejects with InvalidInputError: the reason is loaded when there is one
 */
export function checkOptions(options: object, tests: Tests, required = false): Promise<never> | undefined {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(tests, name)) return refuse(name, value, Object.keys(tests))
    if ((required || value !== undefined) && !tests[name]!(value)) return refuse(name, value)
  }
  return undefined
}

/** As `checkOptions`, for arguments, which have to be given. */
export function checkArguments(values: object, tests: Tests): Promise<never> | undefined {
  return checkOptions(values, tests, true)
}

async function refuse(name: string, value: unknown, known?: readonly string[]): Promise<never> {
  const { whyRefused } = await import('./refusal.ts')
  const { message, hint } = whyRefused(name as OptionName, value, known)
  throw new InvalidInputError('PT400', message, { hint })
}

/** @throws InvalidInputError if the option is no duration */
export function secondsFrom(name: string, duration: Duration): number {
  const seconds = secondsOf(duration)
  if (seconds !== undefined) return seconds
  throw new InvalidInputError('PT400', `${name} is ${duration}`, {
    hint: "Give it a duration such as '15s'.",
  })
}
