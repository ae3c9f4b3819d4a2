import { describeError, summaryOf } from '../flow/error-description.ts'
import { nameErrors, PgflowError } from '../shared/errors.ts'

/** The database's schema does not fit this package: no result is to blame, and calls may succeed when it was migrated. */
export class SchemaError extends PgflowError {
  static {
    nameErrors(SchemaError, 'SchemaError')
  }

  constructor(message: string, options?: ErrorOptions) {
    super('schema_mismatch', message, options)
  }
}

/**
 * Classes of SQLSTATE that say nothing about the data that was sent: connections, transaction states, prepared
 * statements, logins, rollbacks (deadlocks, serialization), resources, locks, operators, system and internal errors.
 */
const transientClasses = new Set(['08', '25', '26', '28', '40', '53', '55', '57', '58', 'XX'])

/** Whether the same call may succeed later. An error without a SQLSTATE never came from the database. */
export function isTransient(error: unknown): boolean {
  if (isSchemaFault(error)) return false
  const state = sqlState(error)
  return (
    state === undefined ||
    transientClasses.has(state.slice(0, 2)) ||
    isStalePlan(error) ||
    isMissingQueue(error)
  )
}

/**
 * Whether what was called may be missing or of another version: undefined functions, tables and columns (class 42), no
 * such schema (3F), features (0A), and what PostgREST says of unknown functions and schemas. It may also come from a
 * trigger of the user's: only the version of the schema tells.
 */
export function isSchemaFault(error: unknown): boolean {
  const state = sqlState(error)
  if (state !== undefined)
    return ['42', '3F', '0A'].includes(state.slice(0, 2)) && !isStalePlan(error) && !isMissingQueue(error)
  return /^PGRST[12]\d\d$/.test(codeOf(error) ?? '')
}

/**
 * Prepared statements that a connection has from before a migration ("cached plan must not change result type"), or that
 * a transaction pooler has mixed up: another connection, or the same one later, has none of them.
 */
function isStalePlan(error: unknown): boolean {
  const state = sqlState(error)
  return state === '42P05' || (state === '0A000' && /cached plan/.test((error as Error).message))
}

/** A queue that was dropped while it was used is created again by the next call. */
export function isMissingQueue(error: unknown): boolean {
  return sqlState(error) === '42P01' && /"pgmq\./.test((error as Error).message)
}

export function sqlState(error: unknown): string | undefined {
  const code = codeOf(error)
  return code !== undefined && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code) ? code : undefined
}

/** The code of an error, or else of what caused it. */
export function codeOf(error: unknown): string | undefined {
  const { code, cause } = describeError(error)
  return code ?? cause?.code
}

/** An error in one line, with its causes, and the database's facts and hint. */
export function explain(error: unknown): string {
  if (typeof error !== 'object' || error === null) return String(error)
  const what = summaryOf(describeError(error))
  try {
    const { detail, details, hint } = error as Partial<Record<string, unknown>>
    const facts = [what, detail ?? details].filter(Boolean).join('; ')
    return hint ? `${facts}. ${hint}` : facts
  } catch {
    return what
  }
}
