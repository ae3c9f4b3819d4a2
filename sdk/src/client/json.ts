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
  jsonText(value, (path, reason, options) => {
    return new InvalidInputError('PT400', `The ${name} is not JSON: ${path} ${reason}`, options)
  })
  return value
}

/** Whether a value is surely JSON. Instances of classes and texts with escapes are not sure, however harmless. */
export function isPlainJson(value: unknown): boolean {
  const depths = new Map<unknown, number>()
  try {
    const text = JSON.stringify(value, function (this: Record<string, unknown>, key, item: unknown) {
      // `toJSON` has made null of something, as of an invalid date.
      if (item === null && this[key] !== null) throw item
      const depth = (depths.get(this) ?? 0) + 1
      if (typeof item === 'object') depths.set(item, depth)
      if (depth > deepest || !isPlain(item, this)) throw item
      return item
    })
    // NUL and halves of surrogate pairs are written like this.
    return !/\\u(0000|d[89a-f])/.test(text)
  } catch {
    return false
  }
}

function isPlain(item: unknown, holder: unknown): boolean {
  switch (typeof item) {
    case 'string':
    case 'boolean':
      return true
    case 'number':
      return Number.isFinite(item)
    case 'undefined':
      return !Array.isArray(holder)
    default:
      return item === null || (typeof item === 'object' && plain.has(Object.getPrototypeOf(item)))
  }
}
