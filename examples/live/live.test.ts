import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LocalSupabase } from '@pgflow/local'
import type { Worker } from '@pgflow/sdk/worker'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { build, type PreviewServer, preview } from 'vite'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { type Pause, startPageWorker, startStack } from './backend.ts'
import { findChromium, missingChromium } from './chromium.ts'
import { accessibilityIssues, layoutIssues } from './page-checks.ts'
import { pageConfig } from './vite.ts'

const wide = { width: 1280, height: 900 }
const narrow = { width: 390, height: 844 }

const executablePath = findChromium()
if (executablePath === undefined && process.env.CI) throw new Error(missingChromium)
if (executablePath === undefined) console.warn(missingChromium)

/** Lets the worker read chapters, as many as a test allows. */
class Gate {
  #open = 0
  #waiting: (() => void)[] = []

  readonly pass: Pause = ({ stepSlug, signal }) => {
    if (stepSlug !== 'words' || this.#open-- > 0) return Promise.resolve()
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
    worker = await startPageWorker(stack, (step) => gate.pass(step))
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
    context = await browser.newContext({ viewport: wide, reducedMotion: 'reduce' })
    page = await open(context)
  })
  afterEach(async () => {
    gate.let(Number.POSITIVE_INFINITY)
    await context.close()
  })

  /** The page of a visitor. */
  async function open(visitor: BrowserContext): Promise<Page> {
    const page = await visitor.newPage()
    page.setDefaultTimeout(10_000)
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text())
    })
    await page.goto(url)
    return page
  }

  /** Starts a run with the keyboard alone. */
  async function start(title = 'README', outcome = 'It completes', approval = false): Promise<void> {
    await page.getByLabel('Document', { exact: true }).selectOption(title)
    await page.getByLabel(outcome).check()
    await page.getByLabel(outcome).press('Tab')
    if (approval) await page.keyboard.press('Space')
    await page.keyboard.press('Tab')
    await expect
      .poll(() => page.getByRole('button', { name: 'Start', exact: true }).evaluate(isFocused))
      .toBe(true)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: `${title}.md` }).waitFor()
  }

  const isFocused = (element: Element) => element === document.activeElement

  const steps = () => page.getByRole('region', { name: 'Steps', exact: true })

  const step = (slug: string, what: string) =>
    steps()
      .getByRole('button', { name: new RegExp(`^${slug}\\s*${what}`) })
      .waitFor()

  const node = (slug: string) =>
    page.getByRole('list', { name: 'Steps as a graph' }).getByRole('button', { name: slug })

  const status = (what: string) => page.getByRole('article').getByRole('status').getByText(what).waitFor()

  /** How many steps have each status, without the marks. */
  const totals = async () => {
    const items = page.getByRole('list', { name: 'Steps by status' }).getByRole('listitem')
    return (await items.allTextContents()).map((text) => text.replace(/^\D/, ''))
  }

  const list = (what: string) => page.getByRole('navigation').getByRole('link', { name: what }).waitFor()

  const events = () => page.getByRole('region', { name: 'Event log' }).getByRole('row')

  /** With each change of the page, collects what it says of runs, in its title too, and what it announces. */
  const collect = () =>
    page.evaluateHandle(() => {
      const texts: string[] = []
      const statuses: string[] = []
      const observer = new MutationObserver(() => {
        const parts = Array.from(document.querySelectorAll('nav, .run-header'))
        texts.push([document.title, ...parts.map((part) => part.textContent)].join(' '))
        if (document.body.textContent.includes('You are signed out')) texts.push('signed out')
        const announced = document.querySelector('article [role=status]')?.textContent
        if (announced && announced !== statuses.at(-1)) statuses.push(announced)
      })
      observer.observe(document, { childList: true, subtree: true, characterData: true, attributes: true })
      return { texts, statuses }
    })

  /** Checks the page as it is shown, on a wide and on a narrow screen, in light and in dark, and keeps pictures of it. */
  async function inspect(name: string, page: Page): Promise<void> {
    const kept = fileURLToPath(new URL('../../.vitest/live/', import.meta.url))
    await mkdir(kept, { recursive: true })
    const issues: string[] = []
    for (const [viewport, colorScheme] of [
      [wide, 'dark'],
      [narrow, 'light'],
    ] as const) {
      await page.setViewportSize(viewport)
      await page.emulateMedia({ colorScheme })
      // The page is told of its new size with the next frame.
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))))
      const found = [...(await layoutIssues(page)), ...(await accessibilityIssues(page))]
      issues.push(...found.map((issue) => `${name}, ${viewport.width}, ${colorScheme}: ${issue}`))
      await page.screenshot({ path: join(kept, `${name}-${viewport.width}.png`), fullPage: true })
    }
    await page.setViewportSize(wide)
    expect(issues).toEqual([])
  }

  it('shows a run live, from its start to its output', async () => {
    await page.getByText('None yet.').waitFor()
    await inspect('nothing', page)
    const collector = await collect()
    await start()
    await step('headings', 'completed')
    await step('links', 'completed')
    await step('contents', 'skipped')
    await step('words', 'running')
    expect(await totals()).toEqual(['4 of 9 steps completed', '1 skipped', '1 running', '3 pending'])
    gate.let(2)
    await step('words', 'running 2 of ')
    await inspect('running', page)
    gate.let(Number.POSITIVE_INFINITY)
    await step('report', 'completed')
    await status('completed')
    expect(await totals()).toEqual(['7 of 9 steps completed', '2 skipped'])
    await page.getByRole('heading', { name: 'pgflow for Supabase' }).waitFor()
    await list('README.md completed')
    expect(await collector.evaluate(({ statuses }) => statuses)).toEqual(['◐running', '✓completed'])

    await events().filter({ hasText: 'run:completed' }).waitFor()
    const rows = await events().allInnerTexts()
    expect(rows.slice(1).map((row) => Number.parseInt(row, 10))).toEqual(
      rows.slice(1).map((_, index) => index + 1),
    )
    expect(rows[1]).toMatch(/^1\s+0\.0 s\s+run:started\s+by you$/)

    await node('headings').focus()
    await page.keyboard.press('Enter')
    const output = await page.getByRole('region', { name: 'Output of headings' }).innerText()
    expect(JSON.parse(output).list[0]).toEqual({ depth: 1, text: 'pgflow for Supabase' })
    const selected = page.getByRole('region', { name: 'Code of the flow' }).locator('[data-selected]')
    expect((await selected.allInnerTexts())[0]).toContain(".flow({ slug: 'headings'")
    await inspect('completed', page)

    await page.getByRole('link', { name: 'Run of find_headings' }).click()
    await page.getByRole('heading', { name: 'find_headings' }).waitFor()
    await step('list', 'completed')
    await inspect('child', page)
    await page.getByRole('link', { name: 'Started by the step headings' }).click()
    await page.getByRole('heading', { name: 'README.md' }).waitFor()
    expect(complaints).toEqual([])
  })

  it('moves only where motion is wanted', async () => {
    const animations = () =>
      page.evaluate(
        () => document.getAnimations().filter((animation) => !(animation instanceof CSSTransition)).length,
      )
    await start()
    await step('words', 'running')
    expect(await animations()).toBe(0)
    await page.emulateMedia({ reducedMotion: 'no-preference' })
    expect(await animations()).toBeGreaterThan(0)
    gate.let(Number.POSITIVE_INFINITY)
    await status('completed')
  })

  it('goes on after being offline, and after a reload', async () => {
    await start()
    await step('words', 'running')
    const failed = page.waitForEvent('requestfailed', (request) => request.url().endsWith('/list_runs'))
    await context.setOffline(true)
    stack.realtime.closeSockets()
    await page.getByText('You are offline').waitFor()
    await failed
    expect(await page.getByRole('button', { name: 'Cancel', exact: true }).isDisabled()).toBe(true)
    await inspect('offline', page)
    expect(await page.getByRole('alert').count()).toBe(0)
    gate.let(3)
    await context.setOffline(false)
    await step('words', 'running 3 of ')
    await events().filter({ hasText: '3 of ' }).waitFor()
    expect(await page.getByText('You are offline').count()).toBe(0)
    // The list's last request has failed, until the next one is answered.
    await expect.poll(() => page.getByRole('alert').count(), { timeout: 10_000 }).toBe(0)
    await page.reload()
    await step('words', 'running 3 of ')
    await status('running')
    await page.getByRole('navigation').getByRole('link').first().waitFor()
    expect(await page.getByRole('navigation').getByRole('link').count()).toBe(1)
    gate.let(Number.POSITIVE_INFINITY)
    await status('completed')
    expect(complaints.filter((text) => !/ERR_INTERNET_DISCONNECTED|WebSocket/.test(text))).toEqual([])
  })

  it('cancels a run, and resumes it', async () => {
    await start()
    await step('links', 'completed')
    await step('contents', 'skipped')
    await step('words', 'running')
    await page.getByRole('button', { name: 'Cancel', exact: true }).click()
    await status('cancelled')
    await step('report', 'cancelled')
    expect(await totals()).toEqual(['4 of 9 steps completed', '1 skipped', '4 cancelled'])
    await list('README.md cancelled')
    await inspect('cancelled', page)
    await page.getByRole('button', { name: 'Retry', exact: true }).click()
    await status('running')
    gate.let(Number.POSITIVE_INFINITY)
    await status('completed')
    await list('README.md completed')
    await events().filter({ hasText: 'run:retried' }).waitFor()
    await events().filter({ hasText: 'run:completed' }).waitFor()
    expect(complaints).toEqual([])
  })

  it('says why a run failed, and resumes it', async () => {
    await start('README', 'The run fails')
    await status('failed')
    await page
      .getByRole('article')
      .getByText('step "links" failed: the link checker is down')
      .first()
      .waitFor()
    await step('links', 'failed')
    await step('text', 'completed')
    await step('report', 'cancelled')
    expect(await totals()).toContain('1 failed')
    expect((await totals())[0]).not.toContain('9 of 9')
    expect(await page.getByRole('button', { name: 'Cancel', exact: true }).isDisabled()).toBe(true)
    await inspect('failed', page)
    gate.let(Number.POSITIVE_INFINITY)
    await page.getByRole('button', { name: 'Retry', exact: true }).click()
    await status('completed')
    expect(await totals()).toEqual(['7 of 9 steps completed', '2 skipped'])
    expect(complaints).toEqual([])
  })

  it('asks another visitor, who rejects and approves with the keyboard', async () => {
    const visitor = await browser.newContext({ viewport: wide, reducedMotion: 'reduce' })
    onTestFinished(() => visitor.close())
    const other = await open(visitor)
    const inboxOf = (page: Page) => page.getByRole('region', { name: 'Waiting for you' })
    const request = inboxOf(other).getByRole('listitem', { name: 'Report of README.md' })
    await inboxOf(other).getByText('Nothing.').waitFor()
    gate.let(Number.POSITIVE_INFINITY)
    await start('README', 'It completes', true)
    await step('approval', 'waiting')
    await page.getByText(/^Waiting for [\d.]+ s, until /).waitFor()
    await node('approval').click()
    await inspect('waiting', page)
    expect(await inboxOf(page).innerText()).toContain('Nothing.')

    await request.getByRole('button', { name: 'Reject …' }).focus()
    await other.keyboard.press('Enter')
    await inspect('inbox', other)
    await other.keyboard.type('The links are missing')
    await other.keyboard.press('Enter')
    await inboxOf(other).getByText('Nothing.').waitFor()
    await status('failed')
    const name = await other
      .getByText(/^Visitor /)
      .locator('code')
      .innerText()
    await page.getByText(`Rejected by visitor ${name}, after`).waitFor()
    await page.getByText('The links are missing').first().waitFor()

    await page.getByRole('button', { name: 'Retry', exact: true }).click()
    await request.getByRole('button', { name: 'Approve' }).focus()
    await other.keyboard.press('Enter')
    await inboxOf(other).getByText('Nothing.').waitFor()
    await status('completed')
    await page.getByText(`Approved by visitor ${name}, after`).waitFor()
    expect(await totals()).toEqual(['8 of 9 steps completed', '1 skipped'])
    await events()
      .filter({ hasText: `by visitor ${name}: {"approved":true}` })
      .waitFor()
    expect(complaints).toEqual([])
  }, 60_000)

  it('shows several runs at once, and an attempt that is repeated', async () => {
    await start('README', 'A step is retried')
    await steps().getByText('Attempt 1: step "links" failed: the link checker is busy.').waitFor()
    await inspect('retrying', page)
    await start('CONTRIBUTING')
    await list('README.md running')
    await list('CONTRIBUTING.md running')
    gate.let(Number.POSITIVE_INFINITY)
    await status('completed')
    await list('README.md completed')
    await list('CONTRIBUTING.md completed')
    await page.getByRole('navigation').getByRole('link', { name: 'README.md completed' }).click()
    await page.getByRole('heading', { name: 'README.md' }).waitFor()
    await events().filter({ hasText: 'step:retrying' }).waitFor()
    expect(complaints).toEqual([])
  })

  it('signs in again where the session is of another stack', async () => {
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
    await page.getByRole('button', { name: 'Start over', exact: true }).click()
    await page.getByRole('navigation').getByRole('link').nth(1).waitFor()
    await status('completed')
    await page.getByRole('heading', { name: 'Architecture', exact: true }).waitFor()
    expect(await page.title()).toContain('ARCHITECTURE.md, completed')
    const ofFormerUser = page.url()

    const collector = await collect()
    await page.getByRole('button', { name: 'Sign out', exact: true }).click()
    await page.getByText('You are signed out').waitFor()
    await inspect('signed-out', page)
    await page.getByRole('button', { name: 'Sign in as a new visitor' }).click()
    await page.getByText('None yet.').waitFor()
    await start()
    await status('completed')
    await page.getByRole('button', { name: 'Start over', exact: true }).click()
    await page.getByRole('navigation').getByRole('link').nth(1).waitFor()
    await status('completed')
    expect(await page.title()).toContain('README.md, completed')
    await page.goto(ofFormerUser)
    await page.getByRole('article').getByRole('alert').getByText('The run cannot be shown').waitFor()

    const shown = await collector.evaluate(({ texts }) => texts)
    const sinceSignedOut = shown.slice(shown.indexOf('signed out'))
    expect(sinceSignedOut.length).toBeGreaterThan(10)
    expect(sinceSignedOut.filter((text) => /ARCHITECTURE\.md|Architecture/.test(text))).toEqual([])
    expect(complaints.filter((text) => !/ 40[0-9] /.test(text))).toEqual([])
  })
})
