import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { hangUpLater } from './socket.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** The socket of a client, as far as hanging up goes. */
function socketWith(channels: unknown[]) {
  const realtime = {
    setAuth: async () => undefined,
    getChannels: () => channels,
    connect: vi.fn(),
    disconnect: vi.fn(async () => 'ok'),
  }
  return { realtime, supabase: { realtime } }
}

it('hangs up when nobody has used the socket for a second', async () => {
  const { realtime, supabase } = socketWith([])
  hangUpLater(supabase)
  await vi.advanceTimersByTimeAsync(600)
  hangUpLater(supabase)
  await vi.advanceTimersByTimeAsync(600)
  expect(realtime.disconnect).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(400)
  expect(realtime.disconnect).toHaveBeenCalledOnce()
  expect(realtime.connect).not.toHaveBeenCalled()
})

it('leaves a socket alone that is used', async () => {
  const { realtime, supabase } = socketWith(['a channel of the application'])
  hangUpLater(supabase)
  await vi.advanceTimersByTimeAsync(1000)
  expect(realtime.disconnect).not.toHaveBeenCalled()
})

it('connects again for a channel that was opened while the socket was closing', async () => {
  const channels: unknown[] = []
  const { realtime, supabase } = socketWith(channels)
  realtime.disconnect.mockImplementation(async () => {
    channels.push('a channel of the application')
    return 'ok'
  })
  hangUpLater(supabase)
  await vi.advanceTimersByTimeAsync(1000)
  expect(realtime.connect).toHaveBeenCalledOnce()
})
