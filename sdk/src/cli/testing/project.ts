import { chmod, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { fromSources, startProcess, type WorkerProcess } from '../../worker/testing/process.ts'
import { main, root } from './pgflow.ts'

/** A user's project, in which the packages are found. */
export interface Project {
  readonly folder: string
  write(path: string, text: string): Promise<void>
  /** Starts the CLI in it. */
  start(...args: string[]): WorkerProcess
}

/** A folder with these files, until the test ends. */
export async function newProject(files: Readonly<Record<string, string>> = {}): Promise<Project> {
  const folder = await mkdtemp(join(await realpath(tmpdir()), 'pgflow-project-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o755) // for the account that runs Postgres
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  const write = async (path: string, text: string) => {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  for (const [path, text] of Object.entries(files)) await write(path, text)
  return {
    folder,
    write,
    start: (...args) => startProcess([...fromSources, main, ...args], folder, 'pipe'),
  }
}
