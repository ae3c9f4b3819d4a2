import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Change } from './changes.ts'
import { CommandError } from './command.ts'
import { defaultModule } from './worker.ts'

const functionPath = 'supabase/functions/flow-worker'

/** Where the package has what it writes; the repository uses the same files itself. */
const templates = import.meta.url.endsWith('.js')
  ? new URL('../../templates/flow-worker/', import.meta.url)
  : new URL(`../../../${functionPath}/`, import.meta.url)

interface Manifest {
  readonly version: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
  readonly scripts?: Readonly<Record<string, string>>
}

/** The files that a project lacks: an Edge Function that is a worker, with a flow, and the script of a Node worker. */
export async function scaffold(folder: string): Promise<Change[]> {
  const manifest = await readManifest(join(folder, 'package.json'))
  const files = [
    {
      path: `${functionPath}/index.ts`,
      text: await template('index.ts'),
      what: 'the worker as an Edge Function',
    },
    { path: defaultModule, text: await template('flows.ts'), what: 'your flows, with an example' },
    {
      path: `${functionPath}/deno.json`,
      text: await denoConfig(manifest),
      what: 'where Deno finds the packages',
    },
  ].filter(({ path }) => !existsSync(join(folder, path)))
  return manifest === undefined || manifest.value.scripts?.worker !== undefined
    ? files
    : [...files, withWorkerScript(manifest)]
}

function template(name: string): Promise<string> {
  return readFile(new URL(name, templates), 'utf8')
}

interface ManifestFile {
  readonly text: string
  readonly value: Manifest
}

async function readManifest(path: string): Promise<ManifestFile | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  try {
    return { text, value: JSON.parse(text) }
  } catch (cause) {
    throw new CommandError(`package.json cannot be read: ${(cause as Error).message}`, { cause })
  }
}

function withWorkerScript({ text, value }: ManifestFile): Change {
  const indent = /^[ \t]+/m.exec(text)?.[0] ?? '  '
  const scripts = { ...value.scripts, worker: `pgflow worker ${defaultModule}` }
  return {
    path: 'package.json',
    text: `${JSON.stringify({ ...value, scripts }, null, indent)}\n`,
    what: 'adds the script "worker", a worker in Node',
    isEdit: true,
  }
}

/** As npm has it; if the project has it from a file, from there, since the package may not be on npm. */
async function denoConfig(manifest: ManifestFile | undefined): Promise<string> {
  const own = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as Manifest
  const spec =
    { ...manifest?.value.devDependencies, ...manifest?.value.dependencies }['@pgflow/sdk'] ?? own.version
  const isFile = /^(file|link|portal|workspace):|\.tgz$/.test(spec)
  const imports = isFile ? importsOfFiles(own) : importsOfNpm(own.version)
  return `${JSON.stringify({ imports }, null, 2)}\n`
}

function importsOfNpm(version: string): Record<string, string> {
  return Object.fromEntries(
    ['flow', 'worker'].map((name) => [`@pgflow/sdk/${name}`, `npm:@pgflow/sdk@${version}/${name}`]),
  )
}

function importsOfFiles({ dependencies = {} }: Manifest): Record<string, string> {
  const own = ['flow', 'worker'].map((name) => [
    `@pgflow/sdk/${name}`,
    `../../../node_modules/@pgflow/sdk/dist/${name}/index.js`,
  ])
  const needed = ['@standard-schema/spec', 'postgres'].map((name) => [
    name,
    `npm:${name}@${dependencies[name]}`,
  ])
  return Object.fromEntries([...own, ...needed])
}
