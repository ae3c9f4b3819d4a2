import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import postgres from 'postgres'
import { describe, expect, it, onTestFinished } from 'vitest'
import { migrations, until } from '../worker/testing/database.ts'
import { closedPort } from '../worker/testing/port.ts'
import { devCommand } from './dev.ts'
import { said } from './testing/command.ts'
import { newProject } from './testing/project.ts'

const flows = `
  import { Flow } from '@pgflow/sdk/flow'
  import { greeting } from './greeting.ts'
  export const flows = [new Flow<string>({ slug: 'greet' }).step('text', ({ run }) => greeting + run)]`

async function devProject() {
  const [api, db] = [await closedPort(), await closedPort()]
  const project = await newProject({
    'supabase/config.toml': `
      [api] # as edited by hand
      port = ${api}
      schemas = ["public", "pgflow_public", "pgflow_worker"]
      [db]
      port = ${db}`,
    'supabase/functions/flow-worker/flows.ts': flows,
    'supabase/functions/flow-worker/greeting.ts': `export const greeting = 'Hello '`,
    'package.json': '{ "type": "module", "dependencies": { "next": "16" } }',
    '.env': 'DATABASE_URL=postgresql://production.example.com/postgres\n',
  })
  await cp(migrations, join(project.folder, 'supabase/migrations'), { recursive: true })
  return {
    ...project,
    api,
    db,
    flow: (name: string, text: string) => project.write(`supabase/functions/flow-worker/${name}`, text),
  }
}

describe('pgflow dev', () => {
  it('runs the project, and goes on with each change of flows and migrations', async () => {
    const { write, flow, start, api } = await devProject()
    await write('supabase/migrations/20270101000000_own.sql', 'create table public.own (n int)')
    const dev = start('dev')
    const url = (await dev.said(/^DATABASE_URL=/)).slice('DATABASE_URL='.length)
    await dev.said(`NEXT_PUBLIC_SUPABASE_URL=http://127.0.0.1:${api}`)
    await dev.said(/^ {2}secret key {7}sb_secret_/)
    await dev.said('Applied 20270101000000_own.sql')
    await dev.said('Started the worker for greet')

    const sql = postgres(url, { max: 1, onnotice: () => {} })
    onTestFinished(() => sql.end({ timeout: 0 }))
    const result = async () => {
      const [run] = await sql`select run_id from pgflow.start_flow('greet', '"Ada"')`
      const [ended] = await until(async () => {
        const rows =
          await sql`select output from pgflow.runs where run_id = ${run!.run_id} and output is not null`
        return rows.length > 0 ? [rows] : []
      })
      return ended!.output.text
    }
    expect(await result()).toBe('Hello Ada')

    // What a flow module imports.
    await flow('greeting.ts', `export const greeting = 'Hi '`)
    await dev.said('Restarted the worker for greet')
    expect(await result()).toBe('Hi Ada')

    // A mistake, during which the flows before it go on.
    await flow('greeting.ts', `export const greeting = (`)
    await dev.noted(/greeting\.ts:1:\d+: ERROR: .*\n.*The flows before the change go on/)
    expect(await result()).toBe('Hi Ada')
    await flow(
      'greeting.ts',
      `export const greeting = process.env.SUPABASE_URL + ' ' + process.env.DATABASE_URL + ' '`,
    )
    await dev.said('Restarted the worker for greet', 2)
    expect(await result()).toBe(`http://127.0.0.1:${api} ${url} Ada`)

    // A shape that differs.
    await flow('flows.ts', flows.replace(`'text'`, `'other'`))
    await dev.noted(/the shape of "greet" changed: .*give the changed flow a new version/)
    await dev.noted(/Either give the flow a version, as in production, or delete the flow and its 4 runs/)
    await flow('flows.ts', flows.replace(`'greet'`, `'greet', version: 2`).replace(`'text'`, `'other'`))
    await dev.said('Restarted the worker for greet_v2')

    // Migrations: a mistake, its correction.
    await write('supabase/migrations/20270102000000_more.sql', 'create table public.own (n int)')
    await dev.noted(/A migration failed: .*20270102000000_more\.sql.*\nCorrect the file/)
    await write('supabase/migrations/20270102000000_more.sql', 'create table public.more (n int)')
    await dev.said('Applied 20270102000000_more.sql')
    await sql.end({ timeout: 1 })
    dev.kill('SIGINT')
    expect(await dev.ended).toBe(0)
    await expect(postgres(url, { max: 1, connect_timeout: 2 })`select 1`).rejects.toThrow('ECONNREFUSED')

    // The data is still there.
    const again = start('dev', '--no-worker')
    await again.said('Ready. Ctrl-C stops everything.')
    const kept = postgres(url, { max: 1 })
    expect(await kept`select count(*)::int as n from pgflow.runs`).toEqual([{ n: 4 }])
    await kept.end()
    again.kill('SIGTERM')
    expect(await again.ended).toBe(0)
  }, 60_000)

  it('is stopped while it starts, and leaves nothing behind', async () => {
    const { start, db } = await devProject()
    const dev = start('dev')
    await dev.noted('Starting Postgres, REST and Realtime …')
    dev.kill('SIGINT')
    expect(await dev.ended).toBe(0)
    await expect(postgres({ port: db, host: '127.0.0.1', max: 1 })`select 1`).rejects.toThrow('ECONNREFUSED')
  })

  it('says what it cannot use', async () => {
    const { folder } = await newProject({ 'supabase/config.toml': '[api\n' })
    expect((await said(devCommand, ['gone.ts'], { cwd: folder })).error).toMatch(
      /^There is no file .*gone\.ts$/,
    )
    expect((await said(devCommand, ['--port', 'x'], { cwd: folder })).error).toBe(
      '--port is a whole number, 1 or more',
    )
    expect((await said(devCommand, [], { cwd: folder })).error).toMatch(/config\.toml cannot be read: /)
  })
})
