import process from 'node:process'
import { startWorker, stopOnSignals } from '../index.ts'
import { blockingFlow } from './blocking-flows.ts'

/** A worker in a process of its own: `blocking-worker.ts <its options, as JSON>`. It says its warnings on stdout. */
const options = JSON.parse(process.argv[2]!)

const say = (line: string) => process.stdout.write(`${line}\n`)
const warn = (message: string, data?: object) => say(`${message} ${JSON.stringify(data)}`)
const log = { debug() {}, info() {}, warn, error: warn }

stopOnSignals(await startWorker({ ...options, flows: [blockingFlow('process')], log }))
say('ready')
