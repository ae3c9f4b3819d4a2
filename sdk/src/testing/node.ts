import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const cache = fileURLToPath(new URL('../../../node_modules/.cache/node', import.meta.url))

/**
 * A Node of the given version, from npm; there are such packages for Linux. It is no dependency of this repository, since its
 * command `node` would take the place of the one that runs `npm test`.
 *
 * @returns the path of its executable
 */
export async function installNode(version: string): Promise<string> {
  const folder = join(cache, version)
  const name = `node-${process.platform}-${process.arch}`
  const executable = join(folder, 'node_modules', name, 'bin/node')
  if (existsSync(executable)) return executable
  await mkdir(folder, { recursive: true })
  await run('npm', [
    'install',
    '--prefix',
    folder,
    '--no-save',
    '--no-audit',
    '--no-fund',
    `${name}@${version}`,
  ])
  return executable
}
