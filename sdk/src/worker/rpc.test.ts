import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { schemaVersion } from '../shared/schema-version.ts'
import { isTransient } from './faults.ts'
import { openRpcTransport } from './rpc.ts'

const worker_id = '30000000-0000-4000-8000-000000000001'

/** A gateway that answers as told; it keeps what it was asked. */
async function gateway(answer: (response: ServerResponse, request: IncomingMessage) => unknown) {
  const asked: { path: string; headers: IncomingHttpHeaders; body: string }[] = []
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    asked.push({ path: request.url!, headers: request.headers, body })
    answer(response, request)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const open = (secretKey: string) => {
    const transport = openRpcTransport({ url, secretKey })
    onTestFinished(() => transport.close())
    return transport
  }
  return { asked, open }
}

const failureOf = (answering: Promise<unknown>) =>
  answering.then(
    () => undefined,
    (error) => error,
  )

describe('The RPC transport', () => {
  it('sends a secret key as the key alone, and the older one as a token too', async () => {
    const { asked, open } = await gateway((response) => response.writeHead(204).end())
    await open('sb_secret_x').stopWorker(worker_id)
    await open('e.y.J').stopWorker(worker_id)
    expect(asked.map(({ headers: { apikey, authorization } }) => ({ apikey, authorization }))).toEqual([
      { apikey: 'sb_secret_x', authorization: undefined },
      { apikey: 'e.y.J', authorization: 'Bearer e.y.J' },
    ])
    expect(asked[0]).toMatchObject({
      path: '/rest/v1/rpc/stop_worker',
      headers: { 'content-type': 'application/json', 'content-profile': 'pgflow_worker' },
      body: JSON.stringify({ worker_id }),
    })
  })

  it('passes on what the database says', async () => {
    const body = { code: 'PT409', message: 'what', details: 'why', hint: 'how' }
    const { open } = await gateway((response) => response.writeHead(409).end(JSON.stringify(body)))
    const failure = await failureOf(open('k').handBack([]))
    expect(failure).toMatchObject({
      code: 'PT409',
      message: 'what',
      details: 'why',
      hint: 'how',
      status: 409,
    })
    expect(isTransient(failure)).toBe(false)
  })

  it.each([
    ['a gateway that is ill', 502, '<html>Bad gateway</html>'],
    ['a gateway that is out of breath', 429, '{"message":"too many requests"}'],
    ['PostgREST without its database', 503, '{"code":"PGRST002","message":"no schema cache","details":null}'],
    ['a token that has expired', 401, '{"code":"PGRST303","message":"JWT expired"}'],
    ['an answer that is no answer', 500, ''],
    ['an answer that is null', 500, 'null'],
  ])('asks %s again later', async (_, status, body) => {
    const { open } = await gateway((response) => response.writeHead(status).end(body))
    const failure = await failureOf(open('k').heartbeat(worker_id, [], 30))
    expect(failure).toBeInstanceOf(Error)
    expect(isTransient(failure)).toBe(true)
  })

  it('does not send again what is too large', async () => {
    const { open } = await gateway((response) => response.writeHead(413).end('too large'))
    const failure = await failureOf(open('k').handBack([]))
    expect(failure).toMatchObject({ status: 413, message: 'too large' })
    expect(isTransient(failure)).toBe(false)
  })

  it('asks again later when the connection is cut', async () => {
    const { open } = await gateway((response) => response.destroy())
    expect(isTransient(await failureOf(open('k').handBack([])))).toBe(true)
  })

  it.each([
    ['has older migrations', { status: 200, body: '1' }, 1],
    ['does not expose the schema of workers', { status: 200, body: String(schemaVersion) }, 'PGRST106'],
    [
      'exposes no schema',
      { status: 406, body: '{"code":"PGRST106","message":"Invalid schema"}' },
      'PGRST106',
    ],
  ])('tells when a project %s', async (_, inPublic, expected) => {
    const { open } = await gateway((response, { headers }) => {
      const isPublic = headers['content-profile'] === 'pgflow_public'
      const { status, body } = isPublic
        ? inPublic
        : { status: 406, body: '{"code":"PGRST106","message":"Invalid schema"}' }
      response.writeHead(status).end(body)
    })
    const answer = await open('k')
      .schemaVersion()
      .catch((error) => error.code)
    expect(answer).toBe(expected)
  })

  it('ends what is under way when it is closed', async () => {
    let arrive = () => {}
    const arrival = new Promise<void>((resolve) => {
      arrive = resolve
    })
    const { open } = await gateway(() => arrive())
    const hanging = open('k')
    const failure = failureOf(hanging.handBack([]))
    await arrival
    await hanging.close()
    expect(await failure).toMatchObject({ name: 'AbortError' })
  })
})
