import { getEventListeners } from 'node:events'
import { expect, it } from 'vitest'
import { onAbort } from './abort.ts'

it('calls back whoever waits when the signal is aborted, and nobody else', () => {
  const controller = new AbortController()
  const called: number[] = []
  const undo = [0, 1, 2].map((n) => onAbort(controller.signal, () => called.push(n)))
  undo[1]!()
  controller.abort()
  expect(called).toEqual([0, 2])
})

it('has one listener however many wait, and none when nobody does', () => {
  const { signal } = new AbortController()
  const listeners = () => getEventListeners(signal, 'abort').length
  const undo = Array.from({ length: 100 }, () => onAbort(signal, () => undefined))
  expect(listeners()).toBe(1)
  for (const stop of undo) stop()
  expect(listeners()).toBe(0)
  onAbort(signal, () => undefined)
  expect(listeners()).toBe(1)
})
