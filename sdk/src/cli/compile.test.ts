import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LocalSupabase, startLocalSupabase } from '@pgflow/local'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Answer, pgflow, root } from './testing/pgflow.ts'

const fixture = (name: string) => `sdk/src/cli/fixtures/${name}.ts`

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgflow-cli-'))
  return () => rm(folder, { recursive: true })
})

describe('pgflow compile', () => {
  let stack: LocalSupabase
  let sql: Sql

  beforeAll(async () => {
    stack = await startLocalSupabase({ migrations: [join(root, 'supabase/migrations')], fsync: false })
    sql = postgres(stack.dbUrl, { max: 1, onnotice: () => {} })
  })
  afterAll(async () => {
    await sql.end()
    await stack.stop()
  })

  const definitionOf = async (slug: string) =>
    (await sql`select pgflow.flow_definition(${slug}) as definition`)[0]?.definition

  it('writes a migration for each flow, with the schemas of its types; they apply', {
    timeout: 120_000,
  }, async () => {
    const { code, out, errors } = await pgflow('compile', fixture('flows'), '--out', folder)
    expect(errors).toBe('')
    const files = (await readdir(folder)).sort()
    expect(code).toBe(0)
    expect(files.map((name) => name.replace(/^\d{14}/, ''))).toEqual([
      '_pgflow_flow_part.sql',
      '_pgflow_flow_middle.sql',
      '_pgflow_flow_all.sql',
      '_pgflow_flow_checked.sql',
      '_pgflow_flow_scan.sql',
      '_pgflow_flow_scan_v2.sql',
    ])
    for (const name of files) expect(out).toContain(name)

    expect(await stack.migrate(folder)).toEqual(files)
    const $schema = 'http://json-schema.org/draft-07/schema#'
    const tree = { $ref: '#/definitions/type_1' }
    const folderSchema = {
      type: 'object',
      properties: { name: { type: 'string' }, folders: { type: 'array', items: tree } },
      required: ['name', 'folders'],
    }
    expect(await definitionOf('scan')).toMatchObject({
      timeout: 30,
      input_schema: {
        $schema,
        type: 'object',
        properties: {
          depth: { type: 'number', minimum: 1 },
          since: { type: 'string', format: 'date-time' },
          root: folderSchema,
          note: {},
        },
        required: ['depth', 'since'],
        definitions: { type_1: folderSchema },
      },
      steps: [
        { step_slug: 'sizes', input_schema: { properties: { run: { required: ['depth', 'since'] } } } },
        { step_slug: 'double', step_type: 'map', input_schema: { $schema, type: 'number' } },
        {
          step_slug: 'sum',
          input_schema: { properties: { double: { type: 'array', items: { type: 'number' } } } },
        },
      ],
    })
    expect(await definitionOf('scan_v2')).toMatchObject({
      alias: 'scan',
      version: 2,
      input_schema: { type: 'string' },
      steps: [
        { input_schema: { properties: { run: { type: 'string' } }, required: ['run'] } },
        {
          input_schema: {
            properties: {
              maybe: { properties: { n: { const: 1 }, s: { enum: ['a', 'b'] } }, required: ['n', 's'] },
            },
            required: ['run'],
          },
        },
        {
          input_schema: {
            properties: {
              all: { type: 'array', items: { anyOf: [{ type: 'string' }, { enum: [1, null] }] } },
            },
          },
        },
      ],
    })
    expect(await definitionOf('part')).toMatchObject({ input_schema: { required: ['name'] } })
    const [parts] = (await definitionOf('middle')).steps
    expect(parts).toMatchObject({ step_type: 'map', map_path: 'parts', child_flow: 'part' })
    expect(parts).not.toHaveProperty('input_schema')
    const checked = await definitionOf('checked')
    expect(checked.input_schema).toMatchObject({ properties: { mail: { type: 'string', format: 'email' } } })
    expect(checked.steps[0]).not.toHaveProperty('input_schema')
  })

  it('writes nothing where nothing has changed, and a further file where something has', async () => {
    const before = await pgflow('compile', fixture('flows'), '--out', folder, '--no-schemas')
    expect(before).toMatchObject({ code: 0, errors: '' })
    const files = (await readdir(folder)).sort()
    const texts = await Promise.all(files.map((name) => readFile(join(folder, name), 'utf8')))
    expect(texts[4]).toMatchInlineSnapshot(`
      "-- The flow "scan", written by \`pgflow compile\`. After a change of the flow, run it again.
      select pgflow.register_flow('{
        "flow_slug": "scan",
        "timeout": 30,
        "steps": [
          {"step_slug":"sizes","deps_slugs":[]},
          {"step_slug":"double","deps_slugs":["sizes"],"step_type":"map","map_source":"sizes"},
          {"step_slug":"sum","deps_slugs":["double"]}
        ]
      }');
      "
    `)

    expect(await pgflow('compile', fixture('flows'), '--out', folder, '--no-schemas')).toEqual({
      code: 0,
      out: 'part is up to date\nmiddle is up to date\nall is up to date\nchecked is up to date\nscan is up to date\nscan_v2 is up to date\n',
      errors: '',
    })
    expect((await readdir(folder)).sort()).toEqual(files)

    expect(await pgflow('compile', fixture('later'), '--out', folder, '--no-schemas')).toMatchObject({
      code: 0,
    })
    const after = (await readdir(folder)).sort()
    expect(after.slice(0, 6)).toEqual(files)
    expect(after[6]).toMatch(/^\d{14}_pgflow_flow_checked\.sql$/)
    await expect(stack.migrate(folder)).rejects.toThrow('the shape of "checked" changed: step "again" is new')
  })
})

describe('pgflow says in a sentence', () => {
  it.each<[string, string[], Partial<Record<keyof Answer, unknown>>]>([
    ['what it can do', [], { code: 0, out: expect.stringContaining('pgflow compile <file.ts>') }],
    [
      'that it has no such command',
      ['compil'],
      { code: 2, errors: expect.stringContaining('pgflow has no command "compil".') },
    ],
    [
      'that a file is missing',
      ['compile'],
      {
        code: 1,
        errors: expect.stringMatching(/^pgflow compile: name the file that exports the flows\nUsage: /),
      },
    ],
    [
      'that an option is unknown',
      ['compile', 'x.ts', '--outt'],
      { code: 1, errors: expect.stringContaining("Unknown option '--outt'") },
    ],
    [
      'that it takes one file',
      ['compile', 'x.ts', 'y.ts'],
      { code: 1, errors: expect.stringContaining('unexpected argument "y.ts"') },
    ],
    [
      'that there is no such file',
      ['compile', 'x.ts', '--out', '.'],
      { code: 1, errors: `pgflow compile: There is no file ${join(root, 'x.ts')}\n` },
    ],
    [
      'that there is no such folder',
      ['compile', fixture('flows'), '--out', 'nowhere'],
      { code: 1, errors: expect.stringContaining('There is no folder nowhere') },
    ],
    [
      'that a file exports no flow',
      ['compile', fixture('none'), '--out', '.'],
      { code: 1, errors: expect.stringContaining('none.ts exports no flow') },
    ],
    [
      'that a file cannot be imported',
      ['compile', 'README.md', '--out', '.'],
      { code: 1, errors: expect.stringContaining('README.md cannot be imported') },
    ],
    [
      'that there is no database, after it has found one sub-flow in two modules',
      ['worker', fixture('flows'), fixture('parents'), '--db', 'postgresql://localhost:1/postgres'],
      { code: 1, errors: expect.stringContaining('cannot reach the database') },
    ],
  ])('%s', async (_, args, answer) => {
    expect(await pgflow(...args)).toMatchObject(answer)
  })
})
