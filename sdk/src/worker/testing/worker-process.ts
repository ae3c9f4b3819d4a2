import process from 'node:process'
import { Flow } from '../../flow/index.ts'
import { startWorker, stopOnSignals } from '../index.ts'

/**
 * A worker in a process of its own: `worker-process.ts <database url> <lease> <grace period>`. The step `work` of the flow `crash` says
 * on stdout that it runs and goes on at SIGUSR2.
 */
const [url, lease, gracePeriod] = process.argv.slice(2)

const say = (line: string) => process.stdout.write(`${line}\n`)

const crash = new Flow({ slug: 'crash' }).step('work', async (_, { attempt }) => {
  const released = new Promise<void>((resolve) => {
    process.once('SIGUSR2', () => resolve())
  })
  say('working')
  await released
  return { attempt, by: 'process' }
})

const worker = await startWorker({
  connection: url!,
  flows: [crash],
  lease: Number(lease),
  gracePeriod: Number(gracePeriod),
})
process.on('SIGTERM', () => say('stopping'))
stopOnSignals(worker)
say('ready')
