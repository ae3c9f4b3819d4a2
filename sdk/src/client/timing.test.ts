import { afterEach, describe, expect, it, vi } from 'vitest'
import { backOff, onWake, pollDelay } from './timing.ts'

afterEach(() => vi.unstubAllGlobals())

const quiet = { failures: 0, idle: 0, behind: false, joined: true }

describe('pollDelay', () => {
  it('is five seconds while the channel is joined, however long nothing happens', () => {
    const delays = [0, 1, 500].map((idle) => pollDelay({ ...quiet, idle }))
    expect(delays).toEqual([5000, 5000, 5000])
  })

  it('stays short while it is not', () => {
    const delays = [0, 1, 2, 500].map((idle) => pollDelay({ ...quiet, joined: false, idle }))
    expect(delays).toEqual([1000, 2000, 2000, 2000])
  })

  it('is shortest when something is known to be missing', () => {
    const delays = [0, 1, 5, 500].map((idle) => pollDelay({ ...quiet, behind: true, idle }))
    expect(delays).toEqual([50, 100, 1000, 1000])
  })

  it('backs off after failures', () => {
    for (const failures of [1, 2, 3, 10, 2000]) {
      const delay = pollDelay({ ...quiet, behind: true, failures })
      expect(delay).toBeLessThanOrEqual(Math.min(30_000, 1000 * 2 ** (failures - 1)))
      expect(delay).toBeGreaterThanOrEqual(Math.min(15_000, 500 * 2 ** (failures - 1)))
    }
  })
})

describe('backOff', () => {
  it('does not bring all clients back at once', () => {
    expect(new Set(Array.from({ length: 100 }, () => backOff(3))).size).toBeGreaterThan(90)
  })
})

describe('onWake', () => {
  class Page extends EventTarget {
    visibilityState = 'visible'
  }

  it('calls back when the page is shown, and when the network is back', () => {
    const [page, window] = [new Page(), new EventTarget()]
    vi.stubGlobal('document', page)
    vi.stubGlobal('addEventListener', window.addEventListener.bind(window))
    vi.stubGlobal('removeEventListener', window.removeEventListener.bind(window))
    const woken = vi.fn()
    const stop = onWake(woken)

    page.dispatchEvent(new Event('visibilitychange'))
    window.dispatchEvent(new Event('online'))
    expect(woken).toHaveBeenCalledTimes(2)

    page.visibilityState = 'hidden'
    page.dispatchEvent(new Event('visibilitychange'))
    window.dispatchEvent(new Event('online'))
    expect(woken).toHaveBeenCalledTimes(2)

    page.visibilityState = 'visible'
    stop()
    page.dispatchEvent(new Event('visibilitychange'))
    window.dispatchEvent(new Event('online'))
    expect(woken).toHaveBeenCalledTimes(2)
  })

  it('does nothing where there is neither', () => {
    expect(() => onWake(() => undefined)()).not.toThrow()
  })
})
