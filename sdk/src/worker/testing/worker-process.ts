import process from 'node:process'
import postgres from 'postgres'
import { Flow } from '../../flow/index.ts'
import { startWorker, stopOnSignals } from '../index.ts'

/**
 * A worker in a process of its own: `worker-process.ts <database url> <lease> <grace period> <close>`. The step `work` of the flow `crash` says
 * on stdout that it runs and goes on at SIGUSR2; the step `leak` of `leaky` ignores its signal, and
 * `batches` says how many tasks its batch has, and never ends. The process has what would
 * keep it alive: a pool with an open connection, and a timer. With `hang` as the last argument, closing the pool never ends,
 * with `fail` it throws.
 */
const [url, lease, gracePeriod, close] = process.argv.slice(2)

const say = (line: string) => process.stdout.write(`${line}\n`)

const crash = new Flow({ slug: 'crash' }).step('work', async (_, { attempt }) => {
  const released = new Promise<void>((resolve) => {
    process.once('SIGUSR2', () => resolve())
  })
  say('working')
  await released
  return { attempt, by: 'process' }
})

const leaky = new Flow({ slug: 'leaky' }).step('leak', () => {
  say('leaking')
  return new Promise<null>(() => {})
})

const batches = new Flow<number[]>({ slug: 'batches' }).map(
  { slug: 'work', batch: { size: 3, wait: '1m' } },
  ({ length }) => {
    say(`gathered ${length}`)
    return new Promise<number[]>(() => {})
  },
)

const pool = postgres(url!)
await pool`select 1`
setInterval(() => {}, 1_000)

const worker = await startWorker({
  connection: url!,
  flows: [crash, leaky, batches],
  resources: { pool },
  lease: Number(lease),
  gracePeriod: Number(gracePeriod),
})
process.on('SIGTERM', () => say('stopping'))
stopOnSignals(worker, {
  onStopped: async () => {
    if (close === 'hang') await new Promise(() => {})
    if (close === 'fail') throw new Error('cannot close')
    const [row] = await pool`select 'closing' as text`
    say(row!.text)
    await pool.end()
    say('closed')
  },
  closeTimeout: '200ms',
})
say('ready')
