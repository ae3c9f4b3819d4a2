import process from 'node:process'
import { startWorker } from '../index.ts'
import { onceFlows } from './once-flows.ts'

/** A worker in a process of its own: `once-worker.ts <its options, as JSON>`. */
const options = JSON.parse(process.argv[2]!)

const flows = onceFlows('first', (line) => process.stdout.write(`${line}\n`))
await startWorker({ log: false, ...options, flows })
process.stdout.write('ready\n')
