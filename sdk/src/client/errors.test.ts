import { describe, expect, it, vi } from 'vitest'
import { PgflowError, TimeoutError } from '../shared/errors.ts'
import {
  ConflictError,
  errorFrom,
  ForbiddenError,
  InvalidInputError,
  isRefusal,
  NotFoundError,
  RunCancelledError,
  RunFailedError,
} from './errors.ts'

describe('errorFrom', () => {
  it.each([
    ['PT400', InvalidInputError],
    ['PT403', ForbiddenError],
    ['PT404', NotFoundError],
    ['PT409', ConflictError],
    ['42501', ForbiddenError],
    ['PGRST301', PgflowError],
  ])('knows %s', (code, Class) => {
    const cause = { code, message: 'what', details: 'facts', hint: 'do this' }
    const error = errorFrom(cause, { status: 400 })
    expect(error.constructor).toBe(Class)
    expect(error).toMatchObject({
      name: Class.name,
      code,
      message: 'what',
      details: 'facts',
      hint: 'do this',
      cause,
    })
  })

  it('says what only the caller knows how to repair', () => {
    const cause = { code: 'PGRST202', message: 'what', hint: 'Perhaps …' }
    expect(errorFrom(cause, { status: 404, hint: 'Apply the migrations' }).hint).toBe('Apply the migrations')
    expect(errorFrom(cause, { status: 404 }).hint).toBe('Perhaps …')
  })

  it('has a code where nobody has answered', () => {
    expect(errorFrom({ code: '', message: 'fetch failed' }, { status: 0 })).toMatchObject({
      code: 'unreachable',
      hint: expect.stringContaining('URL'),
      status: undefined,
    })
  })

  it('says that the browser is offline', () => {
    vi.stubGlobal('navigator', { onLine: false })
    const { hint } = errorFrom({ code: '', message: 'fetch failed' }, { status: 0 })
    vi.unstubAllGlobals()
    expect(hint).toBe('The browser is offline.')
  })
})

describe('isRefusal', () => {
  it.each([400, 401, 403, 404, 406, 409])('is true for %i', (status) => {
    expect(isRefusal(errorFrom({ code: 'X', message: '' }, { status }))).toBe(true)
  })
  it.each([0, 408, 425, 429, 500, 502, 503])('is false for %i', (status) => {
    expect(isRefusal(errorFrom({ code: 'X', message: '' }, { status }))).toBe(false)
  })
  it('is false for anything else', () => {
    expect([new TypeError('fetch failed'), undefined, new TimeoutError('late')].some(isRefusal)).toBe(false)
  })
})

describe('the errors', () => {
  it('say what happened', () => {
    expect(new RunFailedError('id', 'read', 'no such file')).toMatchObject({
      name: 'RunFailedError',
      code: 'run_failed',
      message: 'no such file',
      runId: 'id',
      stepSlug: 'read',
    })
    expect(new RunCancelledError('id', null)).toMatchObject({ code: 'run_cancelled', runId: 'id' })
  })
})
