import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { LocalSupabaseError } from './errors.ts'

/** The account that runs Postgres when this process is root, which Postgres refuses to be. */
export interface Account {
  uid: number
  gid: number
}

/**
 * Undefined for an ordinary user, who runs Postgres himself. Root runs it as the owner of the data folder, or as
 * `postgres` or `nobody`.
 */
export async function postgresAccount(dataDir: string | undefined): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const owner = dataDir && (await stat(dataDir).catch(() => undefined))
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }
  const account = (await lookUp('postgres')) ?? (await lookUp('nobody'))
  if (account) return account
  throw new LocalSupabaseError(
    'Postgres does not run as root, and there is neither an account "postgres" nor "nobody" to run it as: start as an ordinary user.',
  )
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
  const { mode, uid, gid } = await stat(parent)
  const execute = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
  if (mode & execute) return
  throw new LocalSupabaseError(
    `Postgres runs as the account with uid ${account.uid}, which may not enter ${parent}: choose another data folder (or TMPDIR), or run chmod o+x ${parent}.`,
  )
}
