/**
 * Packs @pgflow/sdk and @pgflow/local as they are published: `npm run pack` writes dist/pgflow-sdk.tgz and
 * dist/pgflow-local.tgz. Each is built into a folder of its own, so that any number of builds may run at once.
 */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { buildMigrations } from '../sdk/scripts/build-migrations.ts'
import { packedPages } from './pages.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))
const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')

/** The packages that are published, by the folders of their sources. */
export const packages = { sdk: '@pgflow/sdk', local: '@pgflow/local' } as const

export type Folder = keyof typeof packages

/** Writes `pgflow-sdk.tgz` and `pgflow-local.tgz` into a folder that exists. */
export async function pack(destination: string): Promise<void> {
  await Promise.all((Object.keys(packages) as Folder[]).map((folder) => packFolder(folder, destination)))
}

async function packFolder(folder: Folder, destination: string): Promise<void> {
  const source = join(root, folder)
  const stage = await mkdtemp(join(tmpdir(), `pgflow-pack-${folder}-`))
  try {
    const build = join(source, 'tsconfig.build.json')
    await run(process.execPath, [tsc, '-p', build, '--outDir', join(stage, 'dist')], { cwd: root }).catch(
      ({ stdout }: { stdout: string }) => {
        throw new Error(`${folder} does not compile:\n${stdout}`)
      },
    )
    await describeForDeno(join(stage, 'dist'))
    await write(stage, await filesOf(folder))
    if (folder === 'local') await cp(join(source, 'sql'), join(stage, 'sql'), { recursive: true })
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', destination], { cwd: stage })
    const [{ filename }] = JSON.parse(stdout)
    await rename(join(destination, filename), join(destination, `pgflow-${folder}.tgz`))
  } finally {
    await rm(stage, { recursive: true })
  }
}

/**
 * Deno takes a module's types from where the module says that they are, and needs the names of files as they are. (Where npm
 * resolves a package, its manifest says the same; a Supabase function may import the files themselves.)
 */
async function describeForDeno(dist: string): Promise<void> {
  const names = await readdir(dist, { recursive: true })
  for (const name of names) {
    const path = join(dist, name)
    if (name.endsWith('.d.ts')) {
      const text = await readFile(path, 'utf8')
      await writeFile(path, text.replaceAll(/((?:from|import\()\s*'\.[^']+)\.ts'/g, "$1.js'"))
    } else if (name.endsWith('.js')) {
      const text = await readFile(path, 'utf8')
      const isDirective = text.startsWith('#!') || text.startsWith("'use client'")
      const types = `// @ts-self-types="./${basename(name, '.js')}.d.ts"\n`
      if (!isDirective) await writeFile(path, types + text)
    }
  }
}

/** What a package holds besides what is compiled and copied. */
async function filesOf(folder: Folder): Promise<Record<string, string | Buffer>> {
  const source = (name: string) => readFile(join(root, folder, name), 'utf8')
  const files = {
    'package.json': publishedManifest(await source('package.json')),
    LICENSE: await source('LICENSE'),
  }
  if (folder === 'local') {
    const names = ['README.md', 'NOTICE', 'LICENSE-APACHE']
    return {
      ...files,
      ...Object.fromEntries(await Promise.all(names.map(async (name) => [name, await source(name)]))),
    }
  }
  const migrations = Object.entries(await buildMigrations()).map(([name, sql]) => [`migrations/${name}`, sql])
  const templates = ['index.ts', 'flows.ts'].map(async (name) => [
    `templates/flow-worker/${name}`,
    await readFile(join(root, 'supabase/functions/flow-worker', name), 'utf8'),
  ])
  return {
    ...files,
    ...Object.fromEntries(migrations),
    ...Object.fromEntries(await Promise.all(templates)),
    ...(await packedPages(root)),
  }
}

/** Without what is of use in this repository only. */
function publishedManifest(text: string): string {
  const { private: _, scripts, devDependencies, exports, ...manifest } = JSON.parse(text)
  for (const conditions of Object.values<Record<string, string>>(exports)) {
    Reflect.deleteProperty(conditions, 'pgflow-source')
  }
  return `${JSON.stringify({ ...manifest, exports }, null, 2)}\n`
}

async function write(folder: string, files: Readonly<Record<string, string | Buffer>>): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), content)
  }
}

async function main(): Promise<void> {
  const destination = join(root, 'dist')
  await rm(destination, { recursive: true, force: true })
  await mkdir(destination)
  await pack(destination)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main()
