import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

/**
 * What unmodified supabase-js must find here as it finds it on the platform, each with its tests: a file of this folder,
 * and a name in it. In `conversations`, recorded frames of the platform are compared.
 */
const CHECKLIST: [string, ...[file: string, name: string][]][] = [
  [
    'joins of public and private channels',
    ['channels', 'joins public and private channels'],
    ['conversations', 'private joins'],
  ],
  [
    'a denied join: its words, and further attempts',
    ['channels', 'is told why it may not join, tries again'],
    ['conversations', 'a denied join'],
  ],
  ['a policy that raises denies', ['channels', 'that raise deny']],
  [
    'an unknown role is denied',
    ['channels', 'are not escaped by the role'],
    ['conversations', 'tokens in joins'],
  ],
  [
    'expired, malformed and incomplete tokens: their words',
    ['conversations', 'tokens in joins'],
    ['channels', 'is refused with the words of the platform'],
  ],
  [
    'without a token in the join, the API key counts; so for sb_ keys',
    ['conversations', 'tokens in joins'],
    ['channels', 'takes every kind of key'],
  ],
  [
    'another token keeps the channel, a denied one ends it',
    ['channels', 'keeps its channel with another token'],
    ['channels', 'with the token of a user who may not read it'],
    ['conversations', 'access_token'],
  ],
  [
    'an expired token ends the channel for good',
    ['channels', 'loses its channel for good when the token expires'],
  ],
  [
    'realtime.send: payload.id and meta.id; an own id is kept',
    ['broadcasts', 'delivers realtime.send with the id of its row'],
    ['conversations', 'realtime.send and direct inserts'],
  ],
  [
    'rows of one statement come in their order',
    ['broadcasts', 'delivers the rows of one statement in their order'],
    ['conversations', 'rows of one statement'],
  ],
  ['what is rolled back does not come', ['broadcasts', 'delivers what is committed, when it is committed']],
  [
    'transactions come in the order of their commits',
    ['broadcasts', 'delivers what is committed, when it is committed'],
    ['conversations', 'the order of commits'],
  ],
  [
    'private and public topics of one name are apart',
    ['broadcasts', 'keeps topics apart, and private from public'],
    ['conversations', 'a private and a public topic'],
  ],
  ['events match without regard to case, and *', ['broadcasts', 'matches events without regard to case']],
  ['replay is refused in words', ['channels', 'is told that replay is not offered']],
  [
    'replication_ready, and its end in vain',
    ['conversations', 'replication_ready'],
    ['faults', 'closes a channel that waited for it in vain'],
  ],
  [
    'what is committed without replication is lost, and stays in its table',
    ['faults', 'loses what is committed while it is stopped'],
    ['conversations', 'a replication that is gone'],
  ],
  [
    'sockets that are closed, with any code',
    ['faults', 'close the sockets (%s), and clients come back'],
    ['faults', 'bring every client back'],
    ['conversations', 'a server that is killed'],
  ],
  [
    'a server that is down at the first subscribe',
    ['faults', 'a server that is down at first'],
    ['conversations', 'leave, duplicates'],
  ],
  [
    'heartbeats, and one that is not answered',
    ['conversations', 'heartbeats'],
    ['faults', 'heartbeats remain unanswered'],
  ],
  ['phx_error is followed by a join', ['faults', 'bring every client back']],
  ['mount, unmount, mount', ['channels', 'leaves and joins in one turn']],
  [
    'a channel that is removed and made again',
    ['channels', 'removes a channel and joins the same topic again'],
  ],
  ['a push to a topic that is not joined', ['conversations', 'leave, duplicates']],
  [
    'a missing partition: warnings, errors, MissingPartition',
    ['conversations', 'a missing partition'],
    ['faults', 'that are missing refuse private joins'],
  ],
  ['a payload that is too large is lost', ['broadcasts', 'loses what is larger than the limit']],
  ['presence and broadcasts of clients are refused', ['channels', 'is refused presence, and broadcasts']],
  ['numbers beyond 2^53 pass as text', ['conversations', 'realtime.send and direct inserts']],
  ['topics and events of any text', ['broadcasts', 'carries any text']],
  ['100 channels on a socket', ['channels', 'has room for 100 channels']],
  [
    'a failing join holds up the others on its socket',
    ['faults', 'delay a refused join'],
    ['conversations', 'a denied join'],
  ],
  [
    'rows of sessions in other time zones',
    ['broadcasts', 'delivers rows whose session has another time zone'],
    ['conversations', 'rows of one statement'],
  ],
]

it.each(CHECKLIST.map(([point, ...tests], index) => ({ number: index + 1, point, tests })))(
  '$number: $point',
  ({ tests }) => {
    for (const [file, name] of tests) {
      const path = file === 'conversations' ? 'fixtures/conversations.txt' : `${file}.test.ts`
      const source = readFileSync(new URL(path, import.meta.url), 'utf8')
      expect(source).toContain(file === 'conversations' ? `\n# ${name}` : name)
    }
  },
)
