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

/** What the promise gives, or the signal's reason once it is aborted; the promise is then left to itself. */
export async function orAbort<Value>(
  promise: Promise<Value>,
  signal: AbortSignal | undefined,
): Promise<Value> {
  if (signal === undefined) return promise
  signal.throwIfAborted()
  let undo = () => {}
  const aborted = new Promise<never>((_, reject) => {
    undo = onAbort(signal, () => reject(signal.reason))
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    undo()
  }
}
