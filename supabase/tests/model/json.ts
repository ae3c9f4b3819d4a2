export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Postgres' `@>` below its top level, where an array never contains a bare value. */
export function contains(value: Json, fragment: Json): boolean {
  if (Array.isArray(fragment)) {
    return Array.isArray(value) && fragment.every((part) => value.some((item) => contains(item, part)))
  }
  if (isObject(fragment)) {
    return (
      isObject(value) &&
      Object.entries(fragment).every(([key, part]) => key in value && contains(value[key]!, part))
    )
  }
  return value === fragment
}

/** What is at a path of keys, if there is anything. */
export function at(value: Json | undefined, path: readonly string[]): Json | undefined {
  return path.reduce((inner, key) => (isObject(inner) ? inner[key] : undefined), value)
}

/** What Postgres' `jsonb_typeof` says. */
export function typeOf(value: Json | undefined): string {
  if (value === undefined) return 'missing'
  if (value === null) return 'null'
  return Array.isArray(value) ? 'array' : typeof value
}

/** A value as Postgres prints it: keys by length, then by bytes. */
export function textOf(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(textOf).join(', ')}]`
  if (!isObject(value)) return JSON.stringify(value)
  const keys = Object.keys(value).sort((a, b) => a.length - b.length || (a < b ? -1 : 1))
  return `{${keys.map((key) => `${JSON.stringify(key)}: ${textOf(value[key]!)}`).join(', ')}}`
}

function isObject(value: Json | undefined): value is { [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
