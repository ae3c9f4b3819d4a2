interface Refusal {
  readonly message: string
  readonly hint: string
}

/** What an option may be: a text of a form or what a test says, and both in words. */
type Form = readonly [RegExp | ((value: unknown) => boolean), string]

const uuid = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i

/** Why an option does not exist or cannot be used, if one is so. One that is `undefined` is left out. */
export function whyRefused(
  options: object,
  known: readonly string[],
  secondsOf: (duration: unknown) => number | undefined,
): Refusal | undefined {
  const forms = formsOf(secondsOf)
  for (const [name, value] of Object.entries(options)) {
    if (!known.includes(name)) {
      return { message: `There is no option '${name}'`, hint: `The options are: ${known.join(', ')}.` }
    }
    const [form, words] = forms[name]!
    if (value === undefined || (typeof form === 'function' ? form(value) : isText(value, form))) continue
    return { message: `${name} is ${shown(value)}`, hint: `Give it ${words}.` }
  }
  return undefined
}

function formsOf(secondsOf: (duration: unknown) => number | undefined): Readonly<Record<string, Form>> {
  return {
    idempotencyKey: [/^/, 'a text'],
    idempotencyKeys: [Array.isArray, 'an array with a text, or null, for each input'],
    metadata: [() => true, 'JSON'],
    delay: [
      (value) => Number.isInteger(secondsOf(value)),
      "whole seconds: a number, or text such as '90s', '5m' or '2h'",
    ],
    schema: [(value) => has(value, '~standard'), "a Standard Schema, such as the flow's"],
    signal: [(value) => has(value, 'aborted'), 'an AbortSignal, such as the signal of an AbortController'],
    flowSlug: [
      /^[a-z_]\w{0,127}$/i,
      'the slug of a flow: at most 128 letters, digits and underscores, of which the first is not a digit',
    ],
    status: [/^(started|completed|failed|cancelled)$/, "'started', 'completed', 'failed' or 'cancelled'"],
    groupId: [uuid, 'the id of a group: a UUID, as it is in the database'],
    ownerId: [uuid, 'the id of a user: a UUID, as it is in the database'],
    cursor: [(value) => value === null || isText(value, uuid), 'the cursor of the page before, or null'],
    limit: [(value) => Number.isInteger(value) && (value as number) >= 1, 'a whole number, at least 1'],
    after: [
      (value) => Number.isInteger(value) && (value as number) >= 0,
      'the seq of an event: a whole number, at least 0',
    ],
    timeout: [
      (value) => secondsOf(value) !== undefined,
      "seconds as a number, or text such as '250ms', '90s', '5m' or '2h'",
    ],
    reason: [/^/, 'a text'],
  }
}

function isText(value: unknown, form: RegExp): boolean {
  return typeof value === 'string' && form.test(value)
}

function has(value: unknown, property: string): boolean {
  return (value as Record<string, unknown> | null)?.[property] !== undefined
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 100 ? `${value.slice(0, 100)}…` : value}'`
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  return Array.isArray(value) ? 'an array' : 'an object'
}
