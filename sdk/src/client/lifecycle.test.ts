import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { compile } from '../flow/index.ts'
import { PgflowClient } from './client.ts'
import { Quick } from './testing/quick.ts'
import { Rig } from './testing/rig.ts'

const batches = Number(process.env.PGFLOW_LIFECYCLE_BATCHES ?? 20)

const nothing = { timers: 0, sockets: 0, channels: 0, listeners: 0, runs: 0 }

let rig: Rig

beforeAll(async () => {
  rig = await Rig.start()
  await rig.sql.unsafe(compile(Quick))
})
afterAll(() => rig.stop())
afterEach(() => vi.unstubAllGlobals())

async function completeAll(runIds: string[]): Promise<void> {
  const results = runIds.map((run_id) => ({
    run_id,
    step_slug: 'only',
    task_index: 0,
    attempt: null,
    output: 1,
  }))
  await rig.sql`select from pgflow.settle_tasks(${rig.sql.json(results)})`
}

describe(`after ${batches * 50} runs that were started, awaited and closed`, () => {
  it('no timer, socket, channel, listener or run is left, and the process ends', {
    timeout: 600_000,
  }, async () => {
    const script = fileURLToPath(new URL('./testing/many-runs.ts', import.meta.url))
    const child = spawn(
      process.execPath,
      ['--expose-gc', '--conditions=pgflow-source', '--import', 'tsx', script],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: {
          ...process.env,
          SUPABASE_URL: rig.stack.url,
          SUPABASE_KEY: rig.stack.publishableKey,
          SUPABASE_TOKEN: await rig.stack.signToken({ sub: randomUUID() }),
          BATCHES: String(batches),
        },
      },
    )
    const exit = once(child, 'exit')
    let left: unknown
    for await (const line of createInterface(child.stdout)) {
      const [, what, json] = /^(complete|left) (.+)/.exec(line)!
      if (what === 'left') left = JSON.parse(json!)
      if (what !== 'complete') continue
      await completeAll(JSON.parse(json!))
      child.stdin.write('completed\n')
    }
    // While the socket was open, it had its own timers.
    expect(left).toEqual({
      ...nothing,
      timersBefore: expect.toSatisfy((count) => count <= 2),
      opened: 1,
      warnings: [],
    })
    expect(await exit).toEqual([0, null])
  })
})

describe('a page', () => {
  it('has no listener left when its runs are over or closed', async () => {
    const listeners = new Map<string, number>()
    const count = (by: number) => (type: string) => listeners.set(type, (listeners.get(type) ?? 0) + by)
    const target = { addEventListener: count(1), removeEventListener: count(-1) }
    vi.stubGlobal('addEventListener', target.addEventListener)
    vi.stubGlobal('removeEventListener', target.removeEventListener)
    vi.stubGlobal('document', { ...target, visibilityState: 'visible' })
    const supabase = await rig.user()
    const client = new PgflowClient<{ quick: typeof Quick }>(supabase)
    const [over, closed] = await client.startFlows('quick', [1, 2])
    const done = over!.waitForCompletion()
    closed!.on('*', () => undefined)
    expect(Object.fromEntries(listeners)).toMatchObject({ online: 1, visibilitychange: 1 })
    await completeAll([over!.runId])
    await Promise.all([done, closed!.close()])
    expect(Object.fromEntries(listeners)).toMatchObject({ online: 0, visibilitychange: 0 })
  })
})
