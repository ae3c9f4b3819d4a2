import { describe, expect, it } from 'vitest'
import { codeOf, explain, isMissingQueue, isSchemaFault, isTransient } from './faults.ts'

const withCode = (code: string, message = 'message') => Object.assign(new Error(message), { code })

describe('isTransient', () => {
  it.each([
    '08006',
    '40001',
    '40P01',
    '53300',
    '55P03',
    '57014',
    '57P01',
    '57P03',
    '25006',
    '28P01',
    'XX000',
  ])('SQLSTATE %s: the same call may succeed later', (code) => expect(isTransient(withCode(code))).toBe(true))

  it.each([
    '22P02',
    '22P05',
    '22008',
    '54000',
    '23514',
    '42883',
    '42P01',
    '3F000',
    '0A000',
    'P0001',
    'PT400',
    '21000',
    'PGRST202',
    'PGRST106',
  ])('SQLSTATE %s: the same call is refused again', (code) => expect(isTransient(withCode(code))).toBe(false))

  it.each(['ECONNRESET', 'ECONNREFUSED', 'EPIPE', 'ETIMEDOUT', 'CONNECTION_CLOSED', 'CONNECT_TIMEOUT'])(
    '%s is no SQLSTATE: the call was not answered',
    (code) => expect(isTransient(withCode(code))).toBe(true),
  )

  it.each([new Error('fetch failed'), 'text', undefined, null])('takes %s too', (thrown) =>
    expect(isTransient(thrown)).toBe(true),
  )
})

it.each([
  ['0A000', 'cached plan must not change result type'],
  ['26000', 'prepared statement "a" does not exist'],
  ['42P05', 'prepared statement "a" already exists'],
])('SQLSTATE %s is a plan that another connection does not have: %s', (code, message) => {
  expect(isTransient(withCode(code, message))).toBe(true)
  expect(isSchemaFault(withCode(code, message))).toBe(false)
})

it('a queue that is missing is created again by the next call', () => {
  const error = withCode('42P01', 'relation "pgmq.q_greet" does not exist')
  expect(isTransient(error)).toBe(true)
  expect(isSchemaFault(error)).toBe(false)
  expect(isMissingQueue(error)).toBe(true)
  expect(isMissingQueue(withCode('42P01', 'relation "pgflow.runs" does not exist'))).toBe(false)
})

describe('isSchemaFault', () => {
  it.each(['42883', '42P01', '3F000', '0A000', 'PGRST202', 'PGRST106'])('%s', (code) => {
    expect(isSchemaFault(withCode(code))).toBe(true)
  })

  it.each(['22P02', '40001', 'PGRST301', 'ECONNREFUSED', 'EPIPE'])('not %s', (code) => {
    expect(isSchemaFault(withCode(code))).toBe(false)
  })
})

describe('explain', () => {
  it('puts what, facts and what to do into one line', () => {
    const error = Object.assign(new Error('what'), { code: 'PT400', detail: 'facts', hint: 'Do this.' })
    expect(explain(error)).toBe('what; facts. Do this.')
  })

  it('says the code where there is no message, as Node does not when all addresses refuse', () => {
    expect(explain(Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED')
  })

  it('says what caused it', () => {
    const cause = withCode('ECONNREFUSED', 'connect ECONNREFUSED 127.0.0.1:1')
    expect(explain(new TypeError('fetch failed', { cause }))).toBe(
      'fetch failed: connect ECONNREFUSED 127.0.0.1:1',
    )
    expect(codeOf(new TypeError('fetch failed', { cause }))).toBe('ECONNREFUSED')
  })

  it('takes what cannot be looked at', () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(isTransient(proxy)).toBe(true)
    expect(explain(proxy)).toBe('An object was thrown: it is not JSON')
  })

  it.each(['text', undefined, null])('takes %s too', (thrown) => expect(explain(thrown)).toBe(String(thrown)))
})
