import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { settingsFrom } from './settings.ts'

const page = readFileSync('docs/local-development.md', 'utf8')
const rows = [...page.matchAll(/^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|/gm)]

it.each([
  ['the defaults', settingsFrom({}), 0],
  ['those of the platform', settingsFrom({ realistic: true }), 1],
] as const)('are documented: %s', (_, settings, column) => {
  const { log, ...values } = settings
  const documented = rows.map(([, name, ...columns]) => [name, parsed(columns[column]!)])
  expect(Object.fromEntries(documented)).toEqual(values)
})

function parsed(cell: string): unknown {
  if (cell === 'none') return Number.POSITIVE_INFINITY
  return cell === '`true`' ? true : Number(cell.replaceAll(',', ''))
}
