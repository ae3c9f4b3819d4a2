import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { after, Notifier, pollPause, retryPause, sleep } from './time.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** Counts how often a promise was fulfilled. */
function watch(promise: Promise<unknown>) {
  const fulfilled = vi.fn()
  void promise.then(fulfilled)
  return fulfilled
}

describe('Notifier', () => {
  it('ends a wait when it is notified, and leaves no timer', async () => {
    const notifier = new Notifier()
    const waited = watch(notifier.wait(10))
    await vi.advanceTimersByTimeAsync(9_000)
    expect(waited).not.toHaveBeenCalled()
    notifier.notify()
    await vi.advanceTimersByTimeAsync(0)
    expect(waited).toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })

  it('ends a wait in time without a notification', async () => {
    const waited = watch(new Notifier().wait(10))
    await vi.advanceTimersByTimeAsync(10_000)
    expect(waited).toHaveBeenCalled()
  })

  it('remembers one notification for the next wait, and no more', async () => {
    const notifier = new Notifier()
    notifier.notify()
    notifier.notify()
    await notifier.wait(Number.POSITIVE_INFINITY)
    const waited = watch(notifier.wait(Number.POSITIVE_INFINITY))
    await vi.advanceTimersByTimeAsync(60_000)
    expect(waited).not.toHaveBeenCalled()
  })
})

describe('sleep', () => {
  it('ends in time, or when the signal is aborted, and leaves no timer', async () => {
    const controller = new AbortController()
    const short = watch(sleep(1, controller.signal))
    const long = watch(sleep(100, controller.signal))
    await vi.advanceTimersByTimeAsync(1_000)
    expect(short).toHaveBeenCalled()
    expect(long).not.toHaveBeenCalled()
    controller.abort()
    await vi.advanceTimersByTimeAsync(0)
    expect(long).toHaveBeenCalled()
    await sleep(100, controller.signal)
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('after', () => {
  it('does not fire at once for a time that is too long for a timer', async () => {
    const fired = vi.fn()
    const cancel = after(60 * 60 * 24 * 365, fired)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(fired).not.toHaveBeenCalled()
    cancel()
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('pauses', () => {
  it('between empty polls grow from 20 ms to 1 s', () => {
    expect([0, 1, 2, 5, 6, 1_000].map((polls) => pollPause(polls))).toEqual([0.02, 0.04, 0.08, 0.64, 1, 1])
  })

  it('after failures grow from 0.1 s to 5 s, and chance halves them at most', () => {
    expect([0, 1, 5, 6, 1_000].map((failures) => retryPause(failures, 0))).toEqual([0.1, 0.2, 3.2, 5, 5])
    expect(retryPause(6, 1)).toBe(2.5)
  })
})
