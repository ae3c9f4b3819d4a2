import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { createContext, runInContext } from 'node:vm'
import { build } from 'esbuild'
import { describe, expect, it } from 'vitest'
import { Rig } from './testing/rig.ts'

const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url))

describe('on a server that renders pages', () => {
  it('importing and constructing need nothing but the language', async () => {
    const { outputFiles } = await build({
      entryPoints: [pathOf('./index.ts')],
      bundle: true,
      format: 'iife',
      globalName: 'sdk',
      conditions: ['pgflow-source'],
      write: false,
    })
    const globals = createContext({})
    expect(runInContext('typeof setTimeout + typeof document + typeof fetch', globals)).toBe(
      'undefined'.repeat(3),
    )
    runInContext(outputFiles[0]!.text, globals)
    runInContext('var client = new sdk.PgflowClient({})', globals)
    expect(Object.keys(globals)).toEqual(['sdk', 'client'])
  })
})

describe('Deno', () => {
  it('starts and follows a run, and ends by itself', async () => {
    await using rig = await Rig.start()
    const deno = createRequire(import.meta.url).resolve('deno/bin.cjs')
    const child = spawn(process.execPath, [deno, 'run', '-A', pathOf('./testing/follow-run.ts')], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        ...process.env,
        SUPABASE_URL: rig.stack.url,
        SUPABASE_KEY: rig.stack.publishableKey,
        SUPABASE_TOKEN: await rig.stack.signToken({ sub: randomUUID() }),
      },
    })
    const exit = once(child, 'exit')
    const lines: string[] = []
    for await (const line of createInterface(child.stdout)) {
      lines.push(line)
      const [, runId] = /^ready (.+)/.exec(line) ?? []
      if (runId !== undefined) await rig.complete(runId)
    }
    expect(await exit).toEqual([0, null])
    expect(lines.at(-1)).toBe('{"report":true}')
    expect(lines.filter((line) => line.includes('run:'))).toEqual(['1 run:started', '10 run:completed'])
  })
})
