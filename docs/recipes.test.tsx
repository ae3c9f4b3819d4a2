import '../sdk/src/react/testing/page.ts'
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import { PgflowClient } from '@pgflow/sdk'
import { type AnyFlow, compile } from '@pgflow/sdk/flow'
import { PgflowProvider } from '@pgflow/sdk/react'
import { startWorker } from '@pgflow/sdk/worker'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { cleanup, fireEvent, render, screen } from '@testing-library/react'
import postgres from 'postgres'
import type { ComponentType } from 'react'
import { afterEach, expect, it, onTestFinished, vi } from 'vitest'
import WebSocket from 'ws'
import { codeOf, filesOf } from './testing/shown.ts'

/*
 * Each recipe is followed: its SQL is run, its flows are run by a worker, its components are rendered, against a local stack of
 * its own.
 */

const root = fileURLToPath(new URL('..', import.meta.url))

interface User {
  readonly id: string
  readonly supabase: SupabaseClient
  readonly client: PgflowClient
}

class Recipe {
  readonly text: string
  readonly sql: postgres.Sql
  readonly #stack: LocalSupabase
  readonly #folder: string

  private constructor(text: string, stack: LocalSupabase, sql: postgres.Sql, folder: string) {
    this.text = text
    this.#stack = stack
    this.sql = sql
    this.#folder = folder
  }

  /** A stack, and the files of the page in a folder. */
  static async follow(name: string): Promise<Recipe> {
    const text = await readFile(join(root, `docs/recipes/${name}.md`), 'utf8')
    const stack = await startLocalSupabase({ migrations: [join(root, 'supabase/migrations')], fsync: false })
    onTestFinished(() => stack.stop())
    const sql = postgres(stack.dbUrl, { onnotice: () => undefined })
    onTestFinished(() => sql.end())
    await mkdir(join(root, '.vitest'), { recursive: true })
    const folder = await mkdtemp(join(root, '.vitest/recipe-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    for (const [path, code] of filesOf(text)) {
      await mkdir(dirname(join(folder, path)), { recursive: true })
      await writeFile(join(folder, path), code)
    }
    vi.stubGlobal('WebSocket', WebSocket) // Node 20 has none
    vi.stubEnv('SUPABASE_URL', stack.url)
    vi.stubEnv('SUPABASE_SECRET_KEY', stack.secretKey)
    return new Recipe(text, stack, sql, folder)
  }

  import(path: string): Promise<any> {
    return import(join(this.#folder, path))
  }

  async flows(): Promise<AnyFlow[]> {
    return (await this.import('supabase/functions/flow-worker/flows.ts')).flows
  }

  async work(): Promise<void> {
    const flows = await this.flows()
    const worker = await startWorker({ connection: this.#stack.dbUrl, flows: flows as any })
    onTestFinished(() => worker.stop())
  }

  /** The files of a project's Storage, which the local stack does not have, with rows that it would write. */
  async storage(files: Readonly<Record<string, string>> = {}): Promise<void> {
    const admin = postgres(this.#stack.adminDbUrl, { onnotice: () => undefined })
    await admin.unsafe(`
      create schema storage;
      create table storage.objects (id uuid primary key default gen_random_uuid(), bucket_id text, name text, owner_id text, version text);
      grant usage on schema storage to postgres, authenticated;
      grant all on storage.objects to postgres;
      grant insert on storage.objects to authenticated`)
    await admin.end()
    answer(/\/storage\/v1\/object\/(.*)$/, async (_, path) => new Response(files[path!]))
  }

  /** Inserts over REST, of which the local stack has only functions. */
  inserts(): void {
    answer(/\/rest\/v1\/(\w+)\?(?:columns=[^&]*&)?select=(\w+)$/, async (request, table, column) => {
      const claims = request.headers.get('authorization')!.split('.')[1]!
      const row = (await request.json()) as Record<string, string>
      const rows = await this.sql.begin(async (tx) => {
        await actAs(tx, Buffer.from(claims, 'base64url').toString())
        return tx`insert into public.${tx(table!)} ${tx(row)} returning ${tx(column!)}`
      })
      return Response.json(rows[0], { status: 201 })
    })
  }

  async user(): Promise<User> {
    const supabase = createClient(this.#stack.url, this.#stack.publishableKey, {
      auth: { storageKey: randomUUID() },
    })
    onTestFinished(async () => void (await supabase.removeAllChannels()))
    const { data } = await supabase.auth.signInAnonymously()
    return { id: data.user!.id, supabase, client: new PgflowClient(supabase) }
  }

  async as({ id }: User, act: (tx: postgres.TransactionSql) => Promise<unknown>): Promise<void> {
    await this.sql.begin(async (tx) => {
      await actAs(tx, JSON.stringify({ role: 'authenticated', sub: id }))
      await act(tx)
    })
  }

  async show<Props extends object>(
    { client }: User,
    path: string,
    name: string,
    props: Props,
  ): Promise<void> {
    const Shown: ComponentType<Props> = (await this.import(path))[name]
    render(
      <PgflowProvider client={client}>
        <Shown {...props} />
      </PgflowProvider>,
    )
  }
}

async function actAs(tx: postgres.TransactionSql, claims: string): Promise<void> {
  await tx`select set_config('request.jwt.claims', ${claims}, true)`
  await tx`set local role authenticated`
}

/** Answers requests that the local stack does not know. */
function answer(route: RegExp, handle: (request: Request, ...parts: string[]) => Promise<Response>): void {
  const others = globalThis.fetch
  vi.stubGlobal('fetch', (input: string | URL | Request, init?: RequestInit) => {
    const request = new Request(input, init)
    const [, ...parts] = route.exec(request.url) ?? []
    return parts.length > 0 ? handle(request, ...parts) : others(input, init)
  })
}

afterEach(() => {
  cleanup()
  vi.unstubAllGlobals()
  vi.unstubAllEnvs()
})

const button = (name: string) => screen.findByRole<HTMLButtonElement>('button', { name })
const press = async (name: string) => fireEvent.click((await button(name)) as never)

it('csv-import.md imports 10,000 rows, and resumes after a failure', async () => {
  const recipe = await Recipe.follow('csv-import')
  const [tables, mend, ...more] = codeOf(recipe.text, 'sql')
  expect(more).toEqual([])
  const countries = Array.from({ length: 10_000 }, (_, n) => (n === 6_700 ? 'BR' : ['DE', 'FR', 'JP'][n % 3]))
  const rows = countries.map((country, n) => `customer-${n}@example.com,Customer ${n},${country}`)
  await recipe.storage({ 'imports/customers.csv': ['email,name,country', ...rows].join('\n') })
  await recipe.sql.unsafe(tables!)
  await recipe.work()
  const [alice, bob] = [await recipe.user(), await recipe.user()]
  await recipe.sql`insert into storage.objects (bucket_id, name, owner_id) values ('imports', 'customers.csv', ${alice.id})`

  const { error } = await bob.supabase.rpc('start_import', { path: 'customers.csv' })
  expect(error).toMatchObject({ code: 'PT404', message: 'you have not uploaded customers.csv' })

  await recipe.show(alice, 'src/customer-import.tsx', 'CustomerImport', {
    supabase: alice.supabase,
    path: 'customers.csv',
  })
  await press('Import')
  const alert = await screen.findByRole('alert', {}, { timeout: 10_000 })
  expect(alert.textContent).toContain(codeOf(recipe.text, 'text')[0]!.trim())
  expect(screen.getByRole('progressbar').getAttribute('max')).toBe('20')
  const completed = () => recipe.sql`
    select task_index, attempts_count, completed_at from pgflow.step_tasks
    where step_slug = 'saved' and status = 'completed' order by task_index`
  const saved = await completed()
  expect(saved.length).toBeGreaterThan(0)

  await recipe.sql.unsafe(mend!)
  await press('Resume')
  expect((await screen.findByRole('status', {}, { timeout: 10_000 })).textContent).toBe('10000 customers')
  expect((await recipe.sql`select count(*)::int as count from public.customers`)[0]!.count).toBe(10_000)
  const all = await completed()
  expect(all).toHaveLength(20)
  expect(all).toEqual(expect.arrayContaining([...saved]))
})

it('ai-pipeline.md embeds a document whose model refuses every fifth request', async () => {
  const recipe = await Recipe.follow('ai-pipeline')
  const [tables, ...more] = codeOf(recipe.text, 'sql')
  expect(more).toEqual([])
  await recipe.sql.unsafe(tables!)
  await recipe.work()
  const alice = await recipe.user()
  const body = Array.from({ length: 70 }, (_, n) => `Paragraph ${n}`).join('\n\n')
  await recipe.as(alice, (tx) => tx`insert into public.documents (body) values (${body})`)

  await recipe.show(alice, 'src/embedding.tsx', 'Embedding', { documentId: 1 })
  expect((await screen.findByRole('status', {}, { timeout: 10_000 })).textContent).toBe('70 chunks')
  const chunks = await recipe.sql`select body, embedding from public.document_chunks order by position`
  expect(chunks.map(({ body }) => body)).toEqual(body.split('\n\n'))
  expect(chunks[0]!.embedding.slice(0, 2)).toEqual(['P', 'a'].map((letter) => letter.charCodeAt(0)))
  const [refused] = await recipe.sql`
    select count(*)::int as count from pgflow.step_tasks where step_slug = 'embedded' and attempts_count > 1`
  expect(refused!.count).toBeGreaterThan(0)
})

it('upload-trigger.md starts runs of the user whose transaction it is', async () => {
  const recipe = await Recipe.follow('upload-trigger')
  const [documents, uploads, ...more] = codeOf(recipe.text, 'sql')
  expect(more).toEqual([])
  await recipe.storage()
  recipe.inserts()
  await recipe.sql.unsafe(documents!)
  await recipe.sql.unsafe(uploads!)
  const [alice, bob] = [await recipe.user(), await recipe.user()]
  const insert = recipe.as(alice, (tx) => tx`insert into public.documents (title) values ('Too early')`)
  await expect(insert).rejects.toThrow('flow "check_document" does not exist')

  await recipe.work()
  await recipe.show(alice, 'src/new-document.tsx', 'NewDocument', { supabase: alice.supabase })
  await press('Add a document')
  await vi.waitFor(() => expect(screen.getByRole('status').textContent).toBe('fine'), { timeout: 10_000 })

  const upload = (tx: postgres.TransactionSql, bucket: string) =>
    tx`insert into storage.objects (bucket_id, name, owner_id) values (${bucket}, 'notes/a.md', ${alice.id})`
  await recipe.as(alice, (tx) => upload(tx, 'others'))
  const rolledBack = recipe.as(alice, async (tx) => {
    await upload(tx, 'documents')
    throw new Error('rolled back')
  })
  await expect(rolledBack).rejects.toThrow('rolled back')
  await recipe.as(alice, (tx) => upload(tx, 'documents'))
  const filter = { flowSlug: 'read_upload', metadata: { path: 'notes/a.md' } }
  const { runs } = await alice.client.listRuns(filter)
  expect(runs.map(({ owner_id }) => owner_id)).toEqual([alice.id])
  const run = await alice.client.getRun(runs[0]!.run_id)
  expect(await run.waitForCompletion()).toEqual({ name: 'a.md' })
  expect((await bob.client.listRuns(filter)).runs).toEqual([])
})

it('per-user-limits.md limits runs at a time, then runs a day', async () => {
  const recipe = await Recipe.follow('per-user-limits')
  const [few, daily, ...more] = codeOf(recipe.text, 'sql')
  expect(more).toEqual([])
  for (const flow of await recipe.flows()) await recipe.sql.unsafe(compile(flow))
  const start = ({ client }: User) => client.startFlow('summarize', { text: 'A text' })

  await recipe.sql.unsafe(few!)
  const alice = await recipe.user()
  for (let n = 1; n <= 5; n++) await start(alice)
  await expect(start(alice)).rejects.toMatchObject({ name: 'ForbiddenError' })

  await recipe.sql.unsafe(daily!)
  const bob = await recipe.user()
  const starts = await Promise.allSettled([1, 2, 3, 4].map(() => start(bob)))
  expect(starts.map(({ status }) => status).sort()).toEqual([
    'fulfilled',
    'fulfilled',
    'fulfilled',
    'rejected',
  ])
  await recipe.show(bob, 'src/summarize.tsx', 'SummarizeButton', { text: 'A text' })
  await press('Summarize')
  expect((await screen.findByRole('alert')).textContent).toBe(
    'You have started 3 of 3 runs today. More are possible after midnight UTC, or with a larger plan.',
  )
  await recipe.sql`insert into public.plans values (${bob.id}, 4)`
  expect((await start(bob)).status).toBe('started')
})

it('cron.md has jobs that start runs', async () => {
  const recipe = await Recipe.follow('cron')
  const [nightly, weekly] = codeOf(recipe.text, 'sql')
  const command = (sql: string) => /\$\$(.*)\$\$/s.exec(sql)![1]!
  await expect(recipe.sql.unsafe(command(nightly!))).rejects.toThrow('flow "report" does not exist')
  await recipe.work()
  // pg_cron is not here: what it would run is.
  for (const _ of ['once', 'and again']) await recipe.sql.unsafe(command(nightly!))
  const runs = await recipe.sql`select input ->> 'day' = current_date::text as today from pgflow.runs`
  expect([...runs]).toEqual([{ today: true }])

  const [alice, bob] = [await recipe.user(), await recipe.user()]
  await recipe.sql`select pgflow.create_flow('digest'), pgflow.add_step('digest', 'mail')`
  await recipe.sql`create table public.subscribers as values (${alice.id}::uuid, 'a@example.com'), (${bob.id}, 'b@example.com')`
  await recipe.sql`alter table public.subscribers rename column1 to user_id`
  await recipe.sql`alter table public.subscribers rename column2 to email`
  await recipe.sql.unsafe(command(weekly!))
  const { runs: ofBob } = await bob.client.listRuns()
  expect(ofBob.map(({ input }) => input)).toEqual([{ email: 'b@example.com' }])
})
