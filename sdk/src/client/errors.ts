import { nameErrors, PgflowError } from '../shared/errors.ts'

/** The flow or run does not exist, or the caller may not see it (PT404). */
export class NotFoundError extends PgflowError {
  static {
    nameErrors(NotFoundError, 'NotFoundError')
  }
}

/** The caller may not do this (PT403). */
export class ForbiddenError extends PgflowError {
  static {
    nameErrors(ForbiddenError, 'ForbiddenError')
  }
}

/** An argument is invalid (PT400) or too large (PT413). */
export class InvalidInputError extends PgflowError {
  static {
    nameErrors(InvalidInputError, 'InvalidInputError')
  }
}

/** The state of the flow or run does not allow this (PT409), for instance an idempotency key used with another input. */
export class ConflictError extends PgflowError {
  static {
    nameErrors(ConflictError, 'ConflictError')
  }
}

/** The run has failed; the message is the run's error. */
export class RunFailedError extends PgflowError {
  static {
    nameErrors(RunFailedError, 'RunFailedError')
  }

  readonly runId: string
  /** The step that failed; `null` if none did. */
  readonly stepSlug: string | null

  constructor(runId: string, stepSlug: string | null, error: string | null) {
    super('run_failed', error ?? 'The run failed')
    this.runId = runId
    this.stepSlug = stepSlug
  }
}

/** The run was cancelled; the message is the reason, if one was given. */
export class RunCancelledError extends PgflowError {
  static {
    nameErrors(RunCancelledError, 'RunCancelledError')
  }

  readonly runId: string

  constructor(runId: string, error: string | null) {
    super('run_cancelled', error ?? 'The run was cancelled')
    this.runId = runId
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

export interface ErrorContext {
  /** Of the answer; 0 where there was none, or none for the user. */
  readonly status: number
  /** What to do, where the server does not know it. */
  readonly hint?: string | undefined
}

/** The code of PostgREST's error; the gateway before it gives none, nor does the network. */
export function codeOf(error: ResponseError, status: number): string {
  return error.code || (status === 401 ? 'unauthorized' : 'unreachable')
}

/** The error of our own for one of PostgREST's, of the gateway's before it, or of the network's. */
export function errorFrom(error: ResponseError, { status, hint }: ErrorContext): PgflowError {
  const code = codeOf(error, status)
  const Class = classes[code] ?? PgflowError
  return new Class(code, error.message, {
    hint: (code === 'unreachable' ? whyUnreachable() : hint) || error.hint || undefined,
    details: error.details ?? undefined,
    status: status || undefined,
    cause: error,
  })
}

function whyUnreachable(): string {
  const { onLine } = globalThis.navigator ?? {}
  return onLine === false ? 'The browser is offline.' : 'Check the URL of the project, and the network.'
}

/** Whether asking again cannot help: the server has understood who asks for what, and refused. */
export function isRefusal(error: unknown): error is PgflowError {
  // Not: request timeout, too early, too many requests.
  return error instanceof PgflowError && /^4(?!08|25|29)/.test(`${error.status}`)
}
