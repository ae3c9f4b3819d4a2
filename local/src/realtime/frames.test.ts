import { describe, expect, it } from 'vitest'
import { type Broadcast, decodeFrame, encodeBroadcast, encodeFrame, type Version } from './frames.ts'

const decode = (version: Version, text: string) => decodeFrame(version, Buffer.from(text), false)
const decodeHex = (version: Version, hex: string) => decodeFrame(version, Buffer.from(hex, 'hex'), true)

describe('frames of clients', () => {
  it('reads the array form', () => {
    expect(decode(2, '["6","7","realtime:a","phx_join",{"config":{}}]')).toEqual({
      joinRef: '6',
      ref: '7',
      topic: 'realtime:a',
      event: 'phx_join',
      payload: { config: {} },
    })
  })

  it('reads the object form, where the join ref may be missing', () => {
    expect(decode(1, '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}')).toEqual({
      joinRef: null,
      ref: '1',
      topic: 'phoenix',
      event: 'heartbeat',
      payload: {},
    })
  })

  it('reads a binary broadcast of a client', () => {
    const hex = `0302010103020${'1'}${Buffer.from('12' + '3' + 't' + 'evt' + '{}').toString('hex')}7b7d`
    expect(decodeHex(2, hex)).toMatchObject({ joinRef: '12', ref: '3', topic: 't', event: 'broadcast' })
  })

  it.each([
    ['nothing', 2, ''],
    ['no JSON', 2, '{not json'],
    ['a scalar', 2, '5'],
    ['null', 1, 'null'],
    ['a short array', 2, '["1","1","realtime:x"]'],
    ['an object for the array form', 2, '{"topic":"t","event":"e","payload":{},"ref":"1"}'],
    ['an array for the object form', 1, '["1","1","t","e",{}]'],
    ['a topic that is no text', 2, '["1","1",{},"e",{}]'],
    ['an event that is no text', 2, '["1","1","t",null,{}]'],
    ['a reference that is an object', 2, '[{},"1","t","e",{}]'],
  ] as const)('refuses %s', (_, version, text) => {
    expect(decode(version, text)).toBeUndefined()
  })

  it.each([
    ['an unknown kind', 2, '090909'],
    ['a header alone', 2, '03ffffffffff01'],
    ['a header cut off', 2, '0301'],
    ['nothing', 2, ''],
    ['a binary frame in the object form', 1, '030000010000017464'],
  ] as const)('refuses %s', (_, version, hex) => {
    expect(decodeHex(version, hex)).toBeUndefined()
  })
})

describe('frames of the server', () => {
  const frame = { joinRef: '1', ref: null, topic: 'realtime:a', event: 'system', payload: { b: 1, a: 2 } }

  it('keeps the key order of the platform', () => {
    expect(encodeFrame(1, frame)).toBe(
      '{"ref":null,"event":"system","topic":"realtime:a","payload":{"b":1,"a":2}}',
    )
    expect(encodeFrame(2, frame)).toBe('["1",null,"realtime:a","system",{"b":1,"a":2}]')
  })
})

describe('broadcasts', () => {
  const broadcast: Broadcast = {
    id: '2e182cc7-446d-4bc3-9f26-9ae30b739f3b',
    topic: 'room:1',
    event: 'greet',
    encoding: 'json',
    payload: Buffer.from('{"id": "2e182cc7-446d-4bc3-9f26-9ae30b739f3b", "hello": "world"}'),
  }

  it('has the bytes that the platform was recorded to send', () => {
    const encoded = encodeBroadcast(2, broadcast)
    expect(Buffer.from(encoded ?? '').toString('hex')).toBe(
      '040f052d017265616c74696d653a726f6f6d3a3167726565747b226964223a2232653138326363372d343436642d346263332d396632362d396165333062373339663362227d7b226964223a202232653138326363372d343436642d346263332d396632362d396165333062373339663362222c202268656c6c6f223a2022776f726c64227d',
    )
  })

  it('splices the payload into the object form as it is', () => {
    const payload = Buffer.from('{"b": 9007199254740993, "a": 1.10}')
    expect(encodeBroadcast(1, { ...broadcast, event: 'a"b', payload })).toBe(
      '{"ref":null,"event":"broadcast","topic":"realtime:room:1","payload":{"event":"a\\"b","meta":{"id":"2e182cc7-446d-4bc3-9f26-9ae30b739f3b"},"payload":{"b": 9007199254740993, "a": 1.10},"type":"broadcast"}}',
    )
  })

  it('sends bytes in the binary form only', () => {
    const binary: Broadcast = {
      ...broadcast,
      event: 'bin',
      encoding: 'binary',
      payload: Buffer.from('00ff10', 'hex'),
    }
    const encoded = encodeBroadcast(2, binary)
    expect(Buffer.from(encoded ?? '').toString('hex')).toMatch(/^040f032d00.*00ff10$/)
    expect(encodeBroadcast(1, binary)).toBeUndefined()
  })

  it('counts lengths in bytes', () => {
    const encoded = encodeBroadcast(2, { ...broadcast, event: 'é😀' })
    expect(
      Buffer.from(encoded ?? '')
        .subarray(0, 5)
        .toString('hex'),
    ).toBe('040f062d01')
  })

  it('has no room for more than 255 bytes of topic or event', () => {
    expect(() => encodeBroadcast(2, { ...broadcast, event: 'e'.repeat(256) })).toThrow(RangeError)
    expect(() => encodeBroadcast(2, { ...broadcast, topic: 't'.repeat(247) })).toThrow(RangeError)
    expect(() => encodeBroadcast(2, { ...broadcast, topic: 't'.repeat(246) })).not.toThrow()
    expect(encodeBroadcast(1, { ...broadcast, event: 'e'.repeat(300) })).toContain('e'.repeat(300))
  })
})
