import { startLocalSupabase } from '@pgflow/local'
import { createClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { PgflowError } from '../shared/errors.ts'
import { schemaVersion } from '../shared/schema-version.ts'
import { PgflowClient } from './client.ts'
import { Line, type Review, Rig } from './testing/rig.ts'

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
})
afterAll(() => rig.stop())

const realtime = { transport: WebSocket as never }

async function open() {
  const line = new Line()
  const supabase = await rig.user(undefined, { global: { fetch: line.fetch } })
  return { line, client: new PgflowClient<{ review: typeof Review }>(supabase) }
}

/** Runs while functions of the API have other names, as in a database with older migrations. */
async function without(names: string[], run: () => Promise<void>): Promise<void> {
  const rename = async (from: string, to: string) => {
    for (const name of names) {
      await rig.sql.unsafe(`alter function pgflow_public.${from}${name} rename to ${to}${name}`)
    }
    await rig.sql`notify pgrst, 'reload schema'`
  }
  await rename('', 'former_')
  try {
    await run()
  } finally {
    await rename('former_', '')
  }
}

const getRun = 'get_run'
const version = 'schema_version'
const missing = { code: 'PGRST202', status: 404 }

describe('the version of the schema', () => {
  it('that this package needs is the one of its migrations', async () => {
    expect(await rig.sql`select pgflow.schema_version()`).toEqual([{ schema_version: schemaVersion }])
  })

  it('is asked for only where a function is missing', async () => {
    const { client, line } = await open()
    const run = await client.startFlow('review', { text: 'some text' })
    await client.getRun(run.runId)
    await client.startFlow('no_such_flow' as 'review', { text: 'some text' }).catch(() => undefined)
    expect(line.requests).toEqual(['start_flow', 'get_run', 'start_flow'])
    await without([getRun], async () => {
      await expect(client.getRun(run.runId)).rejects.toMatchObject(missing)
    })
    expect(line.requests.slice(3)).toEqual(['get_run', 'schema_version'])
  })

  it('that is older is named, with what to run', async () => {
    const { client, line } = await open()
    const run = await client.startFlow('review', { text: 'some text' })
    await without([getRun], async () => {
      line.broken = (input, init) =>
        String(input).endsWith('/schema_version')
          ? Promise.resolve(Response.json(schemaVersion - 1))
          : fetch(input, init)
      await expect(client.getRun(run.runId)).rejects.toMatchObject({
        ...missing,
        hint: expect.stringContaining(
          `version ${schemaVersion - 1} of the migrations of pgflow, and this package`,
        ),
      })
    })
  })

  it('that is not there means that pgflow is not installed', async () => {
    const { client } = await open()
    const run = await client.startFlow('review', { text: 'some text' })
    await without([getRun, version], async () => {
      await expect(client.getRun(run.runId)).rejects.toMatchObject({
        ...missing,
        hint: expect.stringContaining('This database has no migrations of pgflow'),
      })
    })
  })

  it('that is right means that the API has not noticed the migrations', async () => {
    const { client } = await open()
    const run = await client.startFlow('review', { text: 'some text' })
    await without([getRun], async () => {
      await expect(client.getRun(run.runId)).rejects.toMatchObject({
        ...missing,
        hint: expect.stringContaining('reload schema'),
      })
    })
  })
})

describe('a project', () => {
  it.each([
    ['without pgflow', ['public', 'pgflow_public'], 'PGRST202', 'This database has no migrations of pgflow'],
    ['that does not expose its schema', ['public'], 'PGRST106', "add 'pgflow_public' to the exposed schemas"],
  ])('%s says what to do', async (_, schemas, code, hint) => {
    const stack = await startLocalSupabase({ schemas, fsync: false })
    try {
      const supabase = createClient(stack.url, stack.publishableKey, { realtime })
      const listed = new PgflowClient(supabase).listRuns()
      await expect(listed).rejects.toThrow(PgflowError)
      await expect(listed).rejects.toMatchObject({ code, hint: expect.stringContaining(hint) })
    } finally {
      await stack.stop()
    }
  })

  it('of which the key is wrong is told so', async () => {
    const supabase = createClient(rig.stack.url, 'sb_publishable_of_another', { realtime })
    await expect(new PgflowClient(supabase).listRuns()).rejects.toMatchObject({
      code: 'unauthorized',
      hint: 'Check the key of the project.',
    })
  })
})
