/**
 * One worker process for `bench/worker.ts`: `worker.ts <folder of the checkout> <flow> <options as JSON>`. It answers
 * messages with what it has used since the last one; with `times` it says when each handler begins.
 */
import { pathToFileURL } from 'node:url'

const [checkout, slug, options, times] = process.argv.slice(2) as [string, string, string, string?]
const sdk = (path: string) => import(pathToFileURL(`${checkout}/sdk/src/${path}/index.ts`).href)
const [{ Flow }, { startWorker }] = await Promise.all([sdk('flow'), sdk('worker')])

const now = () => performance.timeOrigin + performance.now()

function handler(step: string) {
  return ({ run }: { run: unknown }, { runId }: { runId: string }) => {
    if (times) process.send?.({ runId, step, at: now() })
    return run
  }
}

const flow = new Flow({ slug })
  .step('a', handler('a'))
  .step('b', ['a'], handler('b'))
  .step('c', ['b'], handler('c'))
const worker = await startWorker({ ...JSON.parse(options), flows: [flow] })

let used = process.cpuUsage()
process.on('message', async (message) => {
  if (message === 'stop') {
    await worker.stop()
    process.exit()
  }
  const { user, system } = process.cpuUsage(used)
  used = process.cpuUsage()
  process.send?.({ cpu: (user + system) / 1000, memory: process.memoryUsage.rss() })
})
process.send?.('ready')
