import { UnsecuredJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { createKeys, roleOfKey, signToken, TokenError, verifyToken } from './tokens.ts'

const secret = 'a secret of at least thirty-two characters'
const seconds = () => Math.floor(Date.now() / 1000)

async function refusal(token: string, options = {}): Promise<TokenError> {
  const error = await verifyToken(secret, token, options).catch((error: unknown) => error)
  expect(error).toBeInstanceOf(TokenError)
  return error as TokenError
}

describe('a token', () => {
  test('is verified and keeps its claims', async () => {
    const claims = await verifyToken(
      secret,
      await signToken(secret, { sub: 'me', app_metadata: { team: 1 } }),
    )
    expect(claims).toMatchObject({
      sub: 'me',
      role: 'authenticated',
      aud: 'authenticated',
      app_metadata: { team: 1 },
    })
    expect(claims.exp! - claims.iat!).toBe(3600)
  })

  test('that is expired says for how long', async () => {
    const error = await refusal(await signToken(secret, { exp: seconds() - 100 }))
    expect(error.reason).toBe('expired')
    expect([100, 101]).toContain(error.expiredSeconds)
  })

  test('is accepted within the leeway', async () => {
    const token = await signToken(secret, { exp: seconds() - 10 })
    await expect(verifyToken(secret, token, { leeway: 30 })).resolves.toMatchObject({ role: 'authenticated' })
  })

  test.each(['', 'nonsense', 'a.b.c', 'sb_publishable_abc'])('%j is malformed', async (token) => {
    expect((await refusal(token)).reason).toBe('malformed')
  })

  test('is refused for each other reason', async () => {
    const unsigned = new UnsecuredJWT({ role: 'service_role', exp: seconds() + 60 }).encode()
    expect((await refusal(unsigned)).reason).toBe('algorithm')
    expect((await refusal(await signToken('another secret'))).reason).toBe('signature')
    expect((await refusal(await signToken(secret, { nbf: seconds() + 60 }))).reason).toBe('not-yet-valid')
    expect((await refusal(await signToken(secret, { role: undefined }))).reason).toBe('incomplete')
    expect((await refusal(await signToken(secret, { exp: undefined }))).reason).toBe('incomplete')
    expect((await refusal(await signToken(secret, { exp: 'soon' }))).reason).toBe('claims')
  })

  test('needs neither role nor exp where they are not required', async () => {
    const token = await signToken(secret, { role: undefined, exp: undefined })
    const claims = await verifyToken(secret, token, { required: [] })
    expect(claims).not.toHaveProperty('role')
  })
})

describe('keys', () => {
  test('are the same for the same secret, and others for another', async () => {
    expect(await createKeys(secret)).toEqual(await createKeys(secret))
    const other = await createKeys('another secret')
    for (const key of Object.values(await createKeys(secret))) expect(Object.values(other)).not.toContain(key)
  })

  test('map to their roles', async () => {
    const keys = await createKeys(secret)
    expect(roleOfKey(keys, keys.publishable)).toBe('anon')
    expect(roleOfKey(keys, keys.secret)).toBe('service_role')
    expect(roleOfKey(keys, 'sb_secret_guess')).toBeUndefined()
    expect(await verifyToken(secret, keys.anonKey)).toMatchObject({ iss: 'pgflow-local', role: 'anon' })
    expect(await verifyToken(secret, keys.serviceRoleKey)).toMatchObject({ role: 'service_role' })
  })
})
