/** Properties of the errors of this package. */
export interface PgflowErrorOptions {
  /** What to do about it. */
  hint?: string | undefined
  /** More facts. */
  details?: string | undefined
  /** The HTTP status of the answer, if there was one. */
  status?: number | undefined
  cause?: unknown
}

/** The same symbol in every copy of this package. */
const brand = Symbol.for('@pgflow/sdk/error')

/**
 * The base class of all errors of this package. `code` is a SQLSTATE, a code of PostgREST, or a word such as `timeout`.
 *
 * `instanceof` recognises its classes across copies of the package, which are normal in monorepos and bundles.
 *
 * @example
 * try {
 *   await run.waitForCompletion({ timeout: '1m' })
 * } catch (error) {
 *   if (error instanceof PgflowError) show(error.code, error.message, error.hint)
 * }
 */
export class PgflowError extends Error {
  static {
    nameErrors(PgflowError, 'PgflowError')
  }

  readonly code: string
  declare readonly hint: string | undefined
  declare readonly details: string | undefined
  declare readonly status: number | undefined

  constructor(code: string, message: string, { cause, ...facts }: PgflowErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    Object.assign(this, facts)
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: of a subclass, which inherits this, it is the subclass
    return isInstance(this, value)
  }
}

/** A request, a wait, or an attempt of a step took longer than its timeout. */
export class TimeoutError extends PgflowError {
  static {
    nameErrors(TimeoutError, 'TimeoutError')
  }

  constructor(message: string, options?: PgflowErrorOptions) {
    super('timeout', message, options)
  }
}

/** Gives a class of errors its name, which no minifier changes, and the brand by which all copies recognise it. */
export function nameErrors(errors: { readonly prototype: Error }, name: string): void {
  Object.defineProperties(errors.prototype, {
    name: { value: name, writable: true, configurable: true },
    [brand]: { value: name },
  })
}

/** Compares brands instead of classes. A class without a brand, such as a user's own subclass, is compared as usual. */
function isInstance(Class: typeof PgflowError, value: unknown): boolean {
  const name: unknown = Object.getOwnPropertyDescriptor(Class.prototype, brand)?.value
  if (name !== undefined) return brandsOf(value).includes(name)
  return Function.prototype[Symbol.hasInstance].call(Class, value)
}

/** The brands of a value's class and its base classes. */
function brandsOf(value: unknown): unknown[] {
  const brands: unknown[] = []
  try {
    for (let link = value; typeof link === 'object' && link !== null; link = Object.getPrototypeOf(link)) {
      brands.push(Object.getOwnPropertyDescriptor(link, brand)?.value)
    }
  } catch {
    // A revoked proxy, for instance, cannot be looked at: it is no error of ours.
  }
  return brands
}
