import { randomBytes } from 'node:crypto'
import { chown, mkdir, readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Account, assertReachable } from './account.ts'
import { LocalSupabaseError } from './errors.ts'

/** What a stack keeps between starts. */
export interface DataDir {
  /** Postgres' data, in a folder that may not exist yet. */
  data: string
  jwtSecret: string
}

export const newSecret = () => randomBytes(32).toString('base64url')

/**
 * Opens or creates a folder that keeps a stack; the secret in it is what the stack's keys and passwords derive from.
 *
 * @throws {LocalSupabaseError} where this process or the account has no access
 */
export async function openDataDir(path: string, account: Account | undefined): Promise<DataDir> {
  try {
    await mkdir(path, { recursive: true })
    const folder = await realpath(path)
    const data = join(folder, 'postgres')
    if (account) await assertReachable(data, account)
    return { data, jwtSecret: await keptSecret(join(folder, 'jwt-secret'), account) }
  } catch (cause) {
    if (cause instanceof LocalSupabaseError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    const message = `The data folder ${path} cannot be used (${code}): choose another one, or change its owner.`
    throw new LocalSupabaseError(message, { cause })
  }
}

async function keptSecret(file: string, account: Account | undefined): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const secret = newSecret()
  await writeFile(file, `${secret}\n`, { mode: 0o600 })
  if (account) await chown(file, account.uid, account.gid)
  return secret
}
