/** Owns a stack, for tests of how owners end: `owner.ts <way>`. Prints what the test has to know, as JSON. */
import { startLocalSupabase } from '../stack.ts'

const [way] = process.argv.slice(2)
const stack = await startLocalSupabase({ fsync: false })
process.stdout.write(
  `${JSON.stringify({ pid: stack.postgres.pid, url: stack.url, uid: process.getuid?.() })}\n`,
)
if (way === 'stop') await stack.stop()
if (way === 'throw') throw new Error('an exception that nobody catches')
if (way === 'exit') process.exit(3)
