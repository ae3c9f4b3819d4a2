import { projectFrom, serveWorker } from '@pgflow/sdk/worker'
import { flows } from './flows.ts'

const env = Deno.env.toObject()

Deno.serve(serveWorker({ flows, secret: env.PGFLOW_WORKER_SECRET, ...projectFrom(env), log: console }))
