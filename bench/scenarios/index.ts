import { growth } from './growth.ts'
import { idle } from './idle.ts'
import { latency } from './latency.ts'
import { payloads } from './payloads.ts'
import { processes } from './processes.ts'
import type { Scenario } from './scenario.ts'
import { starts } from './starts.ts'
import { throughput } from './throughput.ts'

export const scenarios: Readonly<Record<string, Scenario>> = {
  throughput,
  starts,
  latency,
  processes,
  payloads,
  idle,
  growth,
}
