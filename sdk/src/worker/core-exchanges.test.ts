import { beforeEach, expect, it, vi } from 'vitest'
import { Flow } from '../flow/index.ts'
import { core, coreForEachTest, start, transport } from './testing/core.ts'
import { databaseError, flow_slug, gate } from './testing/memory-transport.ts'

coreForEachTest()

const flow = new Flow({ slug: flow_slug }).step('a', () => 1).step('slow', () => gate().promise)

/** The calls that have no answer yet; opening the gate answers all of them. */
let calls: ReturnType<typeof gate>
let underWay = 0
let most = 0

beforeEach(() => {
  transport.exchanges = 2
  calls = gate()
  underWay = 0
  most = 0
  transport.before.settle = async () => {
    most = Math.max(most, ++underWay)
    await calls.promise
    underWay--
  }
})

const batches = () => transport.batches.map((batch) => batch.length)

it('Two exchanges go on at the same time while there is enough for both, and share it', async () => {
  start(flow, { concurrency: 100 })
  transport.addTasks(...Array.from({ length: 300 }, () => 'a'))
  await vi.advanceTimersByTimeAsync(50)
  expect(batches()).toEqual([50, 50])
  expect(transport.requests.slice(-2).map(({ lane, quantity }) => [lane, quantity])).toEqual([
    [0, 50],
    [1, 50],
  ])
  calls.open(undefined)
  await vi.advanceTimersByTimeAsync(50)
  expect(most).toBe(2)
  expect(transport.settled).toHaveLength(300)
})

it('What is little waits for the end of an exchange', async () => {
  start(flow, { concurrency: 100 })
  transport.addTasks(...Array.from({ length: 30 }, () => 'a'))
  await vi.advanceTimersByTimeAsync(5)
  transport.addTasks(...Array.from({ length: 19 }, () => 'a'))
  core.wake()
  await vi.advanceTimersByTimeAsync(1_000)
  expect(batches()).toEqual([30])
  expect(transport.queue).toHaveLength(19)
  calls.open(undefined)
  // Somebody said that there are tasks: no pause before they are claimed.
  await vi.advanceTimersByTimeAsync(5)
  expect(batches()).toEqual([30, 19])
})

it('Two exchanges never settle tasks of the same run', async () => {
  start(flow, { concurrency: 100 })
  transport.addTasks(...Array.from({ length: 100 }, () => 'a'))
  const tasks = transport.queue.splice(0)
  transport.queue.push(...tasks.map((task, index) => ({ ...task, run_id: 'one', task_index: index })))
  await vi.advanceTimersByTimeAsync(1_000)
  expect(batches()).toEqual([50])
  calls.open(undefined)
  await vi.advanceTimersByTimeAsync(5)
  expect(batches()).toEqual([50, 50])
  expect(most).toBe(1)
})

it('Two exchanges claim for each slot once', async () => {
  const claims = gate()
  transport.before.claim = () => claims.promise
  start(flow, { concurrency: 180 })
  transport.addTasks(...Array.from({ length: 400 }, () => 'slow'))
  await vi.advanceTimersByTimeAsync(5)
  claims.open(undefined)
  await vi.advanceTimersByTimeAsync(5_000)
  expect(transport.claims.map(({ quantity }) => quantity)).toEqual([100, 80])
  expect(transport.queue).toHaveLength(220)
})

it('While a call that failed waits for its repetition, no other begins', async () => {
  transport.before.settle = () => {
    throw databaseError('ECONNRESET', 'read ECONNRESET')
  }
  start(flow, { concurrency: 100 })
  transport.addTasks(...Array.from({ length: 100 }, () => 'a'))
  await vi.advanceTimersByTimeAsync(60_000)
  expect(transport.batches.length).toBeLessThan(40)
})

it('An idle worker has one exchange at a time', async () => {
  start(flow, { concurrency: 100 })
  await vi.advanceTimersByTimeAsync(10_000)
  expect(transport.requests.every(({ lane }) => lane === 0)).toBe(true)
})
