import { gzipSync } from 'node:zlib'
import { type BuildOptions, build, type ImportKind } from 'esbuild'

/** Bytes, gzipped, that a page may load for the client; supabase-js is the application's own. */
export const limit = 6144

export interface Bundle {
  /** Bytes, gzipped, of what is loaded first. */
  readonly size: number
  /** How it loads the rest. */
  readonly imports: ReadonlySet<ImportKind>
  /** What the whole is made of. */
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
  const first = outputFiles.find(({ path }) => path.endsWith('/index.js'))!
  const { imports } = Object.values(metafile.outputs).find((output) => output.entryPoint !== undefined)!
  return {
    size: gzipSync(first.contents, { level: 9 }).length,
    imports: new Set(imports.map(({ kind }) => kind as ImportKind)),
    inputs: Object.keys(metafile.inputs),
  }
}
