import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'

/** A URL that cannot be connected to; the message says why and what to do, without the password. */
export class DatabaseUrlError extends Error {
  override readonly name = 'DatabaseUrlError'
}

/** Options of TLS, which can be sent to a thread. */
export interface TlsOptions {
  readonly rejectUnauthorized: boolean
  readonly ca?: string
  /** Whose certificate it must be. */
  readonly host?: string
}

/** How the package `postgres` is to connect. */
export interface DatabaseTarget {
  /** Without parameters that are not the server's. */
  readonly url: string
  readonly options: {
    /** `'prefer'`: TLS if the server has it. */
    readonly ssl: false | 'prefer' | TlsOptions
    /** Lists, which the package takes and its types do not have. */
    readonly host?: string
    readonly port?: number
  }
}

const example = 'postgresql://postgres:password@host:5432/postgres'

/** Parameters of libpq, Prisma and Vercel, which the server would refuse, or which are read here. */
const otherParameters = [
  ...['sslmode', 'sslrootcert', 'ssl', 'channel_binding', 'gssencmode', 'target_session_attrs'],
  ...['pgbouncer', 'connection_limit', 'pool_timeout', 'schema', 'workaround', 'supa'],
]

/**
 * What to connect to. Without `sslmode`, TLS is required, unless the host is this machine (none) or in its own network
 * (where the server has it).
 *
 * @param option the name of what holds the URL, for messages
 * @param advice what to do with the URL of a project
 * @throws DatabaseUrlError
 */
export function databaseTarget(
  url: string,
  option: string,
  advice = 'use url and secretKey for a project',
): DatabaseTarget {
  if (/^(https?|wss?):/.test(url)) {
    throw new DatabaseUrlError(
      `${option} is the URL of a project, and not that of its database (${example}): ${advice}`,
    )
  }
  if (!/^postgres(ql)?:\/\//.test(url)) {
    throw new DatabaseUrlError(`${option} is not the URL of a database: ${example}`)
  }
  const { authority, path, parameters, hosts, ports } = partsOf(url, option)
  const options = { ssl: tlsOf(parameters, hosts, option) }
  for (const name of otherParameters) parameters.delete(name)
  const query = parameters.size === 0 ? '' : `?${parameters}`
  return {
    url: `postgresql://${authority}${path}${query}`,
    // The package cannot read an IPv6 address in a URL.
    options: hosts.some((host) => isIP(host) === 6)
      ? { ...options, host: hosts as never, port: ports as never } // see DatabaseTarget
      : options,
  }
}

function partsOf(url: string, option: string) {
  const [, authority = '', path = '', query = ''] =
    /^postgres(?:ql)?:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?$/.exec(url) ?? []
  const user = authority.slice(0, authority.lastIndexOf('@') + 1)
  const addresses = authority
    .slice(user.length)
    .split(',')
    .map((address) => /^(\[[^\]]+\]|[^:]*)(?::(\d+))?$/.exec(address))
  if (!isDecodable(user) || authority + path === '' || addresses.includes(null)) {
    throw new DatabaseUrlError(
      `${option} cannot be read as the URL of a database (${example}): write special characters of the password as encodeURIComponent does, for instance # as %23 and / as %2F`,
    )
  }
  if (/\[[A-Z -]*PASSWORD\]/i.test(decodeURIComponent(user))) {
    throw new DatabaseUrlError(
      `${option} has a placeholder instead of the password of the database. A forgotten password can be reset in the dashboard: Database > Settings`,
    )
  }
  const known = addresses.filter((address) => address !== null)
  return {
    authority,
    path,
    parameters: new URLSearchParams(query),
    hosts: known.map(([, host = '']) => decodeURIComponent(host).replace(/^\[(.*)\]$/, '$1')),
    ports: known.map(([, , port]) => Number(port ?? 5432)),
  }
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

function tlsOf(parameters: URLSearchParams, hosts: readonly string[], option: string) {
  const certificate = parameters.get('sslrootcert')
  const mode =
    parameters.get('sslmode') ?? parameters.get('ssl') ?? (certificate === null ? 'default' : 'verify-full')
  switch (mode) {
    case 'disable':
    case 'false':
      return false
    case 'allow':
    case 'prefer':
      return 'prefer'
    case 'default':
      return byPlace(hosts)
    case 'require':
    case 'no-verify':
    case 'true':
      return certificate === null || mode === 'no-verify'
        ? { rejectUnauthorized: false }
        : verified(certificate, hosts, option)
    case 'verify-ca':
    case 'verify-full':
      return verified(certificate, hosts, option)
    default:
      throw new DatabaseUrlError(
        `${option} has the sslmode ${mode}, which is none: use disable, prefer, require or verify-full`,
      )
  }
}

function byPlace(hosts: readonly string[]): DatabaseTarget['options']['ssl'] {
  const places = hosts.map(placeOf)
  if (places.every((place) => place === 'machine')) return false
  return places.includes('internet') ? { rejectUnauthorized: false } : 'prefer'
}

/** Where a host is, by its name. */
export function placeOf(host: string): 'machine' | 'network' | 'internet' {
  if (host === '' || host.startsWith('/') || /^localhost$|\.localhost$|^127\.|^::1$/i.test(host))
    return 'machine'
  if (isIP(host) === 4) return /^(10|192\.168|172\.(1[6-9]|2\d|3[01]))\./.test(host) ? 'network' : 'internet'
  if (isIP(host) === 6) return /^(f[cd]|fe80)/i.test(host) ? 'network' : 'internet'
  return host.includes('.') && !/\.(internal|local|docker)$/i.test(host) ? 'internet' : 'network'
}

function verified(certificate: string | null, hosts: readonly string[], option: string): TlsOptions {
  const ca =
    certificate === null || certificate === 'system' ? {} : { ca: readCertificate(certificate, option) }
  // Node compares the certificate with the name by itself, but not with an address.
  const address = hosts.find((host) => isIP(host) !== 0)
  return { rejectUnauthorized: true, ...ca, ...(address !== undefined && { host: address }) }
}

function readCertificate(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new DatabaseUrlError(
      `${option} names the certificate ${path} in sslrootcert, which cannot be read: ${(cause as Error).message}`,
      { cause },
    )
  }
}
