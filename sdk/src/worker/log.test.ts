import { Writable } from 'node:stream'
import { pino } from 'pino'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { logFrom, withData } from './log.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

function watchConsole() {
  const methods = ['debug', 'info', 'log', 'warn', 'error'] as const
  return Object.fromEntries(methods.map((name) => [name, vi.spyOn(console, name).mockReturnValue()]))
}

describe('The log of a worker', () => {
  it('writes warnings and errors to the console by default, and nothing else', () => {
    const { warn, error, ...others } = watchConsole()
    const log = withData(logFrom(), { run_id: 'r' })
    for (const level of ['debug', 'info', 'warn', 'error'] as const) log[level](`a ${level}`, { n: 1 })
    expect(warn?.mock.calls).toEqual([['[pgflow] a warn', { run_id: 'r', n: 1 }]])
    expect(error?.mock.calls).toEqual([['[pgflow] a error', { run_id: 'r', n: 1 }]])
    for (const method of Object.values(others)) expect(method).not.toHaveBeenCalled()
  })

  it('is silent when it is false', () => {
    const methods = watchConsole()
    logFrom(false).error('an error')
    for (const method of Object.values(methods)) expect(method).not.toHaveBeenCalled()
  })

  it('may be a logger of pino, which keeps data, errors and their causes', () => {
    const lines: string[] = []
    const stream = new Writable({
      write(chunk, _, done) {
        lines.push(String(chunk))
        done()
      },
    })
    const logger = pino({ base: null, timestamp: false }, stream)
    const log = withData(logFrom(logger), { run_id: 'r' })
    log.info('started', { n: 1 })
    log.warn('A step failed', { error: new Error('fetch failed', { cause: new Error('refused') }) })
    log.debug('below the level')
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      { level: 30, run_id: 'r', n: 1, msg: 'started' },
      {
        level: 40,
        run_id: 'r',
        err: { type: 'Error', message: 'fetch failed: refused', stack: expect.stringContaining('refused') },
        msg: 'A step failed',
      },
    ])
    logFrom(logger.child({ part: 'worker' })).info('from a child')
    expect(JSON.parse(lines[2]!)).toMatchObject({ part: 'worker', msg: 'from a child' })
  })

  it('may be like one of bunyan', () => {
    const error = vi.fn()
    const logger = { fields: {}, streams: [], child() {}, debug() {}, info() {}, warn() {}, error }
    logFrom(logger).error('lost', { error: 'why' })
    expect(error).toHaveBeenCalledWith({ err: 'why' }, 'lost')
  })

  it('may throw, reject, or get what cannot be read', async () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    const entries: unknown[][] = []
    const failing = {
      debug: () => Promise.reject(new Error('disk full')),
      info: () => {
        throw new Error('disk full')
      },
      warn: (...entry: unknown[]) => entries.push(entry),
      error() {},
    }
    const log = withData(logFrom(failing), { run_id: 'r' })
    log.debug('rejects')
    log.info('throws')
    log.warn('a proxy', proxy)
    log.warn('an error', new Error('x'))
    expect(entries).toEqual([
      ['a proxy', { run_id: 'r', data: 'cannot be read' }],
      ['an error', { run_id: 'r', error: new Error('x') }],
    ])
  })
})
