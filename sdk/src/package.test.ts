import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, readdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { publint } from 'publint'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as local from '../../local/src/index.ts'
import { installSql, uninstallSql, upgradeSql } from './cli/migration-sql.ts'
import * as client from './client/index.ts'
import { bundle, limit } from './client/testing/bundle.ts'
import * as flow from './flow/index.ts'
import * as react from './react/index.ts'
import * as schedules from './schedules/index.ts'
import { PackedPackages, type Project, packageNames } from './testing/packages.ts'
import * as worker from './worker/index.ts'
import { deno } from './worker/testing/deno.ts'

const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))
const migrations = join(root, 'supabase/migrations')

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

it('pgflow init writes a worker function that Deno runs, while the package is a file', async () => {
  const project = await packages.project('function')
  await mkdir(join(project.folder, 'supabase'))
  await project.write({
    'package.json': JSON.stringify({
      type: 'module',
      dependencies: { '@pgflow/sdk': 'file:pgflow-sdk.tgz' },
    }),
    'supabase/config.toml': '[api]\nschemas = ["public"]\n',
  })
  await project.run(join(project.folder, 'node_modules/.bin/pgflow'), 'init')
  const cwd = join(project.folder, 'supabase/functions/flow-worker')
  const refused = run(deno, ['run', '--no-lock', '--allow-env', '--allow-net', '--allow-read', 'index.ts'], {
    cwd,
  })
  await expect(refused).rejects.toThrow('The environment has no SUPABASE_URL') // its own code has run
})

describe.each(packageNames)('%s', (name) => {
  it('has every file that its package.json names', async () => {
    const { bin, exports } = await bare.manifestOf(name)
    const named = [exports, { bin: bin ?? {} }].flatMap(Object.values).flatMap(Object.values<string>)
    expect(named.filter((path) => !existsSync(join(bare.pathOf(name), path)))).toEqual([])
  })

  it('gives the types and the code of one module', async () => {
    const { exports } = await bare.manifestOf(name)
    for (const { types, default: code, ...others } of Object.values(exports)) {
      expect([types, others]).toEqual([code!.replace(/\.js$/, '.d.ts'), {}])
    }
  })

  it('has declarations and code of its modules, without tests, and nothing of others', async () => {
    const folder = bare.pathOf(name)
    const sources = join(root, name === '@pgflow/sdk' ? 'sdk' : 'local', 'src')
    const files = (await filesIn(join(folder, 'dist'))).map((path) => relative(join(folder, 'dist'), path))
    expect(files.filter((path) => /test|fixture/.test(path))).toEqual([])
    const modules = files.map((path) => path.replace(/(\.d)?\.[jt]s$/, '.ts'))
    expect(modules.filter((path) => !existsSync(join(sources, path)))).toEqual([])
    expect(files.filter((path) => !/\.js$|\.d\.ts$/.test(path))).toEqual([])
  })

  it('has its licence, and nothing besides', async () => {
    const others =
      name === '@pgflow/local'
        ? ['LICENSE-APACHE', 'NOTICE', 'dist', 'sql']
        : ['CHANGELOG.md', 'dist', 'docs', 'migrations', 'templates']
    const folder = bare.pathOf(name)
    expect((await readdir(folder)).sort()).toEqual(['LICENSE', 'README.md', 'package.json', ...others].sort())
    expect(await readFile(join(folder, 'LICENSE'), 'utf8')).toBe(
      await readFile(join(root, 'LICENSE'), 'utf8'),
    )
  })

  it('passes publint', async () => {
    const tarball = (await readFile(packages.tarballOf(name))).buffer as ArrayBuffer
    const { messages } = await publint({ pack: { tarball }, strict: true })
    expect(messages).toEqual([])
  })

  it('has types that TypeScript resolves, in ES modules and with bundlers', async () => {
    const analysis = await checkPackage(
      createPackageFromTarballData(await readFile(packages.tarballOf(name))),
    )
    if (!analysis.types) throw new Error(`${name} has no types`)
    // What a package of ES modules cannot have: a require() that loads it, and subpaths for the resolution of Node 10.
    const ofOtherModules = ['node10', 'node16-cjs']
    expect(
      analysis.problems.filter(
        (problem) => !ofOtherModules.includes('resolutionKind' in problem ? problem.resolutionKind : ''),
      ),
    ).toEqual([])
  })

  it('can be published, for everybody', async () => {
    // It asks no registry, and so says the same before and after a version is published.
    const registry = ['--registry', 'http://127.0.0.1:9', '--fetch-retries', '0']
    const { stdout, stderr } = await run('npm', [
      'publish',
      '--dry-run',
      ...registry,
      packages.tarballOf(name),
    ])
    expect(stdout.trim()).toBe(`+ ${name}@${(await bare.manifestOf(name)).version}`)
    expect(stderr).toContain('with tag latest and public access (dry-run)')
  })
})

it('Packages, lockfile, and the function that imports them name one version', async () => {
  const read = (name: string) => readFile(join(root, name), 'utf8')
  const { version } = JSON.parse(await read('sdk/package.json'))
  expect(JSON.parse(await read('local/package.json')).version).toBe(version)
  const { packages: locked } = JSON.parse(await read('package-lock.json'))
  expect([locked.sdk.version, locked.local.version]).toEqual([version, version])
  const imports = Object.values<string>(
    JSON.parse(await read('supabase/functions/flow-worker/deno.json')).imports,
  )
  expect(imports.map((name) => name.split('/')[1])).toEqual(imports.map(() => `sdk@${version}`))
})

it('What is installed with the packages has permissive licences', async () => {
  const { packages: installed } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8'))
  const licences = (path: string): string[] => {
    const { license, dependencies = {}, optionalDependencies = {} } = installed[path]
    const names = Object.keys({ ...dependencies, ...optionalDependencies })
    return [license, ...names.flatMap((name) => licences(placeOf(name, path)))]
  }
  /** Where Node finds a package for another one. */
  const placeOf = (name: string, path: string): string => {
    const place = `${path && `${path}/`}node_modules/${name}`
    return place in installed ? place : placeOf(name, path.replace(/\/?[^/]+$/, ''))
  }
  const permissive = [
    '0BSD',
    'Apache-2.0',
    'BlueOak-1.0.0',
    'BSD-2-Clause',
    'BSD-3-Clause',
    'ISC',
    'MIT',
    'Unlicense',
  ]
  const found = new Set(['sdk', 'local'].flatMap(licences))
  expect(found).toContain('Apache-2.0')
  expect([...found].filter((licence) => !permissive.includes(licence))).toEqual([])
})

describe('In plain Node', () => {
  const namesIn = (project: Project, entry: string) =>
    project.node(`console.log(Object.keys(await import('${entry}')).join())`)

  it.each([
    ['@pgflow/sdk', client],
    ['@pgflow/sdk/flow', flow],
    ['@pgflow/sdk/schedules', schedules],
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
