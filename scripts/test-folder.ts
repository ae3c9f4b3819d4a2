import { access, chmod, constants, mkdtemp, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'

const memory = '/dev/shm'
/** Bytes: room for the databases and apps of tests that run side by side. */
const needed = 8 * 2 ** 30

/**
 * Where Linux has memory enough, the temporary files of the tests are in memory: the data of a Postgres are a thousand files,
 * and creating them on a disk takes up to half of the processor time of its start. `TMPDIR` says otherwise.
 */
export async function setup(): Promise<(() => Promise<void>) | undefined> {
  if (process.env.TMPDIR || !(await hasRoom())) return undefined
  const folder = await mkdtemp(join(memory, 'pgflow-tests-'))
  await chmod(folder, 0o1777) // root runs Postgres as another account
  process.env.TMPDIR = folder
  return () => rm(folder, { recursive: true, force: true })
}

async function hasRoom(): Promise<boolean> {
  try {
    await access(memory, constants.W_OK)
    const { bavail, bsize } = await statfs(memory)
    return Math.min(bavail * bsize, process.availableMemory()) > needed
  } catch {
    return false
  }
}
