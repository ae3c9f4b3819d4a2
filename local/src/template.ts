import { execFile } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import {
  lstat,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Account } from './account.ts'

/** Ms: a template that was not used for so long is removed when another is made. */
const UNUSED = 7 * 24 * 3600 * 1000

/**
 * The data of a Postgres that has been bootstrapped, of which later stacks take a copy. There is one for each version of everything
 * that goes into it; templates belong to the account that runs Postgres, and nobody else can read them.
 */
export class Template {
  readonly #folder: string
  readonly #key: string
  readonly #account: Account | undefined
  /** Of the superuser in the data that were copied; `undefined` where none were. */
  password: string | undefined

  private constructor(folder: string, key: string, account: Account | undefined) {
    this.#folder = folder
    this.#key = key
    this.#account = account
  }

  /**
   * @param folder where the templates are
   * @param parts everything that decides what the data are, beside the server itself
   */
  static async of(
    folder: string,
    native: string,
    account: Account | undefined,
    parts: readonly string[],
  ): Promise<Template> {
    const { size, mtimeMs } = await stat(join(native, 'bin', 'postgres'))
    const uid = account?.uid ?? process.getuid!()
    const key = JSON.stringify([await realpath(native), size, mtimeMs, ...parts])
    return new Template(
      join(await realpath(folder), `templates-${uid}`),
      createHash('sha256').update(key).digest('hex').slice(0, 32),
      account,
    )
  }

  /**
   * Copies the data to a folder that does not exist.
   *
   * @returns whether there was a template
   */
  async copyTo(data: string): Promise<boolean> {
    const template = join(this.#folder, this.#key)
    try {
      await this.#assertOwn()
      const password = await readFile(join(template, 'password'), 'utf8')
      await utimes(template, new Date(), new Date())
      await this.#run('cp', '-R', join(template, 'data'), data)
      this.password = password
      return true
    } catch {
      await rm(data, { recursive: true, force: true }) // there is none, or it was removed meanwhile
      return false
    }
  }

  /** Makes the template of the data of a server that does not run; it is there as a whole or not at all. */
  async save(data: string, password: string): Promise<void> {
    const unfinished = join(this.#folder, `unfinished-${randomUUID()}`)
    try {
      await this.#run('mkdir', '-p', '-m', '700', this.#folder)
      await this.#assertOwn()
      await this.#removeUnused()
      await this.#run('mkdir', '-m', '700', unfinished)
      await this.#run('cp', '-R', data, join(unfinished, 'data'))
      await writeFile(join(unfinished, 'password'), password, { mode: 0o600 })
      await flush(unfinished)
      await rename(unfinished, join(this.#folder, this.#key))
    } catch {
      await rm(unfinished, { recursive: true, force: true }) // another process was faster, or the disk is full
    }
  }

  /** The folder is where everybody may write: somebody else's is not used. */
  async #assertOwn(): Promise<void> {
    const found = await lstat(this.#folder)
    const uid = this.#account?.uid ?? process.getuid!()
    if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
      throw new Error(`${this.#folder} belongs to somebody else`)
    }
  }

  async #removeUnused(): Promise<void> {
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name)
      const { mtimeMs } = await stat(path)
      if (Date.now() - mtimeMs > UNUSED) await rm(path, { recursive: true, force: true })
    }
  }

  async #run(command: string, ...args: string[]): Promise<void> {
    await promisify(execFile)(command, args, { ...this.#account, cwd: '/' })
  }
}

/** Writes a folder's files to the disk, so that after a power cut no template has some of them empty. */
async function flush(folder: string): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true })
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) await flush(path)
    else await sync(path)
  }
  await sync(folder)
}

async function sync(path: string): Promise<void> {
  const file = await open(path)
  await file.sync().finally(() => file.close())
}
