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

  /** Compares brands instead of classes. A class without a brand, such as a user's own subclass, is compared as usual. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    try {
      // biome-ignore lint/complexity/noThisInStatic: of a subclass, which inherits this, it is the subclass
      const { prototype } = this
      if (Object.hasOwn(prototype, brand)) return (value as Branded)[brand]!.includes(prototype.name)
      // biome-ignore lint/complexity/noThisInStatic: the usual comparison, with the subclass
      return super[Symbol.hasInstance](value)
    } catch {
      // It has no brands, or cannot be looked at (a revoked proxy): it is no error of ours.
      return false
    }
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
  const { prototype } = errors as { prototype: Branded }
  // Its brands are those of its base classes, and its own.
  Object.assign(prototype, { name, [brand]: [...(prototype[brand] ?? []), name] })
}

interface Branded {
  readonly [brand]?: readonly string[]
}
