import { afterAll, beforeAll, expect, it } from 'vitest'
import { generateTypes } from './testing/database-types.ts'
import { PackedPackages, type Project } from './testing/packages.ts'
import { compilers } from './testing/typescript.ts'

/** The supported versions of supabase-js, by the names under which they are installed. */
const clients = ['supabase-js-2.91', 'supabase-js-2.100', 'supabase-js-2.109', '@supabase/supabase-js']

/** A project with two schemas of its own, its generated types, and flows over its rows. */
const program = (client: string) => `
import { PgflowClient, type FlowsOf, type Run } from '@pgflow/sdk'
import { Flow, type OutputOf } from '@pgflow/sdk/flow'
import { createClient } from '${client}'
import type { Database, Json, Tables } from './database.types.ts'

declare const article: Tables<{ schema: 'api' }, 'articles'>

const Index = new Flow({ slug: 'index' })
  .input<{ document: Tables<'documents'>; options: Json }>()
  .step('body', ({ run }) => ({ body: run.document.body, options: run.options }))
  .step('article', ['body'], async () => article)
  .step('both', ['body', 'article'], ({ body, article }) => ({ ...body, state: article.state }))

const supabase = createClient<Database>('https://localhost', 'key')
const client = new PgflowClient<FlowsOf<[typeof Index]>>(supabase)
new PgflowClient(createClient<Database, 'api'>('https://localhost', 'key', { db: { schema: 'api' } }))
new PgflowClient(createClient('https://localhost', 'key'))

export async function index(document: Tables<'documents'>): Promise<'draft' | 'published'> {
  const run = await client.startFlow('index', { document, options: { deep: [null, { a: 1 }] } })
  show(run)
  const output: OutputOf<typeof Index> = await run.waitForCompletion()
  const body: Json = output.both.body
  void supabase.schema('api').from('articles').insert({ slug: 'a', state: 'draft', content: body ?? [] })
  // @ts-expect-error: there is no such flow
  await client.startFlow('indexx', { document, options: null })
  // @ts-expect-error: a document has other columns
  await client.startFlow('index', { document: { id: 1 }, options: null })
  return output.both.state
}

export const show = (run: Run): string => run.runId
`

/** Maps, conditions, schemas and hooks, right and wrong: none of it becomes `any` without strict checks. */
const flows = `
import { PgflowClient, type FlowsOf, type RunSnapshot } from '@pgflow/sdk'
import { Flow } from '@pgflow/sdk/flow'
import { useFlow, useRun } from '@pgflow/sdk/react'
import { z } from 'zod'

const Import = new Flow({ slug: 'import' })
  .input<{ urls: string[]; notify?: string; mode: 'mail' | 'page' | null }>()
  .map({ slug: 'pages', items: 'run.urls' }, (url) => ({ url, size: url.length }))
  .step(
    { slug: 'mail', dependsOn: ['pages'], runIf: { run: { mode: 'mail' } }, whenUnmet: 'skip' },
    ({ pages, run }) => ({ sizes: pages.map(({ size }) => size), to: run.notify }),
  )
  .step('end', ['mail', 'pages'], ({ mail, pages }) => ({ first: mail?.sizes[0], pages: pages.length }))

const Register = new Flow({ slug: 'register', input: z.object({ name: z.string(), age: z.number().optional() }) })
  .step('length', ({ run }) => run.name.length + (run.age ?? 0))

new Flow<{ path: string }>({ slug: 'wrong' })
  .step('read', ({ run }) => run.path)
  // @ts-expect-error: there is no such step
  .step('report', ['raed'], () => 1)

new Flow<{ path: string }>({ slug: 'wrong' })
  // @ts-expect-error: a Map is no JSON
  .step('read', () => new Map())

export async function start(client: PgflowClient<FlowsOf<[typeof Import, typeof Register]>>): Promise<number> {
  const run = await client.startFlow('import', { urls: [], mode: 'mail' })
  const pages: number = (await run.waitForCompletion()).end.pages
  // @ts-expect-error: it is a number
  const text: string = (await run.waitForCompletion()).end.pages
  // @ts-expect-error: there is no such step
  run.step('page')
  await client.startFlow('register', { name: text })
  // @ts-expect-error: name is missing
  await client.startFlow('register', {})
  return pages + (await run.step('pages').waitForCompletion())[0]!.size
}

export function useImport(id: string): number {
  const { step, start } = useFlow<typeof Import>('import')
  const { selected } = useRun(id, { select: (run: RunSnapshot<typeof Import>) => run.output!.end.pages })
  // @ts-expect-error: it is a number
  const text: string = selected
  void start({ urls: [text], mode: null })
  return selected! + step('pages')!.output![0]!.size
}
`

let packages: PackedPackages
let project: Project

beforeAll(async () => {
  packages = await PackedPackages.pack()
  project = await packages.project('typed', [
    ...clients,
    '@types/node',
    '@types/react',
    '@types/ws',
    'react',
    'zod',
  ])
  await project.write({
    'flows.ts': flows,
    'database.types.ts': await generateTypes(['public', 'api', 'pgflow_public']),
    ...Object.fromEntries(clients.map((client, index) => [`project-${index}.ts`, program(client)])),
  })
})
afterAll(() => packages?.[Symbol.asyncDispose]())

it.each([
  ['7', 'strictly', {}],
  ['5.9', 'strictly', {}],
  ['7', 'without strictNullChecks', { strictNullChecks: false }],
  ['5.9', 'without strict checks, as Next.js writes it', { strict: false }],
] as const)(
  'TypeScript %s compiles a generated project with every supabase-js, %s',
  async (version, _, options) => {
    const compilerOptions = {
      target: 'ES2023',
      lib: ['ES2023', 'ESNext.Disposable', 'DOM'],
      types: ['node'],
      module: 'preserve',
      moduleResolution: 'bundler',
      allowImportingTsExtensions: true,
      noEmit: true,
      strict: true,
      skipLibCheck: true,
      ...options,
    }
    await project.write({ 'tsconfig.json': JSON.stringify({ compilerOptions, include: ['*.ts'] }) })
    const args = [compilers[version], '-p', project.folder, '--pretty', 'false']
    const output = await project
      .run(process.execPath, ...args)
      .catch((error: { stdout: string }) => error.stdout)
    expect(output).toBe('')
  },
)
