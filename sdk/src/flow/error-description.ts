import { toJson } from './json.ts'
import { storable } from './json-text.ts'

/** What was thrown, in a form that can be stored. */
export interface ErrorDescription {
  readonly name: string
  readonly message: string
  /** Such as `ECONNREFUSED`, or a SQLSTATE. */
  readonly code?: string
  readonly stack?: string
  readonly cause?: ErrorDescription
  /** Of an `AggregateError`. */
  readonly errors?: readonly ErrorDescription[]
}

const longestText = 8_000

/** Of a cause, or an error of an `AggregateError`. */
const longestInnerText = 1_000

/** How many causes and errors of `AggregateError`s are kept in all. */
const mostInner = 10

const longestSummary = 1_000

/**
 * Says what a handler threw, with its causes and the errors of an `AggregateError`. It never throws itself, whatever it
 * is given, and what it gives can be stored: no NUL, no half surrogate pairs, no cycles, at most 8,000 characters each
 * for message and stack, and at most 10 inner errors with at most 1,000 characters each.
 */
export function describeError(thrown: unknown): ErrorDescription {
  return new Describer().describe(thrown, longestText)
}

/**
 * An error in one line, with what caused it in at most 1,000 characters, and 8,000 characters at most in all.
 *
 * @example
 * summaryOf(describeError(error)) // 'fetch failed: connect ECONNREFUSED 127.0.0.1:1'
 */
export function summaryOf({ message, cause, errors = [] }: ErrorDescription): string {
  const inner = [...new Set([...errors.map(summaryOf), ...(cause ? [summaryOf(cause)] : [])])]
  const news = inner.filter((summary) => !message.includes(summary)).join('; ')
  return news === '' ? message : storable(`${message}: ${storable(news, longestSummary)}`, longestText)
}

class Describer {
  readonly #seen = new WeakSet<object>()
  #left = mostInner

  describe(thrown: unknown, longest: number): ErrorDescription {
    if (typeof thrown === 'object' && thrown !== null) this.#seen.add(thrown)
    try {
      return typeof thrown === 'object' && thrown !== null
        ? this.#object(thrown, longest)
        : describePrimitive(thrown, longest)
    } catch {
      return { name: 'Error', message: 'Something was thrown that cannot be read' }
    }
  }

  #object(thrown: object, longest: number): ErrorDescription {
    const name = textOf(thrown, 'name', longest) ?? 'Error'
    const code = textOf(thrown, 'code', 100)
    const stack = textOf(thrown, 'stack', longest)
    const cause = this.#inner(propertyOf(thrown, 'cause'))
    const errors = this.#errors(thrown)
    const isError = stack !== undefined || errors !== undefined
    const unspoken = isError
      ? (code ?? `${name} without a message`)
      : `An object was thrown: ${shownObject(thrown)}`
    return {
      name,
      message: textOf(thrown, 'message', longest) ?? storable(unspoken, longest),
      ...(code !== undefined && { code }),
      ...(stack !== undefined && { stack }),
      ...(cause !== undefined && { cause }),
      ...(errors !== undefined && { errors }),
    }
  }

  /** An error is described once, wherever it appears again. */
  #inner(thrown: unknown): ErrorDescription | undefined {
    if (thrown === undefined || thrown === null || this.#seen.has(thrown) || this.#left === 0)
      return undefined
    this.#left--
    return this.describe(thrown, longestInnerText)
  }

  #errors(thrown: object): readonly ErrorDescription[] | undefined {
    const errors = isAggregate(thrown) ? propertyOf(thrown, 'errors') : undefined
    if (!Array.isArray(errors)) return undefined
    const described: ErrorDescription[] = []
    for (const error of errors.slice(0, mostInner)) {
      const description = this.#inner(error)
      if (description !== undefined) described.push(description)
    }
    return described
  }
}

function describePrimitive(thrown: unknown, longest: number): ErrorDescription {
  if (thrown === '') return { name: 'Error', message: 'An empty string was thrown' }
  if (typeof thrown === 'string') return { name: 'Error', message: storable(thrown, longest) }
  const shown = typeof thrown === 'function' ? 'A function' : storable(String(thrown), longest)
  return { name: 'Error', message: `${shown} was thrown` }
}

/** By its name too, for those of another realm. */
function isAggregate(thrown: object): boolean {
  try {
    return thrown instanceof AggregateError || propertyOf(thrown, 'name') === 'AggregateError'
  } catch {
    return false
  }
}

function propertyOf(thrown: object, key: string): unknown {
  try {
    return (thrown as Record<string, unknown>)[key]
  } catch {
    return undefined
  }
}

function textOf(thrown: object, key: string, longest: number): string | undefined {
  const value = propertyOf(thrown, key)
  return typeof value === 'string' && value !== '' ? storable(value, longest) : undefined
}

function shownObject(thrown: object): string {
  try {
    return toJson(thrown)
  } catch {
    return 'it is not JSON'
  }
}
