import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Contender } from './contender.ts'

const MODULES = ['ours', 'pgmq', 'pgflow-core', 'dbos', 'openworkflow', 'graphile-worker', 'pg-boss']
const peers = fileURLToPath(new URL('../node_modules/@pgflow/core', import.meta.url))

/** All contenders. Imports by name, so that the repository compiles without the peers. */
export async function loadContenders(): Promise<Contender[]> {
  if (!existsSync(peers)) throw new Error('Install the peers first: npm ci --prefix bench')
  const found: Contender[] = []
  for (const name of MODULES) {
    const module: { contenders: Contender[] } = await import(`./${name}.ts`)
    found.push(...module.contenders)
  }
  return found
}
