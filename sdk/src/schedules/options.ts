import { has, invalid, isSlug, isText, isUuid } from '../client/options.ts'
import { secondsOf } from '../shared/duration.ts'

type Check = readonly [isUsable: (value: unknown) => boolean, wanted: string]

const slug: Check = [
  isSlug,
  'a slug: at most 128 letters, digits and underscores, of which the first is not a digit',
]

const oneOf = (...values: readonly string[]): Check => [
  (value) => values.includes(value as string),
  values.map((value) => `'${value}'`).join(' or '),
]

const checks: Readonly<Record<string, Check>> = {
  flowSlug: slug,
  slug,
  cron: [isText, "a cron expression, such as '30 7 * * mon-fri'"],
  timeZone: [isText, "the name of a time zone, such as 'Europe/Berlin'"],
  overlap: oneOf('skip', 'allow', 'cancel'),
  catchUp: oneOf('last', 'none', 'all'),
  catchUpWindow: [
    (value) => Number.isInteger(secondsOf(value)),
    "whole seconds: a number, or text such as '90s', '2h' or '3d'",
  ],
  schema: [has('~standard'), "a Standard Schema, such as the flow's"],
  ownerId: [isUuid, 'the id of a user: a UUID, as it is in the database'],
  signal: [has('aborted'), 'an AbortSignal, such as the signal of an AbortController'],
}

/**
 * @param known the names of the options, and no others; those with `!` have to be given
 * @throws InvalidInputError for an option that does not exist or cannot be used
 */
export function checkOptions(options: object, known: string): void {
  const names = known.split(' ')
  const required = names.filter((name) => name.endsWith('!')).map((name) => name.slice(0, -1))
  const given: Record<string, unknown> = {
    ...Object.fromEntries(required.map((name) => [name, undefined])),
    ...options,
  }
  for (const [name, value] of Object.entries(given)) {
    const isRequired = required.includes(name)
    if (!isRequired && !names.includes(name)) {
      throw invalid(`There is no option '${name}'`, {
        hint: `The options are: ${names.join(', ').replaceAll('!', '')}.`,
      })
    }
    const [isUsable, wanted] = checks[name]!
    if ((isRequired || value !== undefined) && !isUsable(value)) {
      throw invalid(`${name} is ${typeof value === 'string' ? `'${value.slice(0, 100)}'` : String(value)}`, {
        hint: `Give it ${wanted}.`,
      })
    }
  }
}
