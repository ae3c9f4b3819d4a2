import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { LocalSupabaseError } from './errors.ts'

/** The account that runs Postgres when this process is root, which Postgres refuses to be. */
export interface Account {
  uid: number
  gid: number
}

/**
 * Undefined for an ordinary user, who runs Postgres himself. Root runs it as the owner of the kept data, or as
 * `postgres` or `nobody`.
 */
export async function postgresAccount(dataDir: string | undefined): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const kept = dataDir && ((await ownerOf(join(dataDir, 'postgres'))) ?? (await ownerOf(dataDir)))
  const account = kept || ((await lookUp('postgres')) ?? (await lookUp('nobody')))
  if (account) return account
  throw new LocalSupabaseError(
    'Postgres does not run as root, and there is neither an account "postgres" nor "nobody" to run it as: start as an ordinary user.',
  )
}

async function ownerOf(path: string): Promise<Account | undefined> {
  const owner = await stat(path).catch(() => undefined)
  return owner && owner.uid !== 0 ? { uid: owner.uid, gid: owner.gid } : undefined
}

async function lookUp(name: string): Promise<Account | undefined> {
  const id = async (flag: string) => Number((await promisify(execFile)('id', [flag, name])).stdout)
  try {
    return { uid: await id('-u'), gid: await id('-g') }
  } catch {
    return undefined // no such account
  }
}

/**
 * Makes sure that the account can enter every folder above `path`.
 *
 * @throws {LocalSupabaseError} naming the folder that keeps it out
 */
export async function assertReachable(path: string, account: Account): Promise<void> {
  const parent = dirname(path)
  if (parent !== path) await assertReachable(parent, account)
  if (await may(account, 'x', parent)) return
  throw new LocalSupabaseError(
    `Postgres runs as the account with uid ${account.uid}, which may not enter ${parent}: choose another data folder (or TMPDIR), or run chmod o+x ${parent}.`,
  )
}

/**
 * Makes sure that the account can remove its own folder from this one.
 *
 * @throws {LocalSupabaseError} where it cannot
 */
export async function assertWritable(folder: string, account: Account): Promise<void> {
  if (await may(account, 'w', folder)) return
  throw new LocalSupabaseError(
    `Postgres runs as the account with uid ${account.uid}, which may not write to ${folder}: set TMPDIR to a folder that everybody may write to, such as /tmp.`,
  )
}

const PERMISSIONS = { x: 0o1, w: 0o2 }

async function may(account: Account, permission: keyof typeof PERMISSIONS, folder: string): Promise<boolean> {
  const { mode, uid, gid } = await stat(folder)
  const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0
  return ((mode >> shift) & PERMISSIONS[permission]) !== 0
}
