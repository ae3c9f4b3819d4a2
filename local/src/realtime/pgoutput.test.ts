import { describe, expect, it } from 'vitest'
import { decodeStreamMessage, encodeStandbyStatus, PgoutputDecoder } from './pgoutput.ts'

/** One insert into realtime.messages, as Postgres 17 sent it. */
const RECORDED = {
  begin: '7700000000015898800000000001589880000303df637886f8420000000001589a70000303df637885b9000002e6',
  relation:
    '7700000000000000000000000000000000000303df6378873352000040637265616c74696d65006d657373616765735f323032365f31315f32320064000900746f7069630000000019ffffffff00657874656e73696f6e0000000019ffffffff007061796c6f61640000000edaffffffff006576656e740000000019ffffffff00707269766174650000000010ffffffff00757064617465645f6174000000045affffffff01696e7365727465645f6174000000045affffffff0169640000000b86ffffffff0062696e6172795f7061796c6f61640000000011ffffffff',
  insert:
    '7700000000015898800000000001589880000303df6378875049000040634e00097400000006726f6f6d3a31740000000962726f61646361737474000000177b226e223a20393030373139393235343734303939337d7400000002c3a97400000001747400000013323032362d31312d32322031323a30303a30307400000015323032362d31312d32322031323a30303a30302e35740000002430303030303030302d303030302d343030302d383030302d3030303030303030303030316e',
  commit:
    '770000000001589aa00000000001589aa0000303df6378875443000000000001589a700000000001589aa0000303df637885b9',
  keepalive: '6b0000000001589aa0000303df6378875e01',
}

const stream = (hex: string) => decodeStreamMessage(Buffer.from(hex, 'hex'))

function content(hex: string): Buffer {
  const message = stream(hex)
  if (message?.type !== 'data') throw new Error('not a data message')
  return message.data
}

describe('the replication stream', () => {
  it('says where a message ends and what is in it', () => {
    const message = stream(RECORDED.commit)
    expect(message).toMatchObject({ type: 'data', end: 0x1589aa0n })
    expect(content(RECORDED.commit).toString('latin1', 0, 1)).toBe('C')
  })

  it('tells a keepalive that wants an answer from one that does not', () => {
    expect(stream(RECORDED.keepalive)).toEqual({ type: 'keepalive', end: 0x1589aa0n, replyRequested: true })
    const quiet = stream(RECORDED.keepalive.replace(/01$/, '00'))
    expect(quiet).toMatchObject({ replyRequested: false })
  })

  it('ignores kinds that it does not know', () => {
    expect(stream('7a00')).toBeUndefined()
    expect(stream('')).toBeUndefined()
  })

  it('reports a position with the time since 2000', () => {
    const status = encodeStandbyStatus(0x1589aa0n, Date.UTC(2000, 0, 1, 0, 0, 1))
    const position = '0000000001589aa0'
    expect(status.toString('hex')).toBe(`72${position.repeat(3)}00000000000f424000`)
  })
})

describe('pgoutput', () => {
  it('reads an inserted row by the columns of its relation', () => {
    const decoder = new PgoutputDecoder()
    expect(decoder.decode(content(RECORDED.begin))).toBeUndefined()
    expect(decoder.decode(content(RECORDED.relation))).toBeUndefined()
    const insert = decoder.decode(content(RECORDED.insert))
    expect(decoder.decode(content(RECORDED.commit))).toBeUndefined()
    expect(insert).toMatchObject({ schema: 'realtime', table: 'messages_2026_11_22' })
    const row = [...(insert?.row ?? [])].map(([column, value]) => [column, value?.toString() ?? null])
    expect(Object.fromEntries(row)).toEqual({
      topic: 'room:1',
      extension: 'broadcast',
      payload: '{"n": 9007199254740993}',
      event: 'é',
      private: 't',
      updated_at: '2026-11-22 12:00:00',
      inserted_at: '2026-11-22 12:00:00.5',
      id: '00000000-0000-4000-8000-000000000001',
      binary_payload: null,
    })
  })

  it('refuses a row of a relation that it was not told about', () => {
    expect(() => new PgoutputDecoder().decode(content(RECORDED.insert))).toThrow('unknown relation 16483')
  })

  it('refuses a message that is cut off', () => {
    const decoder = new PgoutputDecoder()
    expect(() => decoder.decode(content(RECORDED.relation).subarray(0, 12))).toThrow(RangeError)
    decoder.decode(content(RECORDED.relation))
    expect(() => decoder.decode(content(RECORDED.insert).subarray(0, 40))).toThrow(RangeError)
  })
})
