import process from 'node:process'
import { startWorker, stopOnSignals } from '../index.ts'
import { chaosFlows } from './chaos-flows.ts'

/** A worker in a process of its own: `chaos-worker.ts <its options, as JSON>`. */
const options = JSON.parse(process.argv[2]!)

const flows = chaosFlows((line) => process.stdout.write(`${line}\n`))
stopOnSignals(await startWorker({ log: false, ...options, flows }))
process.stdout.write('ready\n')
