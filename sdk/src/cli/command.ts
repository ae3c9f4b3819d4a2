/** A command of the CLI. */
export interface Command {
  /** What follows `pgflow` on the command line. */
  readonly usage: string
  /** One line of help. */
  readonly summary: string
  /** @throws CommandError for what its user can correct */
  run(args: readonly string[], io: Io): Promise<void>
}

/** Where a command works and writes; each text is a line. */
export interface Io {
  readonly cwd: string
  readonly now: Date
  /** The environment's `DATABASE_URL`. */
  readonly databaseUrl: string | undefined
  out(line: string): void
  /** For what is no result. */
  note(line: string): void
}

/** A command cannot do what it was asked; the message says what to do. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
}
