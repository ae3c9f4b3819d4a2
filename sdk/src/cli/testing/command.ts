import { type Command, CommandError, type Io } from '../command.ts'

export interface Said {
  readonly out: readonly string[]
  readonly notes: readonly string[]
  /** The message of its error; a command that succeeds has none. */
  readonly error: string | undefined
}

/** Runs a command in this process. */
export async function said(command: Command, args: readonly string[], io: Partial<Io> = {}): Promise<Said> {
  const out: string[] = []
  const notes: string[] = []
  const all: Io = {
    cwd: process.cwd(),
    now: new Date(),
    environment: {},
    ask: undefined,
    out: (line) => out.push(line),
    note: (line) => notes.push(line),
    ...io,
  }
  try {
    await command.run(args, all)
    return { out, notes, error: undefined }
  } catch (error) {
    if (error instanceof CommandError) return { out, notes, error: error.message }
    throw error
  }
}
