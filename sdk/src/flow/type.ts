/** Names a type, where an option wants one; it has no content. */
export interface TypeOf<T> {
  /** For the compiler only; it does not exist at run time. */
  readonly '~type'?: T
}

/**
 * Names a type, where an option wants one.
 *
 * @example
 * .step({ slug: 'read', progress: type<{ page: string }>() }, (_, { progress }) => progress(0.5, { page: 'a' }))
 */
export function type<T>(): TypeOf<T> {
  return {}
}
