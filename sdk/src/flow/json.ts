import { NotJsonError } from './errors.ts'
import { jsonText, storable } from './json-text.ts'

/** What was thrown, in a form that can be stored. */
export interface ErrorDescription {
  readonly name: string
  readonly message: string
  readonly stack?: string
}

/**
 * The JSON text of what a handler returned; nothing is lost on the way.
 *
 * Like `JSON.stringify`, it respects `toJSON` and leaves out properties that are `undefined`. `undefined` itself is
 * `null`. Unlike it, it refuses what JSON would drop or change in silence, and what `jsonb` cannot hold.
 *
 * @throws NotJsonError with the path of what cannot be stored
 *
 * @example
 * toJson({ at: new Date(0), by: undefined }) // '{"at":"1970-01-01T00:00:00.000Z"}'
 * toJson({ a: [1, Number.NaN] }) // throws: $.a[1] is NaN …
 */
export function toJson(value: unknown): string {
  return jsonText(value, (path, reason, options) => new NotJsonError(path, reason, options))
}

const longestMessage = 8_000

/**
 * Says what a handler threw. It never throws itself, whatever it is given, and what it gives can be stored: no NUL, no
 * half surrogate pairs, and at most 8,000 characters each for name, message and stack.
 */
export function describeError(thrown: unknown): ErrorDescription {
  try {
    return typeof thrown === 'object' && thrown !== null ? describeObject(thrown) : describePrimitive(thrown)
  } catch {
    return { name: 'Error', message: 'Something was thrown that cannot be read' }
  }
}

function describePrimitive(thrown: unknown): ErrorDescription {
  if (thrown === '') return { name: 'Error', message: 'An empty string was thrown' }
  if (typeof thrown === 'string') return { name: 'Error', message: storable(thrown, longestMessage) }
  const shown = typeof thrown === 'function' ? 'A function' : storable(String(thrown), longestMessage)
  return { name: 'Error', message: `${shown} was thrown` }
}

function describeObject(thrown: object): ErrorDescription {
  const name = textOf(thrown, 'name') ?? 'Error'
  const stack = textOf(thrown, 'stack')
  const unspoken =
    stack === undefined ? `An object was thrown: ${shownObject(thrown)}` : `${name} without a message`
  return {
    name,
    message: textOf(thrown, 'message') ?? storable(unspoken, longestMessage),
    ...(stack !== undefined && { stack }),
  }
}

function textOf(thrown: object, key: 'name' | 'message' | 'stack'): string | undefined {
  try {
    const value = (thrown as Record<string, unknown>)[key]
    return typeof value === 'string' && value !== '' ? storable(value, longestMessage) : undefined
  } catch {
    return undefined
  }
}

function shownObject(thrown: object): string {
  try {
    return toJson(thrown)
  } catch {
    return 'it is not JSON'
  }
}
