/**
 * Classes of SQLSTATE that say nothing about the data that was sent: connections, cached plans, transaction states,
 * logins, rollbacks (deadlocks, serialization), resources, locks, operators, system and internal errors.
 */
const transientClasses = new Set(['08', '0A', '25', '28', '40', '53', '55', '57', '58', 'XX'])

/** Whether the same call may succeed later. An error without a SQLSTATE never came from the database. */
export function isTransient(error: unknown): boolean {
  const state = sqlState(error)
  return state === undefined || isLost(error) || transientClasses.has(state.slice(0, 2))
}

/** Whether a table is missing: a queue that was dropped at this moment is created again by the next call. */
export function isLost(error: unknown): boolean {
  return sqlState(error) === '42P01'
}

export function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code)
    ? code
    : undefined
}

/** A database error in one line: what; facts. What to do. */
export function explain(error: unknown): string {
  const { message, code, detail, hint } = (error ?? {}) as Partial<Record<string, unknown>>
  const what = message || code || String(error)
  const facts = detail ? `${what}; ${detail}` : String(what)
  return hint ? `${facts}. ${hint}` : facts
}
