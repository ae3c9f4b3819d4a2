import { randomUUID } from 'node:crypto'
import { stat } from 'node:fs/promises'
import * as nodeModule from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { AnyFlow } from '../flow/definition.ts'
import { relatedFlows } from '../flow/related.ts'
import { CommandError } from './command.ts'

/**
 * The flows that a module exports, by the names of the exports, in the order of their slugs.
 *
 * @throws CommandError if it cannot be imported, or exports no flow, or two of one slug
 */
export async function flowsOf(file: string): Promise<Map<string, AnyFlow>> {
  const flows = Object.entries(await importModule(file, await importer())).filter(
    (entry): entry is [string, AnyFlow] => isFlow(entry[1]),
  )
  const named = [...new Map(flows.map(([name, flow]) => [flow, name]))].map(
    ([flow, name]) => [name, flow] as const,
  )
  if (named.length === 0) {
    throw noFlow(file)
  }
  const sorted = named.sort(([, one], [, other]) => (one.slug < other.slug ? -1 : 1))
  const twice = sorted.find(([, { slug }], index) => sorted[index + 1]?.[1].slug === slug)
  if (twice !== undefined) {
    throw new CommandError(
      `${file} exports two flows "${twice[1].slug}": give one of them another slug or version`,
    )
  }
  return new Map(sorted)
}

/**
 * The flows that modules export, by themselves or in arrays, and those that belong to them.
 *
 * @param onImport is told of each file that is imported for it, as far as the loader says
 * @throws CommandError if a module cannot be imported, or exports no flow, or two of one slug are exported
 */
export async function flowsIn(
  files: readonly string[],
  onImport?: (file: string) => void,
): Promise<AnyFlow[]> {
  const flows = new Set<AnyFlow>()
  const load = await importer(onImport)
  for (const file of files) {
    const found = Object.values(await importModule(file, load))
      .flat()
      .filter(isFlow)
    if (found.length === 0) throw noFlow(file)
    for (const flow of found) flows.add(flow)
  }
  const slugs = [...flows].map(({ slug }) => slug)
  const twice = slugs.find((slug, index) => slugs.indexOf(slug) !== index)
  if (twice !== undefined) {
    throw new CommandError(
      `${files.join(' and ')} export two flows "${twice}": give one of them another slug or version`,
    )
  }
  return related([...flows])
}

/**
 * The flows with their sub-flows, which come first.
 *
 * @throws CommandError if two different flows have one slug
 */
export function related(flows: readonly AnyFlow[]): AnyFlow[] {
  try {
    return relatedFlows(flows)
  } catch (cause) {
    throw new CommandError((cause as Error).message, { cause })
  }
}

function noFlow(file: string): CommandError {
  return new CommandError(`${file} exports no flow: write \`export const MyFlow = new Flow(…)\``)
}

/** By what it has, since the module may have another copy of the class. */
function isFlow(value: unknown): value is AnyFlow {
  const { slug, alias, steps, options } = (value ?? {}) as Partial<Record<keyof AnyFlow, unknown>>
  return (
    typeof slug === 'string' &&
    typeof alias === 'string' &&
    steps instanceof Map &&
    typeof options === 'object'
  )
}

async function importModule(file: string, load: (url: string) => Promise<object>): Promise<object> {
  if (!(await stat(file).catch(() => undefined))) throw new CommandError(`There is no file ${file}`)
  try {
    return await load(pathToFileURL(file).href)
  } catch (cause) {
    throw new CommandError(explain(file, cause), { cause })
  }
}

/** Imports modules afresh. Those that it imports share what they import: a flow that is a sub-flow of another module's is the same. */
async function importer(onImport?: (file: string) => void): Promise<(url: string) => Promise<object>> {
  const onUrl = onImport && fromUrl(onImport)
  const tsx = await loadTsx()
  if (tsx !== undefined) {
    const namespace = randomUUID()
    tsx.cjs.register({ namespace })
    const scoped = tsx.esm.register({ namespace, ...(onUrl && { onImport: onUrl }) })
    return (url) => scoped.import(url, url)
  }
  if (onUrl !== undefined) observeImports(onUrl)
  return (url) => import(url)
}

function fromUrl(onFile: (file: string) => void): (url: string) => void {
  return (url) => {
    if (url.startsWith('file:')) onFile(fileURLToPath(url))
  }
}

/** Node has this from 22.15 on. */
function observeImports(onUrl: (url: string) => void): void {
  const { registerHooks } = nodeModule as { registerHooks?: (hooks: object) => void }
  registerHooks?.({
    load(url: string, context: object, next: (url: string, context: object) => unknown) {
      onUrl(url)
      return next(url, context)
    },
  })
}

/** Node reads TypeScript by itself from 22.18 on, but not everything that tsx reads. */
async function loadTsx() {
  const load = async () => ({ esm: await import('tsx/esm/api'), cjs: await import('tsx/cjs/api') })
  return load().catch(() => undefined)
}

function explain(file: string, cause: unknown): string {
  const { code, message } = (cause ?? {}) as { code?: unknown; message?: unknown }
  return code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?tsx?$/.test(file)
    ? `${file} is TypeScript, which this Node does not read: npm install --save-dev tsx, or use Node 22.18 or newer`
    : `${file} cannot be imported: ${message ?? cause}`
}
