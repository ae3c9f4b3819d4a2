import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'

/** A server with TLS: the file of its certificate, which it has signed itself, for `localhost` and 127.0.0.1. */
export interface Tls extends AsyncDisposable {
  readonly certificate: string
}

/** Turns TLS on in a database, with a certificate that `openssl` makes. */
export async function turnOnTls(adminUrl: string): Promise<Tls> {
  const folder = await mkdtemp(join(tmpdir(), 'pgflow-tls-'))
  const certificate = join(folder, 'server.crt')
  const key = join(folder, 'server.key')
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
    ...['-keyout', key, '-out', certificate],
  ])
  const admin = postgres(adminUrl, { max: 1 })
  for (const [path, name] of [
    [certificate, 'server.crt'],
    [key, 'server.key'],
  ] as const) {
    // Written by the server, whose user the files must belong to.
    const lines = JSON.stringify((await readFile(path, 'utf8')).trimEnd().split('\n')).replaceAll("'", "''")
    await admin.unsafe(
      `copy (select json_array_elements_text('${lines}'::json)) to program 'umask 077; cat > ${name}'`,
    )
  }
  await admin`alter system set ssl = on`
  await admin`select pg_reload_conf()`
  await admin.end()
  return { certificate, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) }
}
