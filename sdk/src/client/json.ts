import { InvalidInputError } from './errors.ts'

/** Deeper values are left to `jsonText` to refuse. */
const deepest = 1000

const plain = new Set<unknown>([Object.prototype, Array.prototype, null])

/**
 * Refuses what JSON would drop or change in silence, and what `jsonb` cannot hold. What is plain JSON at first sight
 * needs no more than that; the thorough check, which knows the reasons, is loaded for the rest.
 */
export async function checkJson<Value>(value: Value, name: string): Promise<Value> {
  if (isPlainJson(value)) return value
  const { jsonText } = await import('../flow/json-text.ts')
  // Nothing is no JSON either, which it says of items only.
  jsonText(value ?? [value], (path, reason, options) => {
    return new InvalidInputError('PT400', `The ${name} is not JSON: ${path} ${reason}`, options)
  })
  return value
}

/** Whether a value is surely JSON. Instances of classes are not sure, however harmless. */
export function isPlainJson(value: unknown, depth = 0): boolean {
  // NUL and halves of surrogate pairs cannot be stored.
  if (typeof value === 'string') return !/\0|\p{Cs}/u.test(value)
  if (typeof value !== 'object') return typeof value === 'boolean' || Number.isFinite(value)
  if (value === null) return true
  if (value instanceof Date) return Number.isFinite(value.getTime())
  if (!plain.has(Object.getPrototypeOf(value)) || depth === deepest) return false
  if (Array.isArray(value)) return [...value].every((item) => isPlainJson(item, depth + 1))
  return Object.entries(value).every(
    ([key, item]) => isPlainJson(key) && (item === undefined || isPlainJson(item, depth + 1)),
  )
}
