/** What every error of this package has. */
export interface PgflowErrorOptions {
  /** What to do about it. */
  hint?: string | undefined
  /** The facts. */
  details?: string | undefined
  /** The HTTP status of the answer, where there was one. */
  status?: number | undefined
  cause?: unknown
}

/** Any error of this package; `code` says which: a SQLSTATE, or a code of PostgREST, or a word. */
export class PgflowError extends Error {
  readonly code: string
  readonly hint: string | undefined
  readonly details: string | undefined
  readonly status: number | undefined

  constructor(code: string, message: string, { hint, details, status, cause }: PgflowErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = new.target.name
    this.code = code
    this.hint = hint
    this.details = details
    this.status = status
  }
}

/** There is no such flow or run, or it is not the caller's (PT404). */
export class NotFoundError extends PgflowError {}

/** The caller may not do this (PT403). */
export class ForbiddenError extends PgflowError {}

/** An argument cannot be used, is not JSON (PT400), or is too large (PT413). */
export class InvalidInputError extends PgflowError {}

/** The state of the flow or run does not allow this (PT409), for instance an idempotency key used with another input. */
export class ConflictError extends PgflowError {}

/** The run ended with a failure; the message is the run's error. */
export class RunFailedError extends PgflowError {
  readonly runId: string
  /** The step that failed, where one did. */
  readonly stepSlug: string | null

  constructor(runId: string, stepSlug: string | null, error: string | null) {
    super('run_failed', error ?? 'The run failed')
    this.runId = runId
    this.stepSlug = stepSlug
  }
}

/** The run was cancelled; the message is the reason where one was given. */
export class RunCancelledError extends PgflowError {
  readonly runId: string

  constructor(runId: string, error: string | null) {
    super('run_cancelled', error ?? 'The run was cancelled')
    this.runId = runId
  }
}

/** What was waited for did not happen within `timeoutMs`. The run goes on. */
export class TimeoutError extends PgflowError {
  constructor(timeoutMs: number) {
    super('timeout', `Not completed within ${timeoutMs} ms`, {
      hint: 'The run goes on: wait again, or longer.',
    })
  }
}

/** An error as supabase-js gives it. */
export interface ResponseError {
  code?: string | null
  message: string
  details?: string | null
  hint?: string | null
}

const classes: Record<string, typeof PgflowError> = {
  PT400: InvalidInputError,
  PT403: ForbiddenError,
  PT404: NotFoundError,
  PT409: ConflictError,
  PT413: InvalidInputError,
  '42501': ForbiddenError,
  '22P02': InvalidInputError,
}

/** The hints that others cannot give. */
const hints: Record<string, string> = {
  PGRST106:
    "Expose the schema: add 'pgflow_public' to the exposed schemas in the API settings, or to [api] schemas in config.toml.",
  '22P02': 'Give the id of a run or user as it is in the database: a UUID.',
  unauthorized: 'Check the key of the project.',
  unreachable: 'Check the URL of the project, and the network.',
  PGRST202:
    'Install the migrations of pgflow, or install the newer ones: the project has no such function yet.',
}

/** The error of our own for one of PostgREST's, of the gateway's before it, or of the network's (status 0). */
export function errorFrom(error: ResponseError, status: number): PgflowError {
  const code = error.code || (status === 401 ? 'unauthorized' : 'unreachable')
  const Class = classes[code] ?? PgflowError
  return new Class(code, error.message, {
    hint: hints[code] || error.hint || undefined,
    details: error.details ?? undefined,
    status: status > 0 ? status : undefined,
    cause: error,
  })
}

/** Whether asking again cannot help: the server has understood, and refused. */
export function isRefusal(error: unknown): error is PgflowError {
  if (!(error instanceof PgflowError) || error.status === undefined) return false
  return error.status >= 400 && error.status < 500 && !passing.has(error.status)
}

/** Request timeout, too early, too many requests. */
const passing = new Set([408, 425, 429])
