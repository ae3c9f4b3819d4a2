import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { errorFrom } from '../../sdk/src/client/errors.ts'

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const chapters = readdirSync(new URL('../migrations', import.meta.url)).sort()
const texts = chapters.map((name) => read(`supabase/migrations/${name}`))
const migrations = texts.join('\n')
const architecture = read('ARCHITECTURE.md')

/** The rows of the table that begins with such a heading, each as its cells' texts. */
function table(heading: string): string[][] {
  const [, ...lines] = architecture.slice(architecture.indexOf(`| ${heading} |`)).split('\n')
  const rows = lines.slice(0, lines.indexOf('')).slice(1)
  return rows.map((row) => row.split('|').map((cell) => cell.trim().replaceAll('`', '')))
}
const names = (heading: string) => table(heading).flatMap(([, name]) => name!.split(', '))

/** The values that a constraint of a table allows. */
function allowed(tableName: string, constraint: string): string[] {
  const definition = migrations.slice(migrations.indexOf(`create table pgflow.${tableName} (`))
  const check = definition.slice(definition.indexOf(`constraint ${constraint} check`)).split('))')[0]!
  return [...check.matchAll(/'([^']+)'/g)].map(([, value]) => value!)
}

test('The chapters are numbered in the order in which they run', () => {
  const headings = texts.map((text) => text.split(': ')[0])
  expect(headings).toEqual(chapters.map((_, index) => `-- Chapter ${index + 1}`))
})

describe('ARCHITECTURE lists what the migrations have:', () => {
  test('their chapters', () => {
    const [, , words] = table('folder').find(([, folder]) => folder === 'supabase/migrations')!
    expect(words).toBe(
      `the engine, as chapters: ${chapters.map((name) => name.replace(/^\d+_pgflow_|\.sql$/g, '')).join(', ')}`,
    )
  })

  test.each([
    ['run', 'runs'],
    ['step state', 'step_states'],
    ['task', 'step_tasks'],
  ])('the statuses of a %s', (heading, tableName) => {
    expect(names(`${heading} | from | by`).sort()).toEqual(allowed(tableName, 'status_is_known').sort())
  })

  test('the types of events', () => {
    expect(names('type').sort()).toEqual(allowed('run_events', 'type_is_known').sort())
  })

  test('the SQLSTATEs that are raised, with the classes that clients make of them', () => {
    const raised = [...migrations.matchAll(/errcode = '(\w+)'/g)].map(([, code]) => code!)
    const classes = [...new Set(raised)].sort().map((code) => {
      const error = { code, message: '', hint: null, details: null }
      return [code, errorFrom(error, { status: 400 }).constructor.name]
    })
    expect(table('SQLSTATE').map(([, code, className]) => [code, className])).toEqual(classes)
  })
})
