import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toJson } from '../flow/json.ts'
import { checkJson, isPlainJson } from './json.ts'

/** What somebody may take for JSON: some of it is. */
const almostJson = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(
      null,
      true,
      false,
      '',
      0,
      -0,
      undefined,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      1n,
      () => 1,
    ),
    fc.constantFrom(
      '\0',
      '\ud800',
      '\\u0000',
      '\\',
      Symbol.iterator,
      /x/,
      new Date(0),
      new Map(),
      new Error('x'),
    ),
    fc.constantFrom(Object(1), Object(Number.NaN), new Uint8Array(2), new Date(Number.NaN), {
      toJSON: () => 1n,
    }),
    fc.double(),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value')),
    fc.dictionary(fc.string(), tie('value')),
  ),
})).value

function refusal(value: unknown): Error | undefined {
  try {
    toJson(value)
    return undefined
  } catch (error) {
    return error as Error
  }
}

describe('isPlainJson', () => {
  it('is never surer than the thorough check', () => {
    fc.assert(
      fc.property(almostJson, (value) => {
        if (isPlainJson(value)) expect(refusal(value)).toBeUndefined()
      }),
      { numRuns: 2000 },
    )
  })

  it('is sure of any JSON', () => {
    const json = fc.jsonValue({ noUnicodeString: false })
    const surelyWritten = json.filter((value) => !JSON.stringify(value).includes('\\u'))
    fc.assert(
      fc.property(surelyWritten, (value) => {
        expect(isPlainJson(value)).toBe(true)
      }),
    )
    expect(isPlainJson({ by: undefined })).toBe(true)
    const shared = { a: 1 }
    expect(isPlainJson([shared, shared, { shared }])).toBe(true)
  })

  it('is not sure of what lies too deep, nor of cycles', () => {
    const nested = (levels: number) => JSON.parse('['.repeat(levels) + ']'.repeat(levels))
    expect([isPlainJson(nested(1000)), refusal(nested(1000))]).toEqual([true, undefined])
    expect([isPlainJson(nested(1001)), refusal(nested(1001))]).toEqual([false, expect.any(Error)])
    const cycle: unknown[] = []
    cycle.push(cycle)
    expect(isPlainJson(cycle)).toBe(false)
  })
})

describe('checkJson', () => {
  class Point {
    x = 1
  }

  it('gives back what is JSON, at the first or the second sight', async () => {
    for (const value of [{ a: [1] }, { at: new Date(0) }, new Point(), 'written \\u0000', Object(7)]) {
      expect(await checkJson(value, 'input')).toBe(value)
    }
  })

  it('refuses the rest, and says why', async () => {
    const refused = checkJson({ n: [1n] }, 'metadata')
    await expect(refused).rejects.toMatchObject({
      name: 'InvalidInputError',
      code: 'PT400',
      message: expect.stringMatching(/^The metadata is not JSON: \$\.n\[0\] is a bigint/),
    })
  })
})
