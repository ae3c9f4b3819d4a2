import type { PostgresType } from 'postgres'

/** Types whose arrays handlers use, by their oid, with that of the array, and how an item is read. */
const itemTypes: readonly (readonly [array: number, read: (text: string) => unknown])[] = [
  [1000, (text) => text === 't'], // bool
  [1005, Number], // int2
  [1007, Number], // int4
  [1016, String], // int8, as postgres.js reads it
  [1021, Number], // float4
  [1022, Number], // float8
  [1231, String], // numeric
  [1009, String], // text
  [1015, String], // varchar
  [2951, String], // uuid
  [1182, (text) => new Date(text)], // date
  [1115, (text) => new Date(text)], // timestamp
  [1185, (text) => new Date(text)], // timestamptz
  [199, (text) => JSON.parse(text)], // json
  [3807, (text) => JSON.parse(text)], // jsonb
]

/**
 * Arrays of common types. postgres.js asks each new connection for them, in a query of its own whose failure, when the connection is
 * lost meanwhile, ends the process.
 */
export const arrayTypes: Record<string, PostgresType> = Object.fromEntries(
  itemTypes.map(([array, read]) => [
    `array_${array}`,
    { to: array, from: [array], serialize: literalOf, parse: (text: string) => itemsOf(text, read) },
  ]),
)

function literalOf(value: unknown): string {
  if (!Array.isArray(value)) return String(value)
  return `{${value.map((item) => (Array.isArray(item) ? literalOf(item) : itemLiteral(item))).join(',')}}`
}

function itemLiteral(item: unknown): string {
  if (item === null || item === undefined) return 'null'
  const text =
    item instanceof Date ? item.toISOString() : typeof item === 'object' ? JSON.stringify(item) : String(item)
  return `"${text.replace(/[\\"]/g, '\\$&')}"`
}

/** The items of an array as Postgres writes it: `{1,NULL,"a\"b",{2}}`, possibly with its bounds before. */
function itemsOf(text: string, read: (text: string) => unknown): unknown[] {
  const root: unknown[] = []
  const open: unknown[][] = [root]
  for (const [token, quoted] of text
    .slice(text.indexOf('{'))
    .matchAll(/[{}]|"((?:[^"\\]|\\.)*)"|[^{},"]+/gs)) {
    const items = open.at(-1)!
    if (token === '{') {
      const inner: unknown[] = []
      items.push(inner)
      open.push(inner)
    } else if (token === '}') open.pop()
    else if (quoted !== undefined) items.push(read(quoted.replace(/\\(.)/gs, '$1')))
    else items.push(token === 'NULL' ? null : read(token))
  }
  return root[0] as unknown[] // the outermost
}
