import { afterEach, beforeEach, expect, vi } from 'vitest'
import type { AnyFlow } from '../../flow/index.ts'
import type { Core, CoreOptions } from '../core.ts'
import { MemoryTransport, startCore } from './memory-transport.ts'

/** Those of the test that runs. */
export let transport: MemoryTransport
export let core: Core

export function start(flow: AnyFlow, options: Partial<CoreOptions> = {}): void {
  core = startCore(transport, flow, options)
}

/** Gives each test of a file a transport and a fake clock, and stops its core. */
export function coreForEachTest(): void {
  beforeEach(() => {
    vi.clearAllMocks()
    vi.useFakeTimers()
    transport = new MemoryTransport()
  })

  afterEach(async () => {
    transport.before = {}
    const stopped = core.stop(0)
    await vi.runAllTimersAsync()
    await stopped
    expect(vi.getTimerCount()).toBe(0)
    vi.useRealTimers()
  })
}
