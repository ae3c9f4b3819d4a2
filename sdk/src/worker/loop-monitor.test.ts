import { afterEach, describe, expect, it, vi } from 'vitest'
import { LoopMonitor } from './loop-monitor.ts'

function block(milliseconds: number): void {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

const onBlock = vi.fn()
const monitor = new LoopMonitor(onBlock)

afterEach(() => {
  monitor.stop()
  onBlock.mockClear()
})

describe('LoopMonitor', () => {
  it('reports a block of a second or more with its length', async () => {
    monitor.start()
    block(1_050)
    await new Promise((resolve) => setTimeout(resolve, 1))
    expect(onBlock).toHaveBeenCalledTimes(1)
    expect(onBlock.mock.calls[0]![0]).toBeGreaterThan(1)
    expect(onBlock.mock.calls[0]![0]).toBeLessThan(3)
  })

  it('gives the time of a block back to a timer', async () => {
    const order: string[] = []
    monitor.start()
    const ended = new Promise<void>((resolve) => {
      monitor.after(0.1, () => {
        order.push('counted')
        resolve()
      })
    })
    setTimeout(() => order.push('plain'), 250)
    block(400)
    await ended
    expect(order).toEqual(['plain', 'counted'])
    expect(onBlock).not.toHaveBeenCalled()
  })

  it('fires in time where nothing blocks, and not once it is undone', () => {
    vi.useFakeTimers()
    try {
      monitor.start()
      const fired = vi.fn()
      const undo = monitor.after(10, () => fired('undone'))
      monitor.after(20, () => fired('in time'))
      vi.advanceTimersByTime(5_000)
      undo()
      vi.advanceTimersByTime(14_999)
      expect(fired).not.toHaveBeenCalled()
      vi.advanceTimersByTime(1)
      expect(fired.mock.calls).toEqual([['in time']])
      monitor.stop()
      expect(vi.getTimerCount()).toBe(0)
    } finally {
      vi.useRealTimers()
    }
  })
})
