import type { Contender } from '../contenders/contender.ts'
import type { Report } from '../lib/report.ts'

export interface Options {
  /** After one to warm up. */
  rounds?: number
  /** How many runs a round starts. */
  runs?: number
  /** How many rows a growth scenario fills in. */
  size?: number
}

export interface Scenario {
  /** A line for the list. */
  about: string
  /** Only when it is named, since it takes long. @default false */
  isSlow?: boolean
  /** The contenders that it is for. @default all */
  fits?(contender: Contender): boolean
  measure(contenders: readonly Contender[], options: Options): Promise<Report[]>
}
