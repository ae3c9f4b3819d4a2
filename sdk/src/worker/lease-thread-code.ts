/**
 * What the thread of `LeaseThread` runs, as CommonJS. It is a text, and needs no file of its own, so that it works from
 * the package, from TypeScript sources and from a bundle alike.
 *
 * It extends the leases only when the main thread has not done so for half a lease, and for a limited time.
 */
export const leaseThreadCode = `
'use strict'
const { parentPort, workerData } = require('node:worker_threads')
const { lease, workerId, database, project } = workerData

let tasks = []
let extendedAt = 0
let seenAt = 0
let longest = 0
let isExtending = false
let hasFailed = false

parentPort.on('message', (message) => {
  const isAddition = message.held === undefined
  tasks = isAddition ? tasks.concat(JSON.parse(message.added)) : JSON.parse(message.held)
  longest = isAddition ? Math.max(longest, message.longest) : message.longest
  extendedAt = message.extendedAt
  seenAt = message.seenAt
})

setInterval(async () => {
  if (isExtending || tasks.length === 0 || now() - extendedAt < lease * 500) return
  if (now() - seenAt > (longest + lease) * 1000) return
  isExtending = true
  const before = tasks
  try {
    const answer = await heartbeat(before)
    hasFailed = false
    if (tasks !== before) return
    extendedAt = now()
    tasks = answer.filter(({ active }) => active).map(({ run_id, step_slug, task_index, attempt }) => {
      return { run_id, step_slug, task_index, attempt }
    })
  } catch (error) {
    if (!hasFailed) parentPort.postMessage(String(error?.message || error))
    hasFailed = true
  } finally {
    isExtending = false
  }
}, Math.min(1000, lease * 100))

function now() {
  return Number(process.hrtime.bigint() / 1000000n)
}

const heartbeat = database ? heartbeatOf(database) : heartbeatOver(project)

function heartbeatOf({ postgres, connection, settings, query }) {
  let sql
  return async (tasks) => {
    sql ??= require(postgres)(connection, { ...settings, onnotice: () => {}, max: 1, idle_timeout: 10 })
    const rows = await sql.unsafe(query, [workerId, JSON.stringify(tasks), String(lease)]).values()
    return rows.map(([text]) => JSON.parse(text))
  }
}

function heartbeatOver({ url, headers }) {
  return async (tasks) => {
    const body = JSON.stringify({ worker_id: workerId, tasks, lease })
    const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(lease * 500) })
    const text = await response.text()
    if (!response.ok) throw new Error('HTTP status ' + response.status + ': ' + text.slice(0, 200))
    return JSON.parse(text)
  }
}
`
