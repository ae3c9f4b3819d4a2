import { stat } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'
import type { AnyFlow } from '../flow/definition.ts'
import { CommandError } from './command.ts'

/**
 * The flows that a module exports, by the names of the exports, in the order of their slugs.
 *
 * @throws CommandError if it cannot be imported, or exports no flow, or two of one slug
 */
export async function flowsOf(file: string): Promise<Map<string, AnyFlow>> {
  const flows = Object.entries(await importModule(file)).filter((entry): entry is [string, AnyFlow] =>
    isFlow(entry[1]),
  )
  const named = [...new Map(flows.map(([name, flow]) => [flow, name]))].map(
    ([flow, name]) => [name, flow] as const,
  )
  if (named.length === 0) {
    throw new CommandError(`${file} exports no flow: write \`export const MyFlow = new Flow(…)\``)
  }
  const sorted = named.sort(([, one], [, other]) => (one.slug < other.slug ? -1 : 1))
  const twice = sorted.find(([, { slug }], index) => sorted[index + 1]?.[1].slug === slug)
  if (twice !== undefined) {
    throw new CommandError(`${file} exports two flows "${twice[1].slug}": give one another slug or version`)
  }
  return new Map(sorted)
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

async function importModule(file: string): Promise<object> {
  if (!(await stat(file).catch(() => undefined))) throw new CommandError(`There is no file ${file}`)
  const url = pathToFileURL(file).href
  try {
    const tsx = await loadTsx()
    return tsx === undefined ? await import(url) : await tsx.tsImport(url, { parentURL: url })
  } catch (cause) {
    throw new CommandError(explain(file, cause), { cause })
  }
}

/** Node reads TypeScript by itself from 22.18 on, but not everything that tsx reads. */
async function loadTsx(): Promise<typeof import('tsx/esm/api') | undefined> {
  return import('tsx/esm/api').catch(() => undefined)
}

function explain(file: string, cause: unknown): string {
  const { code, message } = (cause ?? {}) as { code?: unknown; message?: unknown }
  return code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?tsx?$/.test(file)
    ? `${file} is TypeScript, which this Node does not read: npm install --save-dev tsx, or use Node 22.18 or newer`
    : `${file} cannot be imported: ${message ?? cause}`
}
