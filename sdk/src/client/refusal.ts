import type { OptionName } from './options.ts'

export interface Refusal {
  readonly message: string
  readonly hint: string
}

const duration = "seconds as a number, or text such as '250ms', '90s', '5m' or '2h'"
const uuid = 'a UUID, as it is in the database'

/** What arguments and options may be, in words. */
const forms: Readonly<Record<OptionName, string>> = {
  flowSlug:
    'the slug of a flow: at most 128 letters, digits and underscores, of which the first is not a digit',
  runId: `the id of a run: ${uuid}`,
  input: 'the input of the flow; null where it takes none',
  inputs: 'an array with the inputs of the runs',
  idempotencyKey: 'a text',
  idempotencyKeys: 'an array with a text, or null, for each input',
  metadata: 'JSON',
  delay: "whole seconds: a number, or text such as '90s', '5m' or '2h'",
  schema: "a Standard Schema, such as the flow's",
  signal: 'an AbortSignal, such as the signal of an AbortController',
  status: "'started', 'completed', 'failed' or 'cancelled'",
  groupId: `the id of a group: ${uuid}`,
  ownerId: `the id of a user: ${uuid}`,
  cursor: 'the cursor of the page before, or null',
  limit: 'a whole number, at least 1',
  timeout: duration,
  after: 'the seq of an event: a whole number, at least 0',
  reason: 'a text',
}

/** Why an argument or option cannot be used; `known` are the options that there are, where this is none of them. */
export function whyRefused(name: OptionName, value: unknown, known?: readonly string[]): Refusal {
  if (known !== undefined) {
    return { message: `There is no option '${name}'`, hint: `The options are: ${known.join(', ')}.` }
  }
  return { message: `${name} is ${shown(value)}`, hint: `Give it ${forms[name]}.` }
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 100 ? `${value.slice(0, 100)}…` : value}'`
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  return Array.isArray(value) ? 'an array' : 'an object'
}
