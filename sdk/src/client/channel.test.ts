import { afterEach, expect, it, vi } from 'vitest'
import { SharedChannel } from './channel.ts'
import { hangUpLater } from './socket.ts'
import type { ChannelLike, SupabaseLike } from './supabase.ts'

vi.mock('./socket.ts', () => ({ hangUpLater: vi.fn() }))

afterEach(() => {
  vi.unstubAllGlobals()
  vi.clearAllMocks()
})

/** Joins a channel and leaves it. */
async function visit(): Promise<SupabaseLike> {
  const joined = new Promise<void>((resolve) => {
    channel.subscribe = () => {
      resolve()
      return channel
    }
  })
  const supabase = {
    realtime: { setAuth: async () => undefined },
    channel: () => channel,
    removeChannel: async () => 'ok',
  } as unknown as SupabaseLike
  const shared = new SharedChannel(supabase, { receive: vi.fn(), changed: vi.fn() })
  shared.open('pgflow:user:1')
  await joined
  await shared.close()
  return supabase
}

const channel: ChannelLike = { on: () => channel, subscribe: () => channel }

it('that is left has the socket hung up, which would keep a process alive', async () => {
  const supabase = await visit()
  expect(hangUpLater).toHaveBeenCalledExactlyOnceWith(supabase)
})

it('that is left in a page leaves the socket alone: the user may soon look at another run', async () => {
  vi.stubGlobal('document', {})
  await visit()
  expect(hangUpLater).not.toHaveBeenCalled()
})
