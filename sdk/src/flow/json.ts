import { NotJsonError } from './errors.ts'
import { jsonText } from './json-text.ts'

/**
 * The JSON text of what a handler returned; nothing is lost on the way.
 *
 * Like `JSON.stringify`, it respects `toJSON` and leaves out properties that are `undefined`. `undefined` itself is
 * `null`. Unlike it, it refuses what JSON would drop or change in silence, and what `jsonb` cannot hold.
 *
 * @param limit of the text, in bytes: a worker's `outputLimit`
 * @throws NotJsonError with the path of what cannot be stored, or if the text would be longer than the limit
 *
 * @example
 * toJson({ at: new Date(0), by: undefined }) // '{"at":"1970-01-01T00:00:00.000Z"}'
 * toJson({ a: [1, Number.NaN] }) // throws: $.a[1] is NaN …
 */
export function toJson(value: unknown, limit?: number): string {
  return jsonText(value, (path, reason, options) => new NotJsonError(path, reason, options), limit)
}
