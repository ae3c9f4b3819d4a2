import type { Environment } from './environment.ts'

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
  /** The variables of the process and of the folder's `.env` files. */
  readonly environment: Environment
  /** Asks a question that is answered by yes or no, unless its signal withdraws it; `undefined` without a terminal. */
  readonly ask: ((question: string, signal?: AbortSignal) => Promise<boolean>) | undefined
  out(line: string): void
  /** For what is no result. */
  note(line: string): void
}

/** A command cannot do what it was asked; the message says what to do. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
}
