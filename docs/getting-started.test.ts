import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findChromium, missingChromium } from '../examples/live/chromium.ts'
import { PackedPackages } from '../sdk/src/testing/packages.ts'
import { pageOf } from './testing/pages.ts'
import { type Shown, shownIn } from './testing/shown.ts'

/*
 * The page is followed as it is written, in an empty folder: its commands are run and its files are written, block by block.
 * What needs a hosted project says so in the page's source, and is listed here.
 */

const executablePath = findChromium()
if (executablePath === undefined && process.env.CI) throw new Error(missingChromium)

/** What `pgflow dev` says when its worker has started. */
const runsTheFlow = /tarted the worker for analyze_text/

const blocks = shownIn(pageOf('docs/getting-started.md').text)
const isHosted = ({ note }: Shown) => note === 'needs a hosted project'

it('getting-started.md leaves to its reader what needs a hosted project, and nothing else', () => {
  const commands = blocks.filter(isHosted).flatMap(({ code }) => code.trim().split('\n'))
  expect(commands).toEqual([
    'npx supabase login',
    'npx supabase link --project-ref <project-ref>',
    'npx supabase db push',
    'npx supabase config push',
    'export PGFLOW_WORKER_SECRET=$(openssl rand -hex 32)',
    'npx supabase secrets set PGFLOW_WORKER_SECRET=$PGFLOW_WORKER_SECRET',
    'npx supabase functions deploy flow-worker --use-api',
    'curl -X POST https://<project-ref>.supabase.co/functions/v1/flow-worker -H "Authorization: Bearer $PGFLOW_WORKER_SECRET"',
    "select vault.create_secret('https://<project-ref>.supabase.co/functions/v1/flow-worker', 'pgflow_worker_url');",
    "select vault.create_secret('<the secret>', 'pgflow_worker_secret');",
    'select pgflow.keep_worker_awake();',
    'SUPABASE_SECRET_KEY=sb_secret_… npx pgflow worker --url https://<project-ref>.supabase.co',
  ])
  expect(blocks.filter((block) => !isHosted(block) && block.note !== undefined)).toEqual([])
})

it('getting-started.md has ten steps', () => {
  const numbers = [...pageOf('docs/getting-started.md').text.matchAll(/^## (\d+)\. /gm)].map(([, n]) => n)
  expect(numbers).toEqual(Array.from({ length: 10 }, (_, n) => String(n + 1)))
})

interface Running {
  /** Awaits words that it says from now on. @returns all that it has said */
  says(words: RegExp): Promise<string>
}

/** A terminal in which the reader of the page types. */
class Terminal implements AsyncDisposable {
  cwd: string
  readonly #replaced: Readonly<Record<string, string>>
  readonly #running: ChildProcess[] = []

  constructor(cwd: string, replaced: Readonly<Record<string, string>>) {
    this.cwd = cwd
    this.#replaced = replaced
  }

  /** Runs commands to their end, and stays in the folder in which they end. */
  async run(code: string): Promise<string> {
    const shell = this.#spawn(`set -e\n${code}\npwd >&3`)
    const [output, folder] = [collect(shell, 1, 2), collect(shell, 3)]
    const [status] = await once(shell, 'close')
    if (status !== 0) throw new Error(`${code} ends with ${status}:\n${output()}`)
    this.cwd = folder().trim()
    return output()
  }

  /** Starts a command that goes on. */
  start(code: string): Running {
    const shell = this.#spawn(`exec ${code}`)
    this.#running.push(shell)
    const output = collect(shell, 1, 2)
    const says = (words: RegExp) => {
      const before = output().length
      return new Promise<string>((resolve, reject) => {
        const look = () => words.test(output().slice(before)) && resolve(output())
        for (const fd of [1, 2]) shell.stdio[fd]!.on('data', look)
        shell.once('close', () => reject(new Error(`${code} has ended:\n${output()}`)))
      })
    }
    return { says }
  }

  #spawn(code: string): ChildProcess {
    const typed = Object.entries(this.#replaced).reduce(
      (text, [shown, meant]) => text.replaceAll(shown, meant),
      code,
    )
    const { NODE_ENV: _, VITEST: __, ...env } = process.env
    return spawn('bash', ['-c', typed], {
      cwd: this.cwd,
      // As a reader who says yes when npx asks; packages that npm has fetched before are not fetched again.
      env: {
        ...env,
        npm_config_yes: 'true',
        npm_config_prefer_offline: 'true',
        npm_config_audit: 'false',
        NO_COLOR: '1',
      },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      detached: true, // a process group of its own, as in a terminal
    })
  }

  /** Presses Ctrl-C. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const shell of this.#running.reverse()) {
      if (shell.exitCode !== null) continue
      const ended = once(shell, 'close')
      process.kill(-shell.pid!, 'SIGINT')
      await ended
    }
  }
}

/** What a process writes. */
function collect(child: ChildProcess, ...descriptors: number[]): () => string {
  let text = ''
  for (const descriptor of descriptors) {
    child.stdio[descriptor]!.on('data', (chunk) => {
      text += chunk
    })
  }
  return () => text
}

describe.skipIf(executablePath === undefined)('getting-started.md', () => {
  let packages: PackedPackages
  let folder: string
  let browser: Browser
  let terminal: Terminal

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pgflow-getting-started-'))
    await chmod(folder, 0o755) // root's Postgres runs as another user
    packages = await PackedPackages.pack()
    terminal = new Terminal(folder, {
      '<repo>/dist/pgflow-sdk.tgz': await packages.tarballOf('@pgflow/sdk'),
      '<repo>/dist/pgflow-local.tgz': await packages.tarballOf('@pgflow/local'),
    })
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] })
  }, 120_000)

  afterAll(async () => {
    await browser?.close()
    await terminal?.[Symbol.asyncDispose]()
    await packages?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  it('leads to a run in a page of one’s own', { timeout: 300_000 }, async () => {
    let environment = ''
    let dev: Running | undefined
    let wasUsed = false
    for (const { language, path, code } of blocks.filter((block) => !isHosted(block))) {
      if (path === '.env.local') {
        const names = [...code.matchAll(/^(\w+)=/gm)].map(([, name]) => name!)
        await write(path, names.map((name) => `${lineOf(name, environment)}\n`).join(''))
      } else if (path !== undefined) {
        await write(path, code)
      } else if (code === 'npx pgflow dev\n') {
        dev = terminal.start(code)
        environment = await dev.says(runsTheFlow)
      } else if (code === 'npm run dev\n') {
        const said = await terminal.start(code).says(/http:\/\/localhost:\d+/)
        await useThePage(/http:\/\/localhost:\d+/.exec(said)![0], dev!)
        wasUsed = true
      } else {
        expect(language, code).toBe('sh')
        const said = await terminal.run(code)
        if (code === 'npx pgflow runs list\n') expect(said).toMatch(/completed +analyze_text/)
      }
    }
    expect(wasUsed).toBe(true)
  })

  async function write(path: string, text: string): Promise<void> {
    await mkdir(dirname(join(terminal.cwd, path)), { recursive: true })
    await writeFile(join(terminal.cwd, path), text)
  }

  /** The line of a variable in what `pgflow dev` prints. */
  function lineOf(name: string, output: string): string {
    return new RegExp(`^\\s*(${name}=\\S+)$`, 'm').exec(output)![1]!
  }

  async function useThePage(url: string, dev: Running): Promise<void> {
    const page = await browser.newPage()
    const complaints: string[] = []
    page.on('pageerror', ({ message }) => complaints.push(message))
    const shows = async (text: string) => {
      const report = page.getByText(text).or(page.getByRole('alert'))
      await report.waitFor({ timeout: 20_000 })
      expect(await report.textContent()).toBe(text)
    }
    await page.goto(url)
    await page.getByRole('button', { name: 'Analyze' }).click()
    await shows('5 words, the longest is hello')
    expect(await page.getByRole('listitem').allTextContents()).toEqual(
      ['words', 'longest', 'count', 'report'].map((slug) => `${slug}: completed`),
    )

    // As the page proposes: the worker of `pgflow dev` takes the changed handler.
    const flows = 'supabase/functions/flow-worker/flows.ts'
    const text = await readFile(join(terminal.cwd, flows), 'utf8')
    const isRestarted = dev.says(runsTheFlow)
    await write(flows, text.replace('the longest is', 'the longest of them is'))
    await isRestarted
    await page.getByRole('button', { name: 'Analyze' }).click()
    await shows('5 words, the longest of them is hello')
    expect(complaints).toEqual([])
    await page.close()
  }
})
