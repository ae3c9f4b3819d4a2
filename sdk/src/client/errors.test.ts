import { describe, expect, it } from 'vitest'
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
    const error = errorFrom(cause, 400)
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

  it('says what to do about a project that is not set up', () => {
    expect(errorFrom({ code: 'PGRST106', message: 'what', hint: null }, 406).hint).toContain('pgflow_public')
    expect(errorFrom({ code: 'PGRST202', message: 'what', hint: 'Perhaps …' }, 404).hint).toContain(
      'migrations',
    )
  })

  it('says what to do about an id that is none, and about a wrong key', () => {
    const noId = errorFrom({ code: '22P02', message: 'invalid input syntax for type uuid: "7"' }, 400)
    expect(noId).toBeInstanceOf(InvalidInputError)
    expect(noId.hint).toContain('UUID')
    const wrongKey = errorFrom({ message: 'Invalid API key' }, 401)
    expect(wrongKey).toMatchObject({ code: 'unauthorized', hint: 'Check the key of the project.' })
  })

  it('has a code where nobody has answered', () => {
    expect(errorFrom({ code: '', message: 'fetch failed' }, 0)).toMatchObject({
      code: 'unreachable',
      hint: expect.stringContaining('URL'),
      status: undefined,
    })
  })
})

describe('isRefusal', () => {
  it.each([400, 401, 403, 404, 406, 409])('is true for %i', (status) => {
    expect(isRefusal(errorFrom({ code: 'X', message: '' }, status))).toBe(true)
  })
  it.each([0, 408, 425, 429, 500, 502, 503])('is false for %i', (status) => {
    expect(isRefusal(errorFrom({ code: 'X', message: '' }, status))).toBe(false)
  })
  it('is false while the token of the user was missing', () => {
    expect(isRefusal(errorFrom({ code: 'PT404', message: '' }, 404, false))).toBe(false)
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
