import { describe, expect, it } from 'vitest'
import { explain, isTransient } from './faults.ts'

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
    '42P01',
  ])('SQLSTATE %s: the same call may succeed later', (code) => expect(isTransient(withCode(code))).toBe(true))

  it.each(['22P02', '22P05', '22008', '54000', '23514', '42883', 'P0001', 'PT400', '21000'])(
    'SQLSTATE %s: the same call is refused again',
    (code) => expect(isTransient(withCode(code))).toBe(false),
  )

  it.each(['ECONNRESET', 'ECONNREFUSED', 'EPIPE', 'ETIMEDOUT', 'CONNECTION_CLOSED', 'CONNECT_TIMEOUT'])(
    '%s is no SQLSTATE: the call was not answered',
    (code) => expect(isTransient(withCode(code))).toBe(true),
  )

  it.each([new Error('fetch failed'), 'text', undefined, null])('takes %s too', (thrown) =>
    expect(isTransient(thrown)).toBe(true),
  )
})

describe('explain', () => {
  it('puts what, facts and what to do into one line', () => {
    const error = Object.assign(new Error('what'), { code: 'PT400', detail: 'facts', hint: 'Do this.' })
    expect(explain(error)).toBe('what; facts. Do this.')
  })

  it('says the code where there is no message, as Node does not when all addresses refuse', () => {
    expect(explain(Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED')
  })

  it.each(['text', undefined, null])('takes %s too', (thrown) => expect(explain(thrown)).toBe(String(thrown)))
})
