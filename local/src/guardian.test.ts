import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Guardian } from './guardian.ts'

test('whoever hears of the end of the command has heard all that it said', async () => {
  const script = 'n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); echo "line $n" >&2; done'
  const guardian = new Guardian({
    folder: join(tmpdir(), `pgflow-guardian-${randomUUID()}`),
    signal: 'QUIT',
    command: ['sh', '-c', script],
    account: undefined,
  })
  const said: string[] = []
  guardian.on('line', (line) => said.push(line))
  try {
    await guardian.ready()
    for (let run = 1; run <= 3; run++) {
      guardian.run('')
      await once(guardian, 'exit')
      expect(said).toHaveLength(3000 * run)
      expect(said.at(-1)).toBe('line 3000')
    }
  } finally {
    await guardian.end()
  }
})
