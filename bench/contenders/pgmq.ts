import { connect } from '../lib/connect.ts'
import { type Contender, START_CONNECTIONS } from './contender.ts'

const BATCH = 100
const LOOPS = 2

/** A queue alone: each message is read, archived, and the next one of its chain sent, in batches. */
const pgmq: Contender = {
  name: 'bare pgmq',
  isAnySize: false,
  async install(stack) {
    const sql = connect(stack.adminDbUrl, 1)
    await sql`create extension if not exists pgmq`
    await sql`select pgmq.create('chain')`
    await sql.end()
  },
  async open(stack) {
    const sql = connect(stack.adminDbUrl, START_CONNECTIONS)
    return {
      start: (input) => sql`select pgmq.send('chain', ${sql.json({ step: 1, ...input })})`,
      startMany: (count) => sql`
        select count(*) from pgmq.send_batch('chain', (
          select array_agg(jsonb_build_object('step', 1, 'n', n)) from generate_series(1, ${count}::int) n))`,
      async countOpen() {
        const [row] = await sql`select count(*)::int as open from pgmq.q_chain`
        return row?.open
      },
      close: () => sql.end(),
    }
  },
  async work(url) {
    const sql = connect(url, LOOPS)
    let isStopping = false
    const loop = async () => {
      while (!isStopping) {
        const messages = await sql`select msg_id, message from pgmq.read('chain', 30, ${BATCH})`
        if (messages.length === 0) {
          await new Promise((done) => setTimeout(done, 20))
          continue
        }
        const next = messages
          .filter(({ message }) => message.step < 3)
          .map(({ message }) => ({ ...message, step: message.step + 1 }))
        if (next.length > 0) {
          await sql`
            select count(*) from pgmq.send_batch(
              'chain', (select array_agg(m) from jsonb_array_elements(${sql.json(next)}) m))`
        }
        await sql`select count(*) from pgmq.archive('chain', ${messages.map(({ msg_id }) => msg_id)}::bigint[])`
      }
    }
    const done = Promise.all(Array.from({ length: LOOPS }, loop))
    return {
      async stop() {
        isStopping = true
        await done
        await sql.end()
      },
    }
  },
}

export const contenders = [pgmq]
