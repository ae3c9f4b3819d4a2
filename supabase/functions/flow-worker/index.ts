import { projectFrom, serveWorker, webhooksFrom } from '@pgflow/sdk/worker'
import { flows } from './flows.ts'

const env = Deno.env.toObject()
const { PGFLOW_WORKER_SECRET: secret } = env

Deno.serve(serveWorker({ flows, secret, webhooks: webhooksFrom(env), ...projectFrom(env) }))
