import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { installNode } from './testing/node.ts'
import { PackedPackages, type Project } from './testing/packages.ts'

const run = promisify(execFile)

/** Each major version that is supported; the whole suite runs on one of them. */
const versions = ['20.20.2', '22.23.5', '24.22.3']
const [newest] = versions.slice(-1) as [string]

const migrations = fileURLToPath(new URL('../../supabase/migrations', import.meta.url))

const stackProgram = `
import { startLocalSupabase } from '@pgflow/local'
const stack = await startLocalSupabase({ migrations: [${JSON.stringify(migrations)}], fsync: false })
process.once('SIGTERM', () => stack.stop())
console.log(JSON.stringify(stack))
`

/** What docs/client.md and docs/worker.md say of Node, with supabase-js as a project has it. */
const clientProgram = `
import { PgflowClient } from '@pgflow/sdk'
import { Flow } from '@pgflow/sdk/flow'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient } from '@supabase/supabase-js'

const { url, publishableKey, dbUrl } = JSON.parse(process.argv[2])
const realtime = globalThis.WebSocket ? {} : { transport: (await import('ws')).default }
const supabase = createClient(url, publishableKey, { realtime, auth: { persistSession: false } })
await supabase.auth.signInAnonymously()
const slug = 'greet_' + process.versions.node.split('.')[0]
const Greet = new Flow({ slug, startRole: 'authenticated' })
  .input()
  .step('greeting', ({ run }) => 'Hello ' + run.name)
const worker = await startWorker({ connection: dbUrl, flows: [Greet], log: false })
const run = await new PgflowClient(supabase).startFlow(slug, { name: process.version })
const types = []
run.on('*', (event) => types.push(event.type))
const output = await run.waitForCompletion()
await worker.stop()
await supabase.auth.stopAutoRefresh()
console.log(JSON.stringify({ output, types }))
`

const flow = `
import { Flow } from '@pgflow/sdk/flow'
export const Greet: Flow<any> = new Flow({ slug: 'greet' }).input<{ name: string }>().step('greeting', ({ run }) => run.name)
`

describe.skipIf(process.platform !== 'linux')('The packages', () => {
  let packages: PackedPackages
  let project: Project
  let stack: ChildProcess
  /** As JSON, what `startLocalSupabase` resolves to. */
  let access: string
  const nodes = new Map<string, string>()

  beforeAll(async () => {
    const isThis = (version: string) => process.version.startsWith(`v${version.split('.')[0]}.`)
    const install = async (version: string) =>
      nodes.set(version, isThis(version) ? process.execPath : await installNode(version))
    await Promise.all([...versions.map(install), PackedPackages.pack().then((packed) => (packages = packed))])
    project = await packages.project('any', ['@supabase/supabase-js'])
    await project.write({ 'stack.js': stackProgram, 'client.js': clientProgram, 'flow.ts': flow })
    stack = spawn(nodes.get(newest)!, ['stack.js'], {
      cwd: project.folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    for await (const line of createInterface(stack.stdout!)) {
      access = line
      break
    }
  }, 120_000)

  afterAll(async () => {
    if (stack?.kill()) await once(stack, 'exit')
    await packages?.[Symbol.asyncDispose]()
  })

  it.each(versions)('run on Node %s: a client with supabase-js, and a worker', async (version) => {
    const { stdout, stderr } = await run(nodes.get(version)!, ['client.js', access], { cwd: project.folder })
    const node = stdout.match(/v[\d.]+/)![0]
    expect(JSON.parse(stdout)).toEqual({
      output: { greeting: `Hello ${node}` },
      types: ['run:started', 'step:started', 'step:completed', 'run:completed'],
    })
    expect(node.split('.')[0]).toBe(`v${version.split('.')[0]}`)
    if (!version.startsWith('20.')) expect(stderr).toBe('')
  })

  it.each(versions)('run on Node %s: the command', async (version) => {
    const pgflow = (...args: string[]) =>
      run(nodes.get(version)!, [project.pathOf('.bin/pgflow'), ...args], { cwd: project.folder })
    const { stdout } = await pgflow('--help')
    expect(stdout).toContain('pgflow compile <file.ts>')
    await mkdir(join(project.folder, version))
    const compiled = pgflow('compile', 'flow.ts', '--no-schemas', '--out', version)
    if (version.startsWith('20.')) {
      await expect(compiled).rejects.toThrow('npm install --save-dev tsx, or use Node 22.18 or newer')
    } else {
      await compiled
      expect(await readdir(join(project.folder, version))).toEqual([expect.stringMatching(/greet.*\.sql$/)])
    }
  })
})
