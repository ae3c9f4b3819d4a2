import { existsSync } from 'node:fs'
import { cp, readdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as local from '../../local/src/index.ts'
import { installSql, uninstallSql, upgradeSql } from './cli/migration-sql.ts'
import * as client from './client/index.ts'
import { bundle, limit } from './client/testing/bundle.ts'
import * as flow from './flow/index.ts'
import * as react from './react/index.ts'
import { PackedPackages, type Project, packageNames } from './testing/packages.ts'
import * as worker from './worker/index.ts'

const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
const migrations = fileURLToPath(new URL('../../supabase/migrations', import.meta.url))

let packages: PackedPackages
/** Has what the packages cannot do without. */
let bare: Project
/** Has the optional packages too. */
let full: Project

beforeAll(async () => {
  packages = await PackedPackages.pack()
  bare = await packages.project('bare')
  full = await packages.project('full', [
    '@supabase/supabase-js',
    'react',
    'tsx',
    'ts-json-schema-generator',
    '@types/node',
    '@types/react',
    '@types/ws',
  ])
  await cp(fileURLToPath(new URL('./testing/app', import.meta.url)), full.folder, { recursive: true })
})
afterAll(() => packages?.[Symbol.asyncDispose]())

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

it('@pgflow/sdk has the SQL that its sources make', async () => {
  const packed = await import(join(bare.pathOf('@pgflow/sdk'), 'dist/cli/migration-sql.js'))
  expect(await packed.installSql()).toBe(await installSql())
  expect(await packed.upgradeSql(1)).toBe(await upgradeSql(1))
  expect(await packed.uninstallSql()).toBe(await uninstallSql())
})

describe.each(packageNames)('%s', (name) => {
  it('has every file that its package.json names', async () => {
    const { bin, exports } = await bare.manifestOf(name)
    const named = [exports, { bin: bin ?? {} }].flatMap(Object.values).flatMap(Object.values<string>)
    expect(named.filter((path) => !existsSync(join(bare.pathOf(name), path)))).toEqual([])
  })

  it('gives the types, the code and the source of one module', async () => {
    const { exports } = await bare.manifestOf(name)
    const modules = Object.values(exports).map((paths) =>
      Object.values(paths).map((path) => path.replace(/^\.\/(src|dist)\/|(\.d)?\.[jt]s$/g, '')),
    )
    expect(modules).toEqual(modules.map(([module]) => [module, module, module]))
  })

  it('has no tests, nor what only they use', async () => {
    const folder = bare.pathOf(name)
    const paths = (await filesIn(folder)).map((path) => path.slice(folder.length))
    expect(paths.filter((path) => /test|fixture/.test(path))).toEqual([])
    const folders = name === '@pgflow/local' ? ['dist', 'sql', 'src'] : ['dist', 'migrations', 'src']
    expect((await readdir(folder)).sort()).toEqual(
      ['LICENSE', 'README.md', 'package.json', ...folders].sort(),
    )
  })

  it('has the source of all that is compiled', async () => {
    const files = await filesIn(join(bare.pathOf(name), 'dist'))
    const compiled = files.filter((path) => /\.[jt]s$/.test(path))
    expect(compiled.filter((path) => !files.includes(`${path}.map`))).toEqual([])
    for (const path of compiled) {
      const { sources } = JSON.parse(await readFile(`${path}.map`, 'utf8'))
      const missing = sources.filter((source: string) => !existsSync(resolve(dirname(path), source)))
      expect([path, sources.length, missing]).toEqual([path, 1, []])
    }
  })
})

describe('In plain Node', () => {
  const namesIn = (project: Project, entry: string) =>
    project.node(`console.log(Object.keys(await import('${entry}')).join())`)

  it.each([
    ['@pgflow/sdk', client],
    ['@pgflow/sdk/flow', flow],
    ['@pgflow/sdk/worker', worker],
    ['@pgflow/local', local],
  ])('%s can be imported, without any optional package', async (entry, source) => {
    expect(await namesIn(bare, entry)).toBe(Object.keys(source).sort().join())
  })

  it('@pgflow/sdk/react can be imported where React is', async () => {
    expect(await namesIn(full, '@pgflow/sdk/react')).toBe(Object.keys(react).sort().join())
    await expect(namesIn(bare, '@pgflow/sdk/react')).rejects.toThrow("Cannot find package 'react'")
  })
})

it('A worker of the package extends its leases while a handler blocks the event loop', async () => {
  const look = `
    import postgres from 'postgres'
    await new Promise((resolve) => setTimeout(resolve, 2500))
    const sql = postgres(process.argv[1])
    const [message] = await sql\`select vt > clock_timestamp() as held from pgmq.q_packed\`
    process.stdout.write(String(message.held))
    await sql.end()`
  const program = `
    import { execFileSync } from 'node:child_process'
    import { startLocalSupabase } from '@pgflow/local'
    import { Flow } from '@pgflow/sdk/flow'
    import { startWorker } from '@pgflow/sdk/worker'
    import postgres from 'postgres'
    const stack = await startLocalSupabase({ migrations: [${JSON.stringify(migrations)}], fsync: false })
    const look = ['--input-type=module', '--eval', ${JSON.stringify(look)}, stack.dbUrl]
    let tell
    const isHeld = new Promise((resolve) => { tell = resolve })
    const flow = new Flow({ slug: 'packed' }).step('block', () => {
      tell(execFileSync(process.execPath, look, { encoding: 'utf8' }))
    })
    const worker = await startWorker({ connection: stack.dbUrl, flows: [flow], lease: 1, log: false })
    const sql = postgres(stack.dbUrl)
    await sql\`select pgflow.start_flow('packed', 'null')\`
    console.log(await isHeld)
    await Promise.all([worker.stop(), sql.end()])
    await stack.stop()
    process.exit()`
  expect(await bare.node(program)).toBe('true')
})

describe('Where server components run', () => {
  it('@pgflow/sdk/react is a client module', async () => {
    const { exports } = await full.manifestOf('@pgflow/sdk')
    const code = await readFile(join(full.pathOf('@pgflow/sdk'), exports['./react']!.default!), 'utf8')
    expect(code).toMatch(/^'use client';?\n/)
  })

  it('@pgflow/sdk/react can be imported, and says why its hooks do not work there', async () => {
    const program = `
      const { useRun, ...others } = await import('@pgflow/sdk/react')
      try { useRun(null) } catch (error) { console.log([...Object.keys(others), error.message].join()) }
    `
    const output = await full.node(program, '--conditions=react-server')
    const { useRun, ...others } = react
    expect(output).toBe(
      `${Object.keys(others).sort()},The hooks of @pgflow/sdk/react do not work in server components: ` +
        "put 'use client' at the top of the file.",
    )
  })
})

describe('An application', () => {
  it('has types with moduleResolution bundler', async () => {
    expect(await complaints({ module: 'preserve', moduleResolution: 'bundler', noEmit: true })).toEqual([])
  })

  it('has types with moduleResolution nodenext, and runs a flow in plain Node', async () => {
    expect(await complaints({ module: 'nodenext', outDir: 'compiled' })).toEqual([])
    const output = await full.run(process.execPath, 'compiled/main.js', migrations)
    expect(JSON.parse(output)).toEqual({ length: 'Hello Ada'.length })
  })

  it('loads no more than the limit for the client', async () => {
    const { size, inputs } = await bundle('@pgflow/sdk', { absWorkingDir: bare.folder })
    expect(size).toBeLessThanOrEqual(limit)
    expect(inputs).toContain('node_modules/@pgflow/sdk/dist/client/index.js')
  })
})

describe('pgflow', () => {
  it('prints its help, without any optional package', async () => {
    expect(await bare.run('npx', '--offline', 'pgflow', '--help')).toContain('pgflow compile <file.ts>')
  })

  it('derives schemas with the declarations of its own package', async () => {
    await configure({ module: 'nodenext', lib: ['ES2023'], types: [] }, ['flow.ts'])
    await full.run(full.pathOf('.bin/pgflow'), 'compile', 'flow.ts', '--out', '.')
    const file = (await readdir(full.folder)).find((name) => name.endsWith('.sql'))!
    const migration = await readFile(join(full.folder, file), 'utf8')
    expect(migration).toContain('"properties":{"name":{"type":"string"}},"required":["name"]')
  })
})

function configure(options: object, files: readonly string[]): Promise<void> {
  const compilerOptions = {
    target: 'ES2023',
    rewriteRelativeImportExtensions: true,
    strict: true,
    skipLibCheck: false,
    ...options,
  }
  return full.write({ 'tsconfig.json': JSON.stringify({ compilerOptions, files }) })
}

/** What the compiler says of the application and of the packages; it knows nothing of this repository. */
async function complaints(options: object): Promise<string[]> {
  const lib = ['ES2023', 'ESNext.Disposable', 'DOM']
  await configure({ lib, types: ['node'], ...options }, ['main.ts', 'page.ts'])
  const output = await full
    .run(process.execPath, tsc, '-p', full.folder, '--pretty', 'false')
    .catch((error: { stdout: string }) => error.stdout)
  // Declarations of others are outside of the project, behind links.
  return output.split('\n').filter((line) => /^(?!\.\.).*error TS/.test(line))
}
