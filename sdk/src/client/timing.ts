/**
 * Milliseconds before a failed attempt is repeated: 1 s, 2 s, 4 s … 30 s, each shortened at random by up to a half, so
 * that many clients do not come back at the same moment.
 */
export function backOff(failures: number): number {
  return Math.min(30_000, 1000 * 2 ** (failures - 1)) * (0.5 + Math.random() / 2)
}

/** Milliseconds between two looks at what a joined channel should have delivered. */
export const checkInterval = 5000

/** What decides how soon runs are looked at again. */
export interface PollState {
  /** Requests that have failed in a row. */
  failures: number
  /** Requests in a row that brought no news. */
  idle: number
  /** Whether an event came before those that precede it, and these could not be read yet. */
  behind: boolean
  /** Whether the channel is joined and delivers, so that looking is only a precaution. */
  joined: boolean
}

/** Milliseconds until runs are looked at again. */
export function pollDelay({ failures, idle, behind, joined }: PollState): number {
  if (failures > 0) return backOff(failures)
  if (behind) return Math.min(1000, 50 * 2 ** idle)
  return joined ? checkInterval : Math.min(2000, 1000 * 2 ** idle)
}

/** The longest time that a timer takes; longer ones fire at once. */
const longestTimer = 2 ** 31 - 1

/** Calls back after a number of milliseconds, or never where that is longer than a timer takes; returns its undo. */
export function callAfter(ms: number, callback: () => void): () => void {
  const timer = ms <= longestTimer ? setTimeout(callback, ms) : undefined
  return () => clearTimeout(timer)
}

/** Calls back when a page is shown again or the network is back, where there are such things; returns its undo. */
export function onWake(callback: () => void): () => void {
  const { document } = globalThis as { document?: Document }
  const listener = () => {
    if (document?.visibilityState !== 'hidden') callback()
  }
  globalThis.addEventListener?.('online', listener)
  document?.addEventListener('visibilitychange', listener)
  return () => {
    globalThis.removeEventListener?.('online', listener)
    document?.removeEventListener('visibilitychange', listener)
  }
}
