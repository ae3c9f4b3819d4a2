import { describe, expect, it, vi } from 'vitest'
import { NonRetryableError, RetryAfterError } from '../flow/errors.ts'
import { PgflowError, TimeoutError } from './errors.ts'

/** The same classes as another copy of the package has them. */
async function anotherCopy() {
  vi.resetModules()
  const errors = await import('../flow/errors.ts')
  const base = await import('./errors.ts')
  expect(errors.NonRetryableError).not.toBe(NonRetryableError)
  return { ...errors, ...base }
}

describe('an error of the package', () => {
  it('has a code, what to do, and no more than what is known', () => {
    const error = new TimeoutError('late', { hint: 'Wait longer.' })
    expect(error).toMatchObject({
      name: 'TimeoutError',
      code: 'timeout',
      message: 'late',
      hint: 'Wait longer.',
    })
    expect(Object.keys(error)).toEqual(['code', 'hint'])
    expect('cause' in error).toBe(false)
    expect(error.stack).toMatch(/^TimeoutError: late/)
    expect(Object.prototype.toString.call(error)).toBe('[object Error]')
  })

  it('keeps its cause', () => {
    const cause = new Error('refused')
    expect(new PgflowError('unreachable', 'no answer', { cause }).cause).toBe(cause)
  })
})

describe('instanceof', () => {
  it('recognises the errors of another copy of the package', async () => {
    const other = await anotherCopy()
    expect(new other.NonRetryableError('no')).toBeInstanceOf(NonRetryableError)
    expect(new other.NonRetryableError('no')).toBeInstanceOf(PgflowError)
    expect(new NonRetryableError('no')).toBeInstanceOf(other.NonRetryableError)
    expect(new other.NonRetryableError('no')).not.toBeInstanceOf(RetryAfterError)
    expect(new other.PgflowError('x', 'y')).not.toBeInstanceOf(TimeoutError)
  })

  it('recognises the subclasses that users make of either copy', async () => {
    const other = await anotherCopy()
    class PaymentRefused extends other.NonRetryableError {}
    const error = new PaymentRefused('no money')
    expect(error).toBeInstanceOf(NonRetryableError)
    expect(error).toBeInstanceOf(PaymentRefused)
    expect(new NonRetryableError('no')).not.toBeInstanceOf(PaymentRefused)
  })

  it('narrows types', () => {
    const error: unknown = new RetryAfterError('2m')
    expect(error instanceof RetryAfterError && error.seconds).toBe(120)
  })

  it.each([undefined, null, 'text', {}, new Error('x'), () => {}, Object.create(null)])(
    'is false for %s',
    (value) => {
      expect(value instanceof PgflowError).toBe(false)
    },
  )

  it('is false for what cannot be looked at', () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(proxy instanceof PgflowError).toBe(false)
  })
})
