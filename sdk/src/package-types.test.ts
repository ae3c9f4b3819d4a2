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

let packages: PackedPackages
let project: Project

beforeAll(async () => {
  packages = await PackedPackages.pack()
  project = await packages.project('typed', [...clients, '@types/node', '@types/ws'])
  await project.write({
    'database.types.ts': await generateTypes(['public', 'api', 'pgflow_public']),
    ...Object.fromEntries(clients.map((client, index) => [`project-${index}.ts`, program(client)])),
  })
})
afterAll(() => packages?.[Symbol.asyncDispose]())

it.each([
  ['7', 'strictly', {}],
  ['5.9', 'strictly', {}],
  ['7', 'without strictNullChecks', { strictNullChecks: false }],
  ['5.9', 'without strictNullChecks', { strictNullChecks: false }],
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
