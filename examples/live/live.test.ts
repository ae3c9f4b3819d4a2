import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LocalSupabase } from '@pgflow/local'
import type { Worker } from '@pgflow/sdk/worker'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { build, type PreviewServer, preview } from 'vite'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { startPageWorker, startStack } from './backend.ts'
import { findChromium, missingChromium } from './chromium.ts'
import { pageConfig } from './vite.ts'

const executablePath = findChromium()
if (executablePath === undefined && process.env.CI) throw new Error(missingChromium)
if (executablePath === undefined) console.warn(missingChromium)

/** Lets the worker read chapters, as many as a test allows. */
class Gate {
  #open = 0
  #waiting: (() => void)[] = []

  readonly pass = (signal: AbortSignal): Promise<void> => {
    if (this.#open-- > 0) return Promise.resolve()
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve)
      signal.addEventListener('abort', () => reject(signal.reason))
    })
  }

  let(count: number): void {
    this.#open += count
    for (const pass of this.#waiting.splice(0, count)) pass()
  }
}

describe.skipIf(executablePath === undefined)('the page in Chromium', () => {
  let folder: string
  let stack: LocalSupabase
  let worker: Worker
  let server: PreviewServer
  let browser: Browser
  let context: BrowserContext
  let page: Page
  let url: string
  let gate: Gate
  let complaints: string[]

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pgflow-live-'))
    stack = await startStack({ fsync: false })
    worker = await startPageWorker(stack, (signal) => gate.pass(signal))
    // In this mode React's StrictMode mounts everything twice.
    const config = { ...pageConfig(stack), mode: 'development', logLevel: 'error' as const }
    await build({ ...config, build: { outDir: folder } })
    server = await preview({ ...config, build: { outDir: folder }, preview: { host: '127.0.0.1', port: 0 } })
    url = server.resolvedUrls!.local[0]!
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] })
  })

  afterAll(async () => {
    await browser?.close()
    await server?.close()
    await worker?.stop()
    await stack?.stop()
    await rm(folder, { recursive: true })
  })

  beforeEach(async () => {
    gate = new Gate()
    complaints = []
    context = await browser.newContext({ viewport: { width: 1200, height: 900 } })
    page = await context.newPage()
    page.setDefaultTimeout(10_000)
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text())
    })
    await page.goto(url)
  })
  afterEach(() => context.close())

  /** Starts a run with the keyboard alone. */
  async function start(title = 'README'): Promise<void> {
    await page.getByLabel('Document').selectOption(title)
    await page.getByLabel('Document').press('Tab')
    await expect.poll(() => page.getByRole('button', { name: 'Read it' }).evaluate(isFocused)).toBe(true)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: `${title}.md` }).waitFor()
  }

  const isFocused = (element: Element) => element === document.activeElement

  const step = (slug: string, what: string) =>
    page.getByRole('row', { name: new RegExp(`^${slug} .*${what}`) }).waitFor()

  const status = (what: string) => page.getByRole('article').getByRole('status').getByText(what).waitFor()

  const list = (what: string) => page.getByRole('navigation').getByRole('link', { name: what }).waitFor()

  /** Collects what the page and its title say, with each change of it. */
  const collect = () =>
    page.evaluateHandle(() => {
      const texts: string[] = []
      const observer = new MutationObserver(() =>
        texts.push(`${document.title} ${document.body.textContent}`),
      )
      observer.observe(document, { childList: true, subtree: true, characterData: true, attributes: true })
      return { texts }
    })

  async function keep(name: string): Promise<void> {
    const kept = fileURLToPath(new URL('../../.vitest/', import.meta.url))
    await mkdir(kept, { recursive: true })
    await page.screenshot({ path: join(kept, `${name}.png`), fullPage: true })
  }

  it('shows a run live, from its start to its output', async () => {
    await page.getByText('None yet.').waitFor()
    await start()
    await step('headings', 'completed')
    await step('links', 'completed')
    await step('words', 'running')
    await page.getByText('4 of 6 steps').waitFor()
    gate.let(2)
    await step('words', '2/')
    await keep('live-running')
    gate.let(Number.POSITIVE_INFINITY)
    await step('report', 'completed')
    await status('completed')
    await page.getByText('6 of 6 steps').waitFor()
    await page.getByRole('heading', { name: 'pgflow for Supabase' }).waitFor()
    await list('README.md completed')
    await page.emulateMedia({ colorScheme: 'dark' })
    await keep('live-completed-dark')
    expect(complaints).toEqual([])
  })

  it('goes on after being offline, and after a reload', async () => {
    await start()
    await step('words', 'running')
    await context.setOffline(true)
    await page.getByText('You are offline').waitFor()
    stack.realtime.closeSockets()
    gate.let(3)
    await context.setOffline(false)
    await step('words', '3/')
    expect(await page.getByText('You are offline').count()).toBe(0)
    await page.reload()
    await step('words', '3/')
    await status('running')
    expect(await page.getByRole('navigation').getByRole('link').count()).toBe(1)
    gate.let(Number.POSITIVE_INFINITY)
    await status('completed')
    expect(complaints.filter((text) => !/ERR_INTERNET_DISCONNECTED|WebSocket/.test(text))).toEqual([])
  })

  it('cancels a run, and lets it go on', async () => {
    await start()
    await step('words', 'running')
    await page.getByRole('button', { name: 'Cancel' }).click()
    await status('cancelled')
    await step('report', 'cancelled')
    await list('README.md cancelled')
    await page.getByRole('button', { name: 'Retry' }).click()
    await status('running')
    gate.let(Number.POSITIVE_INFINITY)
    await status('completed')
    expect(complaints).toEqual([])
  })

  it('signs in anew where the session is of another stack', async () => {
    gate.let(Number.POSITIVE_INFINITY)
    await start()
    await status('completed')
    const damaged = await page.evaluate(() => {
      const [key, session] = Object.entries(localStorage)[0] as [string, string]
      localStorage.setItem(key, session.replace(/("access_token":"[^"]*)....",/, '$1AAAA",'))
      return localStorage.getItem(key) !== session
    })
    expect(damaged).toBe(true)
    await page.goto(url)
    await page.reload()
    await page.getByText('None yet.').waitFor()
  })

  it('shows nothing of a visitor who has signed out, and what is of the next one', async () => {
    gate.let(Number.POSITIVE_INFINITY)
    await start('ARCHITECTURE')
    await status('completed')
    await page.getByRole('button', { name: 'Start over' }).click()
    await page.getByRole('navigation').getByRole('link').nth(1).waitFor()
    await status('completed')
    await page
      .getByRole('form')
      .getByText(/ARCHITECTURE\.md .* completed/)
      .waitFor()
    await page.getByRole('heading', { name: 'Architecture', exact: true }).waitFor()
    expect(await page.title()).toContain('ARCHITECTURE.md, completed')

    const collector = await collect()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByText('Signed out').waitFor()
    await page.getByRole('button', { name: 'Sign in as somebody else' }).click()
    await page.getByText('None yet.').waitFor()
    await page.getByRole('article').getByRole('alert').waitFor()
    await start()
    await status('completed')
    await page
      .getByRole('form')
      .getByText(/README\.md .* completed/)
      .waitFor()
    await page.getByRole('button', { name: 'Start over' }).click()
    await page.getByRole('navigation').getByRole('link').nth(1).waitFor()
    await status('completed')
    expect(await page.title()).toContain('README.md, completed')

    const shown = await collector.evaluate(({ texts }) => texts)
    const sinceSignedOut = shown.slice(shown.findIndex((text) => text.includes('Signed out')))
    expect(sinceSignedOut.length).toBeGreaterThan(10)
    expect(sinceSignedOut.filter((text) => /ARCHITECTURE\.md|Architecture/.test(text))).toEqual([])
    expect(complaints.filter((text) => !/ 40[0-9] /.test(text))).toEqual([])
  })

  it('says why a run failed', async () => {
    await page.getByLabel('Document').selectOption('MISSING.md')
    await page.getByRole('button', { name: 'Read it' }).click()
    await status('failed')
    await page.getByText('step "text" failed: MISSING.md cannot be read').first().waitFor()
    expect(await page.getByRole('button', { name: 'Cancel' }).isDisabled()).toBe(true)
    expect(complaints).toEqual([])
  })
})
