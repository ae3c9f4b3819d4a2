/** The error for a value that is not JSON: where it is, and why it cannot be stored. */
export type NotJsonErrorOf = (path: string, reason: string, options?: ErrorOptions) => Error

/** Deeper values are refused, because Postgres and other parsers would run out of stack. */
const deepest = 1000

/** What Postgres refuses in `jsonb` and `text`: NUL, and halves of surrogate pairs. */
const unstorable = /[\0\p{Surrogate}]/u

/** As `toJson`, for callers with an error of their own. */
export function jsonText(value: unknown, errorOf: NotJsonErrorOf, limit = Number.POSITIVE_INFINITY): string {
  const writer = new Writer(errorOf, limit)
  try {
    const text = writer.write(value, '') ?? 'null'
    // A character takes three bytes at most (two halves of a pair take four).
    if (text.length * 3 > limit && new TextEncoder().encode(text).length > limit) writer.refuseLength()
    return text
  } catch (error) {
    throw writer.refusal ?? errorOf(writer.path, 'could not be read', { cause: error })
  }
}

class Writer {
  readonly #errorOf: NotJsonErrorOf
  readonly #keys: (string | number)[] = []
  readonly #open = new Set<object>()
  readonly #limit: number
  #length = 0
  /** Set once something was refused. */
  refusal: Error | undefined

  constructor(errorOf: NotJsonErrorOf, limit: number) {
    this.#errorOf = errorOf
    this.#limit = limit
  }

  refuseLength(): never {
    const reason = `is more than ${sizeText(this.#limit)} of JSON, the limit of outputs: store it elsewhere, for instance in Supabase Storage, and return where it is`
    this.refusal = this.#errorOf('$', reason)
    throw this.refusal
  }

  get path(): string {
    return `$${this.#keys.map(pathSegment).join('')}`
  }

  /** `undefined` if JSON leaves the value out. */
  write(original: unknown, key: string): string | undefined {
    if (isInvalidDate(original)) this.#refuse('is an invalid Date, which JSON would make null')
    const value = resolved(original, key)
    switch (typeof value) {
      case 'undefined':
        return undefined
      case 'boolean':
        return String(value)
      case 'string':
        return this.#text(value, 'has')
      case 'number':
        return Number.isFinite(value)
          ? this.#counted(JSON.stringify(value))
          : this.#refuse(`is ${value}: JSON has finite numbers only`)
      case 'object':
        return value === null ? 'null' : this.#container(value)
      case 'bigint':
        return this.#refuse('is a bigint, which is not JSON: return it as a string')
      default:
        return this.#refuse(`is a ${typeof value}, which is not JSON: leave it out`)
    }
  }

  #container(value: object): string {
    if (this.#open.has(value)) this.#refuse('contains itself: return a value without a cycle')
    if (this.#keys.length >= deepest)
      this.#refuse(`lies more than ${deepest} levels deep: return a flatter value`)
    const loss = lossOf(value)
    if (loss !== undefined) this.#refuse(loss)
    this.#open.add(value)
    const text = Array.isArray(value) ? this.#array(value) : this.#object(value as Record<string, unknown>)
    this.#open.delete(value)
    return text
  }

  #array(items: readonly unknown[]): string {
    const texts: string[] = []
    for (let index = 0; index < items.length; index++) {
      this.#keys.push(index)
      texts.push(
        this.write(items[index], String(index)) ?? this.#refuse('is undefined: use null in an array'),
      )
      this.#keys.pop()
    }
    return `[${texts.join(',')}]`
  }

  #object(value: Record<string, unknown>): string {
    const texts: string[] = []
    for (const key of Object.keys(value)) {
      this.#keys.push(key)
      const text = this.write(value[key], key)
      if (text !== undefined) texts.push(`${this.#text(key, 'has a key with')}:${text}`)
      this.#keys.pop()
    }
    return `{${texts.join(',')}}`
  }

  #text(text: string, has: string): string {
    if (text.length > this.#limit) this.refuseLength()
    if (unstorable.test(text))
      this.#refuse(`${has} a NUL character or half a surrogate pair, which Postgres cannot store`)
    return this.#counted(JSON.stringify(text))
  }

  /** Ends early, before a text is built that is much too long. */
  #counted(text: string): string {
    this.#length += text.length + 1
    if (this.#length - 1 > this.#limit) this.refuseLength()
    return text
  }

  #refuse(reason: string): never {
    this.refusal = this.#errorOf(this.path, reason)
    throw this.refusal
  }
}

function sizeText(bytes: number): string {
  return bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MB` : `${bytes} bytes`
}

const boxes = [Number, String, Boolean, BigInt]

/** The value that JSON writes for this one: what `toJSON` gives, or what a boxed primitive holds. */
function resolved(value: unknown, key: string): unknown {
  const json = hasToJson(value) ? value.toJSON(key) : value
  return boxes.some((box) => json instanceof box) ? (json as object).valueOf() : json
}

function isInvalidDate(value: unknown): boolean {
  return value instanceof Date && Number.isNaN(value.getTime())
}

function hasToJson(value: unknown): value is { toJSON(key: string): unknown } {
  if (value === null || value === undefined) return false
  if (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'bigint') return false
  return typeof (value as { toJSON?: unknown }).toJSON === 'function'
}

const opaqueTags = new Set(['Map', 'Set', 'WeakMap', 'WeakSet', 'Promise', 'RegExp', 'ArrayBuffer'])

/** Why JSON would keep nothing, or something else, of an object; `undefined` if it keeps it. */
function lossOf(value: object): string | undefined {
  const prototype = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === Array.prototype || prototype === null) return undefined
  const tag = Object.prototype.toString.call(value).slice('[object '.length, -1)
  if (tag === 'Error') return 'is an Error, of which JSON keeps nothing: throw it, or return its message'
  if (tag === 'Promise') return 'is a Promise: await it'
  if (opaqueTags.has(tag))
    return `is a ${tag}, of which JSON keeps nothing: return an array or a plain object`
  if (ArrayBuffer.isView(value)) return `is a ${tag}, which is not JSON: return an array or a base64 string`
  return undefined
}

/** A step of a path that is shown to people: `.key`, `[0]`, `["a key"]`. */
export function pathSegment(key: string | number): string {
  if (typeof key === 'number') return `[${key}]`
  return /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(key)
    ? `.${key}`
    : `[${JSON.stringify(storable(key, 100))}]`
}

/** The text as Postgres can store it, and not longer. */
export function storable(text: string, longest: number): string {
  const bounded = text.length > longest ? `${text.slice(0, longest - 1)}…` : text
  return bounded.replaceAll(new RegExp(unstorable, 'gu'), '\uFFFD')
}
