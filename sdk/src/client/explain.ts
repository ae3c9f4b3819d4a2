/** What is wrong, in words: loaded when there is something to explain. */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { describeIssues } from '../flow/issues.ts'
import { jsonText } from '../flow/json-text.ts'
import { schemaProblem } from '../shared/schema-version.ts'
import type { invalid, OptionName } from './options.ts'
import type { RpcResponse } from './supabase.ts'

/** Message and options of an error. */
type Refusal = [message: string, options: { readonly hint: string }]

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
  priority: "'high', 'normal' or 'low'",
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
  undo: 'true or false',
  children: 'true or false',
  afterChild: 'the last child of the page before, as it was listed',
  afterWait: 'the last wait of the page before, as it was listed',
  output: 'what the wait takes; null where it takes nothing',
}

/** The names of options, without those of arguments, which have to be given. */
function optionsIn(known: string): string {
  return known
    .split(' ')
    .filter((name) => !name.endsWith('!'))
    .join(', ')
}

/** Why an argument or option cannot be used; `known` names the options that there are, where this is none of them. */
export function whyRefused(name: OptionName, value: unknown, known?: string): Refusal {
  if (known !== undefined) {
    return [`There is no option '${name}'`, { hint: `The options are: ${optionsIn(known)}.` }]
  }
  return [`${name} is ${shown(value)}`, { hint: `Give it ${forms[name]}.` }]
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 100 ? `${value.slice(0, 100)}…` : value}'`
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  return Array.isArray(value) ? 'an array' : 'an object'
}

/** Why a schema refuses an input, the first that it refuses. Handlers get what the schema makes of them: they are sent as given. */
export async function whyInvalid(
  schema: StandardSchemaV1,
  inputs: readonly unknown[],
): Promise<string | undefined> {
  for (const input of inputs) {
    const { issues } = await schema['~standard'].validate(input)
    if (issues) return `The input is not what its schema says: ${describeIssues(issues)}`
  }
  return undefined
}

/**
 * The thorough check of what may not be JSON.
 *
 * @throws what `errorOf` makes of where and why
 */
export function refuseJson<Value>(value: Value, name: string, errorOf: typeof invalid): Value {
  jsonText(value, (path, reason, options) => errorOf(`The ${name} is not JSON: ${path} ${reason}`, options))
  return value
}

const expose =
  "Expose the schema: add 'pgflow_public' to the exposed schemas in the API settings, or to [api] schemas in config.toml."

const reload =
  "The API has not noticed the migrations yet. Run `notify pgrst, 'reload schema'` in SQL, or restart the project."

/** What to do about a project that is not set up for this package. */
export async function adviceOn(code: string, askVersion: () => PromiseLike<RpcResponse>): Promise<string> {
  if (code === 'unauthorized') return 'Check the key of the project.'
  if (code === 'PGRST106') return expose
  const { data, error } = await askVersion()
  if (error?.code === 'PGRST106') return expose
  return schemaProblem(typeof data === 'number' ? data : undefined) ?? reload
}
