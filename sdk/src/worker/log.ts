import type { Log } from '../flow/context.ts'

type Entry = (message: string, data?: object) => void

/** A log whose every entry has this data. */
export function withData(log: Log, data: object): Log {
  return logOf((level) => (message, more) => log[level](message, { ...data, ...more }))
}

/** A log that may fail without harm: nothing that the worker does depends on it. */
export function neverThrowing(log: Log): Log {
  return logOf((level) => (message, data) => {
    try {
      log[level](message, data)
    } catch {
      // There is nowhere to say it.
    }
  })
}

function logOf(entry: (level: keyof Log) => Entry): Log {
  return { debug: entry('debug'), info: entry('info'), warn: entry('warn'), error: entry('error') }
}
