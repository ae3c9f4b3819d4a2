import type { StandardSchemaV1 } from '@standard-schema/spec'
import { secondsOf } from '../shared/duration.ts'
import type { PgflowErrorOptions } from '../shared/errors.ts'
import { InvalidInputError } from './errors.ts'
import { checkJson } from './json.ts'

type Test = (value: unknown) => boolean

function matches(pattern: RegExp): Test {
  return (value) => typeof value === 'string' && pattern.test(value)
}

export function has(property: string): Test {
  return (value) => (value as Record<string, unknown> | null)?.[property] !== undefined
}

export const isUuid = matches(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i)
export const isText = matches(/^/)
export const isSlug = matches(/^[a-z_]\w{0,127}$/i)

/** Whether a value that is given for an argument or option can be used. `explain.ts` says the same in words. */
const tests = {
  runId: isUuid,
  flowSlug: isSlug,
  input: (value) => value !== undefined,
  inputs: Array.isArray,
  idempotencyKey: isText,
  idempotencyKeys: Array.isArray,
  metadata: () => true,
  delay: (value) => Number.isInteger(secondsOf(value)),
  groupId: isUuid,
  schema: has('~standard'),
  priority: matches(/^(high|normal|low)$/),
  timeout: (value) => secondsOf(value) !== undefined,
  reason: isText,
  undo: (value) => value === !!value,
  output: (value) => value !== undefined,
  signal: has('aborted'),
} satisfies Record<string, Test>

/** Each argument and option that is tested; those of lists and iterators are tested by what is loaded with them. */
export type OptionName =
  | keyof typeof tests
  | 'status'
  | 'ownerId'
  | 'cursor'
  | 'limit'
  | 'afterWait'
  | 'after'
  | 'children'
  | 'afterChild'

/** Tests that are loaded when they are needed. */
export type MoreTests = Partial<Record<OptionName, Test>>

/**
 * Nothing, if each option exists and can be used. One that is `undefined` is left out.
 *
 * @param known the names of the options, and no others; those with `!` have to be given
 * @returns otherwise a promise that rejects with InvalidInputError: the reason is loaded when there is one
 */
export function checkOptions(options: object, known: string, more?: MoreTests): Promise<never> | undefined {
  const all: MoreTests = { ...tests, ...more }
  const names = known.split(' ')
  for (const [name, value] of Object.entries(options)) {
    const isOption = names.includes(name)
    if (!isOption && !names.includes(`${name}!`)) return refuse(name, value, known)
    if (!(isOption && value === undefined) && !all[name as OptionName]!(value)) return refuse(name, value)
  }
  return undefined
}

async function refuse(name: string, value: unknown, known?: string): Promise<never> {
  const { whyRefused } = await import('./explain.ts')
  throw invalid(...whyRefused(name as OptionName, value, known))
}

/** Options of a call, of which some are looked at here. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  readonly schema?: StandardSchemaV1
  readonly input?: unknown
  readonly inputs?: readonly unknown[]
  readonly [name: string]: unknown
}

/**
 * The options as arguments of an exposed function, whose names are those of columns.
 *
 * @throws InvalidInputError as `checkOptions`, for an input that `schema` refuses, and for what is not JSON
 */
export async function argumentsFrom<Arguments>(
  options: CallOptions,
  known: string,
  more?: MoreTests,
): Promise<Arguments> {
  await checkOptions(options, known, more)
  const { signal, schema, ...values } = options
  const reason =
    schema && (await (await import('./explain.ts')).whyInvalid(schema, values.inputs ?? [values.input]))
  if (reason) throw invalid(reason)
  const args: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(values)) {
    args[name.replace(/[A-Z]/, (letter) => `_${letter.toLowerCase()}`)] =
      name === 'delay' ? secondsOf(value) : /^(in|m|ou)/.test(name) ? await checkJson(value, name) : value
  }
  // That is what the options have.
  return args as Arguments
}

/** @throws InvalidInputError with those that there are, if a name is none of them */
export function checkName(name: string, known: readonly string[], problem: string): void {
  if (!known.includes(name))
    throw invalid(`${problem} '${name}'`, { hint: `The names are: ${known.join(', ')}.` })
}

/** The error for a value that cannot be used. */
export function invalid(message: string, options?: PgflowErrorOptions): InvalidInputError {
  return new InvalidInputError('PT400', message, options)
}
