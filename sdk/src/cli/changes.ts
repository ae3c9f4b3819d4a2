import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Io } from './command.ts'

/** What a command does to a file of the project. */
export interface Change {
  /** From the project's folder. */
  readonly path: string
  readonly text: string
  /** What it says there: `adds pgflow_public to the exposed schemas`. */
  readonly what: string
  /** Whether the file exists; a new one is never written over another. @default false */
  readonly isEdit?: boolean
}

/** Makes all changes and says which, or only says which. */
export async function makeChanges(changes: readonly Change[], isDryRun: boolean, io: Io): Promise<void> {
  for (const { path, text, what, isEdit = false } of changes) {
    if (!isDryRun) {
      await mkdir(dirname(join(io.cwd, path)), { recursive: true })
      await writeFile(join(io.cwd, path), text, { flag: isEdit ? 'w' : 'wx' })
    }
    const verb = isEdit ? ['would change', 'changed'] : ['would write', 'wrote']
    io.out(`${verb[isDryRun ? 0 : 1]} ${path}: ${what}`)
  }
}
