import { access, chmod, constants, mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const memory = '/dev/shm'
/** Bytes: room for the databases and apps of tests that run side by side. */
const needed = 8 * 2 ** 30

/**
 * Makes a folder for the templates of local stacks and, where Linux has enough memory, for all temporary files of the tests: a
 * Postgres has a thousand files, and creating them on a disk takes up to half of the processor time of its start. If `TMPDIR` is set,
 * temporary files are there.
 */
export async function setup(): Promise<() => Promise<void>> {
  const isInMemory = !process.env.TMPDIR && (await hasRoom())
  const folder = await mkdtemp(join(isInMemory ? memory : tmpdir(), 'pgflow-tests-'))
  await chmod(folder, 0o1777) // root runs Postgres as another account
  if (isInMemory) process.env.TMPDIR = folder
  process.env.PGFLOW_TEMPLATES = folder
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
