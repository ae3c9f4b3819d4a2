/** A process that works for one contender: `worker-process.ts <contender> <url>`. Messages: ready, go, working, stop. */
import { loadContender } from '../contenders/index.ts'

const [name, url] = process.argv.slice(2)
const contender = await loadContender(name ?? '')
if (!contender || !url || !process.send) throw new Error('This is started by the benchmarks.')

let work: ReturnType<typeof contender.work> | undefined
process.on('disconnect', () => process.exit(1))
process.on('message', async (message) => {
  if (message === 'go') {
    work = contender.work(url)
    await work
    process.send?.('working')
  } else {
    await (await work)?.stop()
    process.exit(0)
  }
})
process.send('ready')
