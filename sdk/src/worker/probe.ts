import { connect, type Socket } from 'node:net'

/** Milliseconds for an answer. */
const patience = 3_000

/** What a client asks first of a server of Postgres: whether it does TLS. It answers `S` or `N`, or `E` with an error. */
const sslRequest = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47)

/**
 * Says why what listens at a port cannot be Postgres; `undefined` if it can.
 *
 * @example
 * await portProblem('127.0.0.1', 8080) // '127.0.0.1:8080 is not Postgres: it answered "HTTP/1.1 400 Bad Request"'
 */
export function portProblem(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, host)
    const end = (problem?: string) => {
      socket.destroy()
      resolve(problem)
    }
    socket.setTimeout(patience, () => {
      end(`${host}:${port} accepts connections, but does not answer as Postgres does`)
    })
    socket.on('error', () => end())
    ask(socket, (answer) => {
      const isPostgres = /^[SNE]/.test(answer) && (answer.length === 1 || answer.startsWith('E'))
      const said =
        answer === '' ? 'it closed the connection' : `it answered ${JSON.stringify(firstLine(answer))}`
      end(isPostgres ? undefined : `${host}:${port} is not Postgres: ${said}`)
    })
  })
}

/** Whether a server of Postgres does TLS; `undefined` if it does not say. */
export function answersWithTls(host: string, port: number): Promise<boolean | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, host)
    const end = (answer?: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(patience, () => end())
    socket.on('error', () => end())
    ask(socket, (answer) => end(answer === 'S' ? true : answer === 'N' ? false : undefined))
  })
}

function ask(socket: Socket, onAnswer: (answer: string) => void): void {
  socket.on('connect', () => socket.write(sslRequest))
  socket.on('data', (data) => onAnswer(data.toString('latin1')))
  socket.on('end', () => onAnswer(''))
}

function firstLine(text: string): string {
  return text
    .split(/[\r\n]/, 1)[0]!
    .replaceAll(/[^\x20-\x7e]/g, '?')
    .slice(0, 60)
}
