import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestDatabase, type TestDatabase } from '../worker/testing/database.ts'
import { pgflowIn } from './testing/pgflow.ts'
import { newProject } from './testing/project.ts'

const flowFile = (slug: string, handler: string) => `
  import { Flow } from '@pgflow/sdk/flow'
  const One = new Flow<string>({ slug: '${slug}' }).step('a', ${handler})
  export const flows = [One]`

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

describe('pgflow worker', () => {
  it('runs the flows of the default module on DATABASE_URL of .env, with its variables, and drains at SIGTERM', async () => {
    const handler = `async ({ run }) => {
      console.log('working')
      await new Promise((resolve) => process.once('SIGTERM', () => setTimeout(resolve, 300)))
      return run + process.env.GREETING
    }`
    const project = await newProject({
      '.env': `DATABASE_URL=${db.url}\n`,
      'supabase/functions/.env': 'GREETING=" and hello"\n',
      'supabase/functions/flow-worker/flows.ts': flowFile('drained', handler),
    })
    const worker = project.start('worker')
    await worker.said(/^Worker for drained at 127\.0\.0\.1:\d+\/postgres\. Ctrl-C stops it\.$/)
    const run_id = await db.startRun('drained', 'Ada')
    await worker.said('working')
    worker.kill('SIGTERM')
    expect(await db.runEnded(run_id)).toMatchObject({ output: { a: 'Ada and hello' } })
    expect(await worker.ended).toBe(0)
  })

  it('runs several modules with the secret key of a project, which .env.local has', async () => {
    const project = await newProject({
      '.env.local': `VITE_SUPABASE_URL=${db.stack.url}\nSUPABASE_SECRET_KEY=${db.stack.secretKey}
PGFLOW_WEBHOOK_KEY='a key of some length'\n`,
      'one.ts': flowFile('one', '({ run }) => run'),
      'two.ts': `export { two as AnyName } from './shared.ts'`,
      'shared.ts': `import { Flow } from '@pgflow/sdk/flow'
        export const two = new Flow<string>({ slug: 'two' })
          .step('url', (_, { waitUrl }) => waitUrl('called'))
          .wait({ slug: 'called', dependsOn: ['url'], webhook: true })`,
    })
    const worker = project.start('worker', 'one.ts', 'two.ts', '--concurrency', '3')
    await worker.said(`Worker for one, two at ${db.stack.url}. Ctrl-C stops it.`)
    const runs = await Promise.all([db.startRun('one', 1), db.startRun('two', 2)])
    await db.sql`select pgflow.complete_wait(${runs[1]!}, 'called', '1')`
    for (const run_id of runs) expect((await db.runEnded(run_id)).status).toBe('completed')
    const [url] = await db.sql`
      select output from pgflow.step_states where run_id = ${runs[1]!} and step_slug = 'url'`
    expect(url!.output).toContain(`${db.stack.url}/functions/v1/flow-worker/waits/two/${runs[1]}/called/`)
    worker.kill('SIGINT')
    expect(await worker.ended).toBe(0)
  })

  const { DATABASE_URL: _, ...environment } = process.env
  it.each<[string, string[], NodeJS.ProcessEnv, string]>([
    ['a module without flows', ['none.ts', '--db', 'postgresql://x/y'], {}, 'none.ts exports no flow: write'],
    ['a module that is not there', ['gone.ts', '--db', 'postgresql://x/y'], {}, 'There is no file'],
    ['no default module', ['--db', 'postgresql://x/y'], {}, 'flow-worker/flows.ts: name the module'],
    ['a syntax error', ['broken.ts', '--db', 'postgresql://x/y'], {}, 'broken.ts cannot be imported: '],
    ['no place', ['none.ts'], {}, 'name the database with DATABASE_URL or --db, or the project'],
    ['two places', ['none.ts', '--db', 'a', '--url', 'b'], {}, 'give --db or --url, not both'],
    ['no key', ['none.ts'], { SUPABASE_URL: 'https://x.supabase.co' }, 'no SUPABASE_SECRET_KEY (nor'],
    [
      'a project as --db',
      ['none.ts', '--db', 'https://x.supabase.co'],
      {},
      'give that of a project as --url',
    ],
    ['no number', ['none.ts', '--concurrency', 'many'], {}, '--concurrency is a whole number, 1 or more'],
  ])('refuses %s', async (_, args, variables, words) => {
    const { folder } = await newProject({
      'none.ts': 'export const a = 1',
      'broken.ts': 'export const a = (',
    })
    const answer = await pgflowIn(folder, ['worker', ...args], { ...environment, ...variables })
    expect(answer).toMatchObject({ code: 1, out: '', errors: expect.stringContaining(words) })
    expect(answer.errors).toMatch(/^pgflow worker: (?!.* {4}at )/s)
  })
})
