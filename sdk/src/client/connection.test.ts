import { afterEach, describe, expect, it, vi } from 'vitest'
import { TimeoutError } from '../shared/errors.ts'
import { getRunEvents } from './api.ts'
import { Connection } from './connection.ts'
import type { RpcLike, SupabaseLike } from './supabase.ts'

afterEach(() => vi.useRealTimers())

describe('a request that is never answered', () => {
  it('is given up, even if it cannot be aborted', async () => {
    vi.useFakeTimers()
    let signal: AbortSignal | undefined
    const request: RpcLike = Object.assign(new Promise<never>(() => undefined), {
      abortSignal(given: AbortSignal) {
        signal = given
        return request
      },
    })
    const supabase = { schema: () => ({ rpc: () => request }), realtime: {} } as unknown as SupabaseLike
    const events = getRunEvents(new Connection(supabase), 'id', 0, true)
    const rejected = expect(events).rejects.toThrow(TimeoutError)
    await vi.advanceTimersByTimeAsync(15_000)
    await rejected
    expect(signal?.aborted).toBe(true)
    expect(vi.getTimerCount()).toBe(0)
  })
})
