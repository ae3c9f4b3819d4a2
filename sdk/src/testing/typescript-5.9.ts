import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type typescript from 'ts-json-schema-generator/node_modules/typescript'

const { resolve } = createRequire(import.meta.url)
const inGenerator = createRequire(resolve('ts-json-schema-generator'))

/**
 * The last TypeScript that is written in JavaScript, with its API. It is the one that `ts-json-schema-generator` reads
 * types with: another package named `typescript` would take the place of `tsc`.
 */
export const ts: typeof typescript = inGenerator('typescript')

if (!ts.version.startsWith('5.9.')) throw new Error(`TypeScript 5.9 was expected, not ${ts.version}`)

/** Its compiler, as a program of Node. */
export const tsc59 = join(dirname(inGenerator.resolve('typescript/package.json')), 'bin/tsc')
