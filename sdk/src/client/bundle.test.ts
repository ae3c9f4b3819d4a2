import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { expect, it } from 'vitest'

const entry = fileURLToPath(new URL('./index.ts', import.meta.url))

/** Bytes, gzipped, that a page loads for the client; supabase-js is the application's own. */
const limit = 6144

async function bundle() {
  const { outputFiles, metafile } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    splitting: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    conditions: ['pgflow-source'],
    outdir: 'bundle',
    write: false,
    metafile: true,
  })
  const first = outputFiles.find(({ path }) => path.endsWith('/index.js'))!
  return { first, outputFiles, metafile }
}

it(`is at most ${limit} bytes, gzipped`, async ({ annotate }) => {
  const { first, metafile } = await bundle()
  const size = gzipSync(first.contents, { level: 9 }).length
  await annotate(`${size} bytes gzipped`, 'size')
  expect(size).toBeLessThanOrEqual(limit)
  expect(size).toBeGreaterThan(limit / 2)
  // What is loaded with it would count too; only the reasons of a refusal come later.
  const entryPoint = Object.values(metafile.outputs).find((output) =>
    output.entryPoint?.endsWith('client/index.ts'),
  )!
  expect(new Set(entryPoint.imports.map(({ kind }) => kind))).toEqual(new Set(['dynamic-import']))
})

it('has nothing of supabase-js, of Node or of the worker in it', async () => {
  const { metafile } = await bundle()
  const folders = Object.keys(metafile.inputs).map((path) => path.replace(/[^/]+$/, ''))
  expect(new Set(folders)).toEqual(new Set(['sdk/src/client/', 'sdk/src/flow/', 'node_modules/nanoevents/']))
})
