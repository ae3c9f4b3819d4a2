import { gzipSync } from 'node:zlib'
import { type BuildOptions, build, type Metafile } from 'esbuild'

/** Bytes, gzipped, that a page may load for the client; supabase-js is the application's own. */
export const limit = 8192

export interface Bundle {
  /** Bytes, gzipped, of what is loaded first. */
  readonly size: number
  /** The modules in what is loaded first. */
  readonly first: readonly string[]
  /** The modules in the whole. */
  readonly inputs: readonly string[]
}

/** Bundles a module as a page's build does. */
export async function bundle(entryPoint: string, options: BuildOptions): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    ...options,
    entryPoints: [{ in: entryPoint, out: 'index' }],
    bundle: true,
    minify: true,
    splitting: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    outdir: 'bundle',
    write: false,
    metafile: true,
  })
  const first = loadedFirst(metafile)
  const files = outputFiles.filter(({ path }) => first.some((output) => path.endsWith(`/${output}`)))
  return {
    size: files.reduce((size, { contents }) => size + gzipSync(contents, { level: 9 }).length, 0),
    first: first.flatMap((path) => Object.keys(metafile.outputs[path]!.inputs)),
    inputs: Object.keys(metafile.inputs),
  }
}

/** The entry point, and the chunks that it cannot do without. */
function loadedFirst({ outputs }: Metafile): string[] {
  const found = Object.keys(outputs).filter(
    (path) => outputs[path]!.entryPoint !== undefined && path.endsWith('/index.js'),
  )
  for (const path of found) {
    for (const { kind, path: chunk } of outputs[path]!.imports) {
      if (kind === 'import-statement' && !found.includes(chunk)) found.push(chunk)
    }
  }
  return found
}
