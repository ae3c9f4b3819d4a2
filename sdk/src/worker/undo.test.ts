import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { Flow } from '../flow/index.ts'
import { startWorker } from './index.ts'
import { startTestDatabase, type TestDatabase, until } from './testing/database.ts'

let db: TestDatabase

beforeAll(async () => {
  db = await startTestDatabase()
})
afterAll(() => db[Symbol.asyncDispose]())

/** A trip whose parts are booked one after the other; `done` is what has happened outside of the database. */
function bookings() {
  const done: string[] = []
  const failures = new Map<string, number>()
  const fails = (what: string) => {
    const left = failures.get(what) ?? 0
    failures.set(what, left - 1)
    if (left > 0) throw new Error(`no ${what}`)
  }
  const Trip = new Flow({ slug: 'trip', maxAttempts: 1, baseDelay: 0 })
    .input<{ city: string; seats: string[]; waits: boolean }>()
    .step({ slug: 'hotel' }, ({ run }) => ({ room: `room in ${run.city}` }), {
      undo: {
        maxAttempts: 3,
        handler: ({ run, output, error }, { attempt }) => {
          fails('answer')
          done.push(`${output.room} (${run.city}) cancelled, attempt ${attempt}: ${error}`)
        },
      },
    })
    .map(
      { slug: 'flights', dependsOn: ['hotel'], items: 'run.seats' },
      (seat) => ({ seat: `seat ${seat}` }),
      {
        undo: ({ run, item, index, output }) => {
          fails('undo')
          done.push(`${output.seat} (${item}, ${index}, ${run.city}) cancelled`)
        },
      },
    )
    .step('charge', ['flights'], async ({ run, flights }, { signal }) => {
      if (run.waits) await new Promise((resolve) => signal.addEventListener('abort', resolve))
      else fails('money')
      return flights.length
    })
  return { Trip, done, failures }
}

const undoRunOf = (run_id: string) =>
  until(() => db.sql<{ run_id: string }[]>`select run_id from pgflow.runs where undoes = ${run_id}`)

it('a run that fails is undone in reverse order; undos are attempted again, and retried', async () => {
  const { Trip, done, failures } = bookings()
  const worker = await startWorker({ connection: db.url, flows: [Trip], log: false })
  onTestFinished(() => worker.stop({ gracePeriod: 0 }))
  const error = 'step "charge" failed: no money'
  failures.set('money', 1).set('answer', 1).set('undo', Number.POSITIVE_INFINITY)

  const run_id = await db.startRun('trip', { city: 'Rome', seats: ['1A', '1B'], waits: false })
  expect(await db.runEnded(run_id)).toMatchObject({ status: 'failed', error })
  const undo = await undoRunOf(run_id)
  expect(await db.runEnded(undo.run_id)).toMatchObject({
    status: 'failed',
    error: expect.stringContaining('no undo'),
  })
  expect(done).toEqual([])

  failures.delete('undo')
  await db.sql`select pgflow.retry_run(${undo.run_id})`
  await until(() => db.sql`select from pgflow.runs where run_id = ${undo.run_id} and status = 'completed'`)
  expect(done.slice(0, 2).sort()).toEqual([
    'seat 1A (1A, 0, Rome) cancelled',
    'seat 1B (1B, 1, Rome) cancelled',
  ])
  expect(done.slice(2)).toEqual([`room in Rome (Rome) cancelled, attempt 2: ${error}`])
  await expect(db.sql`select pgflow.retry_run(${run_id})`).rejects.toThrow(`run ${undo.run_id} undoes it`)

  // What is cancelled in the middle: the charge runs, and comes to nothing.
  done.length = 0
  const [other] = await db.startRuns('trip', [{ city: 'Oslo', seats: ['2A'], waits: true }])
  await until(
    () => db.sql`
    select from pgflow.step_tasks where run_id = ${other!} and step_slug = 'charge' and status = 'started'`,
  )
  await db.sql`select pgflow.cancel_run(${other!}, 'rain', undo => true)`
  const second = await undoRunOf(other!)
  expect(await db.runEnded(second.run_id)).toMatchObject({ status: 'completed' })
  expect(done).toEqual(['seat 2A (2A, 0, Oslo) cancelled', 'room in Oslo (Oslo) cancelled, attempt 1: rain'])
})
