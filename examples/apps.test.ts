import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { startWorker } from '@pgflow/sdk/worker'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { PackedPackages } from '../sdk/src/testing/packages.ts'
import { findChromium, missingChromium } from './live/chromium.ts'
import { AnalyzeText } from './vite/supabase/functions/flow-worker/flows.ts'

const run = promisify(execFile)
const repository = fileURLToPath(new URL('..', import.meta.url))
const executablePath = findChromium()
if (executablePath === undefined && process.env.CI) throw new Error(missingChromium)
if (executablePath === undefined) console.warn(missingChromium)

interface App {
  readonly name: 'nextjs' | 'vite'
  /** The generator, and what makes it ask nothing. */
  readonly generator: readonly string[]
  /** What the app needs besides its own packages and ours. */
  readonly packages: readonly string[]
  readonly env: (stack: LocalSupabase) => string
  readonly serve: readonly string[]
}

const supabaseJs = '@supabase/supabase-js@2.119.1'

/** The larger one takes three quarters of the time. */
const chosen = (process.env.PGFLOW_APPS ?? (process.env.CI ? 'vite,nextjs' : 'vite')).split(',')

const all: readonly App[] = [
  {
    name: 'vite',
    generator: ['create-vite@9.3.0', 'vite', '--template', 'react-ts', '--no-interactive'],
    packages: [supabaseJs],
    env: ({ url, publishableKey }) =>
      `VITE_SUPABASE_URL=${url}\nVITE_SUPABASE_PUBLISHABLE_KEY=${publishableKey}\n`,
    serve: ['vite', 'preview', '--host', '127.0.0.1', '--port', '0'],
  },
  {
    name: 'nextjs',
    generator: [
      'create-next-app@16.4.3',
      'nextjs',
      '--yes',
      '--skip-install',
      '--no-tailwind',
      '--no-eslint',
    ],
    packages: [supabaseJs, '@supabase/ssr@0.12.7'],
    env: ({ url, publishableKey }) =>
      `NEXT_PUBLIC_SUPABASE_URL=${url}\nNEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY=${publishableKey}\n`,
    serve: ['next', 'start', '--hostname', '127.0.0.1', '--port', '0'],
  },
]

const apps = all.filter(({ name }) => chosen.includes(name))

describe.skipIf(executablePath === undefined)('apps made by their own generators', () => {
  let folder: string
  let packages: PackedPackages
  let stack: LocalSupabase
  let browser: Browser
  const servers: ChildProcess[] = []
  const urls = new Map<App['name'], string>()

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pgflow-apps-'))
    packages = await PackedPackages.pack()
    stack = await startLocalSupabase({ fsync: false, migrations: [join(repository, 'supabase/migrations')] })
    for (const app of apps) {
      await build(app)
      urls.set(app.name, await serve(app))
    }
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] })
  }, 300_000)

  afterAll(async () => {
    await browser?.close()
    await Promise.all(servers.map(stopServer))
    await stack?.stop()
    await packages?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  // Vite colours what it prints where there is a variable CI, its URL too.
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', NO_COLOR: '1' }
  // As in a user's shell: vitest's own would make both build for development.
  Reflect.deleteProperty(env, 'NODE_ENV')

  async function build({ name, generator, packages: others, env: envOf }: App): Promise<void> {
    const cwd = join(folder, name)
    await run('npx', ['--yes', ...generator], { cwd: folder, env })
    await cp(join(repository, 'examples', name), cwd, { recursive: true })
    // What `pgflow init` writes; an application must be compiled beside it.
    const worker = 'supabase/functions/flow-worker'
    await cp(join(repository, worker, 'index.ts'), join(cwd, worker, 'index.ts'))
    await writeFile(join(cwd, '.env'), envOf(stack))
    const wanted = [packages.tarballOf('@pgflow/sdk'), ...others]
    await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', ...wanted], { cwd, env })
    await run('npm', ['run', 'build'], { cwd, env })
  }

  /** @returns the URL */
  async function serve({ name, serve: [command, ...args] }: App): Promise<string> {
    const cwd = join(folder, name)
    const server = spawn(join(cwd, 'node_modules/.bin', command!), args, { cwd, env })
    servers.push(server)
    for await (const line of createInterface(server.stdout)) {
      const url = /http:\/\/\S+:\d+/.exec(line)?.[0]
      if (url !== undefined) {
        server.stdout.resume()
        return url
      }
    }
    throw new Error(`${command} ended before it served anything`)
  }

  async function stopServer(server: ChildProcess): Promise<void> {
    if (server.exitCode !== null) return
    server.kill()
    await once(server, 'exit')
  }

  let context: BrowserContext
  let page: Page
  let complaints: string[]

  beforeEach(async () => {
    complaints = []
    context = await browser.newContext()
    page = await context.newPage()
    page.setDefaultTimeout(10_000)
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text())
    })
  })
  afterEach(() => context?.close())

  const startAWorker = () => startWorker({ connection: stack.dbUrl, flows: [AnalyzeText], log: false })

  async function start(text: string): Promise<void> {
    await page.getByLabel('Text').fill(text)
    await page.getByRole('button', { name: 'Analyze' }).click()
  }

  const status = (text: string) => page.getByRole('status').getByText(text).waitFor()
  const item = (text: string) => page.getByRole('listitem').getByText(text, { exact: true }).waitFor()

  it.each(apps)('$name says what to do while the flow is not registered', async ({ name }) => {
    await page.goto(urls.get(name)!)
    await start('so many words')
    const what =
      'flow "analyze_text" does not exist Check the slug; a flow exists once a worker that has it was started'
    await page.getByRole('alert').getByText(what).waitFor()
    if (name !== 'nextjs') return
    const answer = await context.request.post(`${urls.get(name)}/api/runs`, {
      data: { text: 'a run of a route' },
    })
    expect([answer.status(), (await answer.json()).code]).toEqual([404, 'PT404'])
  })

  it.each(apps)('$name starts a run and shows it live', async ({ name }) => {
    await (await startAWorker()).stop() // has registered the flow
    await page.goto(urls.get(name)!)
    await start('so many beautiful words')
    await status('started')
    await item('words: started')
    await item('report: created')
    const worker = await startAWorker()
    try {
      await status('completed')
      await item('report: completed')
      await page.getByText('4 words, the longest is “beautiful”').waitFor()
    } finally {
      await worker.stop()
    }
    await page.goto(urls.get(name)!)
    await page.getByRole('listitem').getByText('so many beautiful words').waitFor()
    expect(complaints).toEqual([])
  })

  it.runIf(chosen.includes('nextjs'))(
    'nextjs starts a run in its route handler, renders it on the server, and shows it to its owner only',
    async () => {
      const url = urls.get('nextjs')!
      const answer = await context.request.post(`${url}/api/runs`, { data: { text: 'a run of a route' } })
      const { runId } = await answer.json()
      expect([answer.status(), runId]).toEqual([202, expect.stringMatching(/^[0-9a-f-]{36}$/)])
      const html = await (await context.request.get(`${url}/runs/${runId}`)).text()
      expect(html).toContain('<h1>a run of a route</h1><p role="status">started</p>')

      await page.goto(`${url}/runs/${runId}`)
      await page.getByRole('button', { name: 'Cancel' }).click()
      await status('cancelled')

      await using others = await browser.newContext()
      const theirs = await others.newPage()
      await theirs.goto(`${url}/runs/${runId}`)
      await theirs.getByText('This page could not be found').waitFor()
      expect(complaints).toEqual([])
    },
  )
})
