import type { Log } from '../flow/context.ts'

type Entry = (message: string, data?: object) => unknown

/** What a worker says without a `log` of the user's: warnings and errors, on the console. */
const consoleLog: Log = {
  debug() {},
  info() {},
  // biome-ignore lint/suspicious/noConsole: a worker whose steps fail must not be silent
  warn: (message, data) => console.warn(`[pgflow] ${message}`, ...(data ? [data] : [])),
  // biome-ignore lint/suspicious/noConsole: as above
  error: (message, data) => console.error(`[pgflow] ${message}`, ...(data ? [data] : [])),
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }

/**
 * The log that a worker and its handlers write to. It may fail without harm: nothing that the worker does depends on it.
 *
 * @param log the user's; `false` for none
 */
export function logFrom(log: Log | false = consoleLog): Log {
  if (log === false) return silent
  return safely(
    takesDataFirst(log) ? dataFirst(log) : (level) => (message, data) => log[level](message, data),
  )
}

/** A log whose every entry has this data. */
export function withData(log: Log, data: object): Log {
  return safely((level) => (message, more) => log[level](message, { ...data, ...asData(more) }))
}

/** Whether it is a logger of pino (which has bindings) or of bunyan (which has fields and streams). */
function takesDataFirst(log: object): boolean {
  const { child, bindings, fields, streams } = log as Readonly<Record<string, unknown>>
  const isPino = typeof bindings === 'function'
  const isBunyan = typeof fields === 'object' && Array.isArray(streams)
  return typeof child === 'function' && (isPino || isBunyan)
}

/** Both know an error by the name `err`, under which they write its message, stack and causes. */
function dataFirst(log: Log): (level: keyof Log) => Entry {
  const logger = log as unknown as Record<keyof Log, (data: object, message: string) => void>
  return (level) => (message, data) => {
    const { error, ...others } = (data ?? {}) as { error?: unknown }
    logger[level]({ ...others, ...(error !== undefined && { err: error }) }, message)
  }
}

/** What is enumerable of it. An error has nothing enumerable, and some values cannot be read. */
function asData(data: object | undefined): object {
  try {
    return data instanceof Error ? { error: data } : { ...data }
  } catch {
    return { data: 'cannot be read' }
  }
}

function safely(entry: (level: keyof Log) => Entry): Log {
  const of = (level: keyof Log) => {
    const write = entry(level)
    return (message: string, data?: object) => {
      try {
        // A log that is asynchronous rejects.
        Promise.resolve(write(message, data)).catch(() => {})
      } catch {
        // There is nowhere to say it.
      }
    }
  }
  return { debug: of('debug'), info: of('info'), warn: of('warn'), error: of('error') }
}
