import { createServer, type Server } from 'node:net'
import { LocalSupabaseError } from './errors.ts'

export const HOST = '127.0.0.1'
const ATTEMPTS = 10

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer()
  const port = await listen(server, 0)
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Listens on the port (0 for any) and returns it. */
export function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, HOST, () => {
      server.off('error', reject)
      resolve((server.address() as { port: number }).port)
    })
  })
}

/** A port that is taken. */
export class PortBusyError extends LocalSupabaseError {
  constructor(port: number, option: string, cause?: unknown) {
    super(
      `Port ${port} is in use: stop what listens there, or leave out the option "${option}" to get a free port.`,
      { cause },
    )
  }
}

/** Runs `use` with the wanted port or, if there is none, with free ones until nobody else was quicker. */
export async function withPort<T>(wanted: number | undefined, use: (port: number) => Promise<T>): Promise<T> {
  if (wanted !== undefined) return use(wanted)
  for (let attempt = 1; ; attempt++) {
    try {
      return await use(await freePort())
    } catch (error) {
      if (!(error instanceof PortBusyError) || attempt === ATTEMPTS) throw error
    }
  }
}
