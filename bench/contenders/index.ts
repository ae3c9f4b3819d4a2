import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Contender } from './contender.ts'

const MODULES = ['ours', 'pgmq', 'pgflow-core', 'dbos', 'openworkflow', 'graphile-worker', 'pg-boss']
const peers = fileURLToPath(new URL('../node_modules/@pgflow/core', import.meta.url))

/** All contenders. */
export async function loadContenders(): Promise<Contender[]> {
  if (!existsSync(peers)) throw new Error('Install the peers first: npm ci --prefix bench')
  return (await Promise.all(MODULES.map(load))).flat()
}

/** One of them, which loads few others. */
export async function loadContender(name: string): Promise<Contender | undefined> {
  for (const module of MODULES) {
    const found = (await load(module)).find((contender) => contender.name === name)
    if (found) return found
  }
  return undefined
}

/** By name, so that the repository compiles without the peers. */
async function load(name: string): Promise<Contender[]> {
  const module: { contenders: Contender[] } = await import(`./${name}.ts`)
  return module.contenders
}
