import type { RealtimeLike, SupabaseLike } from './supabase.ts'

/** Milliseconds for which an unused socket is kept, so that the next run need not connect again. */
const keepMs = 1000

/** As much of a supabase-js client as this needs. */
type SocketOwner = Pick<SupabaseLike, 'realtime'>

const timers = new WeakMap<SocketOwner, ReturnType<typeof setTimeout>>()

/**
 * Closes the socket when no channel has been left for a second. supabase-js would keep it for most of a minute, and the
 * process alive with it. Pages do not need this, and do not load it.
 */
export function hangUpLater(supabase: SocketOwner): void {
  clearTimeout(timers.get(supabase))
  const timer = setTimeout(() => void hangUp(supabase.realtime), keepMs)
  timers.set(supabase, timer)
  // Where the socket is gone already, the process need not wait for this.
  if (typeof timer === 'object') (timer as { unref?(): void }).unref?.()
}

async function hangUp(realtime: RealtimeLike): Promise<void> {
  if (realtime.getChannels().length > 0) return
  await disconnected(realtime)
  // A channel that was opened meanwhile found the socket closing, and did not open another.
  if (realtime.getChannels().length > 0) realtime.connect()
}

/** What supabase-js has inside, if it is still so. */
interface Internals {
  socketAdapter?: { getSocket?(): { disconnect(done: () => void): void } }
  _cancelPendingDisconnect?(): void
}

/**
 * `realtime.disconnect()` leaves a timer of ten seconds behind, which keeps a Node process alive; the socket underneath
 * does not.
 */
async function disconnected(realtime: RealtimeLike): Promise<void> {
  const internals = realtime as Internals
  const socket = internals.socketAdapter?.getSocket?.()
  if (socket === undefined) {
    await realtime.disconnect()
  } else {
    internals._cancelPendingDisconnect?.()
    await new Promise<void>((done) => socket.disconnect(done))
  }
}
