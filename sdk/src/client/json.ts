import { invalid } from './options.ts'

const plain: unknown[] = [Object.prototype, Array.prototype, null]

/** Deeper values are left to `jsonText` to refuse. */
const deepest = 1000

/**
 * Refuses what JSON would drop or change in silence, and what `jsonb` cannot hold. What is plain JSON at first sight
 * needs no more than that; the thorough check, which knows the reasons, is loaded for the rest.
 */
export async function checkJson<Value>(value: Value, name: string): Promise<Value> {
  if (isPlainJson(value)) return value
  const { refuseJson } = await import('./explain.ts')
  return refuseJson(value, name, invalid)
}

/** Whether a value is surely JSON. Instances of classes are not sure, however harmless. */
export function isPlainJson(value: unknown, depth = 0): boolean {
  // NUL and halves of surrogate pairs cannot be stored.
  if (typeof value === 'string') return !/\0|\p{Cs}/u.test(value)
  if (typeof value !== 'object')
    return value === undefined || typeof value === 'boolean' || Number.isFinite(value)
  if (value === null) return true
  if (depth === deepest || !plain.includes(Object.getPrototypeOf(value))) return false
  // Without items that are missing, which JSON would make null.
  if (Array.isArray(value) && [...value].includes(undefined)) return false
  return Object.entries(value).every(([key, item]) => isPlainJson(key) && isPlainJson(item, depth + 1))
}
