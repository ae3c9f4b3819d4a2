import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Supervisor } from './supervisor.ts'

test('the end of the command is reported after all its output', async () => {
  const script = 'n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); echo "line $n" >&2; done'
  const supervisor = new Supervisor({
    folder: join(tmpdir(), `pgflow-supervisor-${randomUUID()}`),
    signal: 'QUIT',
    command: ['sh', '-c', script],
    account: undefined,
  })
  const said: string[] = []
  supervisor.on('line', (line) => said.push(line))
  try {
    await supervisor.ready()
    for (let run = 1; run <= 3; run++) {
      supervisor.run('')
      await once(supervisor, 'exit')
      expect(said).toHaveLength(3000 * run)
      expect(said.at(-1)).toBe('line 3000')
    }
  } finally {
    await supervisor.end()
  }
})
