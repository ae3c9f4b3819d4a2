import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { LocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import type { Worker } from '@pgflow/sdk/worker'
import { createClient } from '@supabase/supabase-js'
import { chromium } from 'playwright-core'
import { createBuilder } from 'vite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { startPageWorker, startStack } from '../live/backend.ts'
import { findChromium, missingChromium } from '../live/chromium.ts'
import type { ReadDocument } from '../live/flow.ts'
import type { respond } from './server.tsx'
import { serverConfig } from './vite.ts'

const executablePath = findChromium()
if (executablePath === undefined && process.env.CI) throw new Error(missingChromium)

// Before Node 22 there is none, and supabase-js wants one even where nothing is subscribed to.
Object.assign(globalThis, { WebSocket: globalThis.WebSocket ?? WebSocket })

describe.skipIf(executablePath === undefined)('a page of server components', () => {
  let folder: string
  let stack: LocalSupabase
  let worker: Worker
  let server: Server
  let url: string
  let readChapters = () => {}

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pgflow-server-components-'))
    stack = await startStack({ fsync: false })
    const chaptersMayBeRead = new Promise<void>((resolve) => {
      readChapters = resolve
    })
    worker = await startPageWorker(stack, async ({ stepSlug }) => {
      if (stepSlug === 'words') await chaptersMayBeRead
    })
    await (await createBuilder(serverConfig(folder))).buildApp()
    const page: { respond: typeof respond } = await import(join(folder, 'rsc/index.js'))
    server = createServer(async ({ url: path, headers }, response) => {
      const request = new Request(new URL(path!, url), { headers: { cookie: headers.cookie ?? '' } })
      const isAsset = path!.startsWith('/assets/')
      const body = isAsset
        ? new Response(await readFile(join(folder, 'client', path!)), {
            headers: { 'content-type': 'text/javascript' },
          })
        : await page.respond(request, { url: stack.url, publishableKey: stack.publishableKey })
      response.setHeaders(body.headers)
      response.writeHead(body.status)
      response.end(Buffer.from(await body.arrayBuffer()))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })

  afterAll(async () => {
    server?.close()
    await worker?.stop()
    await stack?.stop()
    await rm(folder, { recursive: true })
  })

  it('reads the run on the server, and follows it in the browser', async () => {
    const supabase = createClient(stack.url, stack.publishableKey, {
      auth: { persistSession: false, autoRefreshToken: false },
    })
    const { data } = await supabase.auth.signInAnonymously()
    const client = new PgflowClient(supabase)
    const run = await client.startFlow<typeof ReadDocument>('read_document', { document: 'README.md' })
    await run.step('chapters').waitForCompletion()
    await run.close()

    await using browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] })
    const context = await browser.newContext()
    await context.addCookies([{ name: 'token', value: data.session!.access_token, url }])
    const page = await context.newPage()
    page.setDefaultTimeout(10_000)
    const complaints: string[] = []
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text())
    })
    const requests: string[] = []
    page.on('request', (request) => requests.push(new URL(request.url()).pathname.split('/').at(-1)!))

    const response = await page.goto(`${url}/${run.runId}`)
    const html = (await response!.text()).replaceAll('<!-- -->', '')
    expect(html).toContain('<h1>README.md</h1>')
    expect(html).toContain('<p role="status">started, words started</p>')
    await page.waitForRequest((request) => request.url().endsWith('/sync'))
    readChapters()
    await page.getByRole('status').getByText('completed, words completed').waitFor()
    expect(requests).not.toContain('get_run')
    expect(complaints).toEqual([])
  })
})
