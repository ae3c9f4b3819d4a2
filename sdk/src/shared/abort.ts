/** Who waits for a signal: its one listener, since Node takes more than ten for a leak and warns. */
class Waiters extends Set<() => void> {
  handleEvent(): void {
    for (const callback of [...this]) callback()
  }
}

const waitersOf = new WeakMap<AbortSignal, Waiters>()

/** Calls back when the signal is aborted, which it is not yet; returns its undo. Any number may wait for one signal. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  const waiters = waitersOf.get(signal) ?? new Waiters()
  waitersOf.set(signal, waiters.add(callback))
  signal.addEventListener('abort', waiters)
  return () => {
    waiters.delete(callback)
    if (waiters.size === 0) signal.removeEventListener('abort', waiters)
  }
}
