/** Why a flow cannot be defined. */
export type FlowDefinitionErrorCode =
  | 'invalid_slug'
  | 'duplicate_step'
  | 'unknown_dep'
  | 'duplicate_dep'
  | 'invalid_option'
  | 'invalid_handler'

/** A flow was defined in a way that cannot work; the message says what to do. */
export class FlowDefinitionError extends Error {
  override readonly name = 'FlowDefinitionError'
  readonly code: FlowDefinitionErrorCode

  constructor(code: FlowDefinitionErrorCode, message: string) {
    super(message)
    this.code = code
  }
}

/** A value cannot be stored as JSON. `path` says which part of it: `$` is the value itself, `$.a[3].b` lies inside. */
export class NotJsonError extends Error {
  override readonly name = 'NotJsonError'
  readonly code = 'not_json'
  readonly path: string

  constructor(path: string, reason: string, options?: ErrorOptions) {
    super(`${path} ${reason}`, options)
    this.path = path
  }
}
