import { type StatsListener, unwatchFile, watchFile } from 'node:fs'

/** Milliseconds between two looks at a file. Polling works in containers and on network drives, and for editors that rename. */
const interval = 250

/** Calls back when one of some files changes, appears or disappears. A folder changes with its list of files. */
export class FileWatch {
  readonly #onChange: StatsListener
  #files: ReadonlySet<string> = new Set()

  constructor(onChange: () => void) {
    this.#onChange = (now, before) => {
      if (now.mtimeMs !== before.mtimeMs || now.size !== before.size) onChange()
    }
  }

  /** From now on these. */
  set(files: ReadonlySet<string>): void {
    for (const file of this.#files) if (!files.has(file)) unwatchFile(file, this.#onChange)
    for (const file of files) if (!this.#files.has(file)) watchFile(file, { interval }, this.#onChange)
    this.#files = new Set(files)
  }

  add(files: Iterable<string>): void {
    this.set(new Set([...this.#files, ...files]))
  }

  close(): void {
    this.set(new Set())
  }
}
