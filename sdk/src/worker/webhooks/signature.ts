import type { WebhookProvider } from '../../flow/wait-types.ts'
import { verifyHmac } from './hmac.ts'
import { fromBase64 } from './wait-url.ts'

/** Seconds by which the time of a signature may differ from ours: what Stripe, Slack and Standard Webhooks recommend. */
const tolerance = 300

/** What a provider has signed, and how. */
interface Signed {
  /** Any of them may be valid: a provider signs with the old and the new secret while it changes. */
  readonly signatures: readonly Uint8Array<ArrayBuffer>[]
  readonly text: string
  /** Epoch seconds; `undefined` where the provider signs no time. */
  readonly at?: number
  readonly key?: Uint8Array<ArrayBuffer>
}

const signedBy: Readonly<
  Record<WebhookProvider, (headers: Headers, body: string, secret: string) => Signed>
> = {
  github: (headers, body) => ({
    signatures: [fromHex(headers.get('x-hub-signature-256'), 'sha256=')],
    text: body,
  }),
  slack(headers, body) {
    const time = headers.get('x-slack-request-timestamp') ?? ''
    const signatures = [fromHex(headers.get('x-slack-signature'), 'v0=')]
    return { signatures, text: `v0:${time}:${body}`, at: Number(time) }
  },
  stripe(headers, body) {
    const parts = (headers.get('stripe-signature') ?? '').split(',').map((part) => part.trim())
    const time = parts.find((part) => part.startsWith('t='))?.slice(2) ?? ''
    const signatures = parts.filter((part) => part.startsWith('v1=')).map((part) => fromHex(part, 'v1='))
    return { signatures, text: `${time}.${body}`, at: Number(time) }
  },
  standard(headers, body, secret) {
    const [id, time, list] = ['id', 'timestamp', 'signature'].map(
      (name) => headers.get(`webhook-${name}`) ?? '',
    )
    const signatures = list!.split(' ').filter((each) => each.startsWith('v1,'))
    return {
      signatures: signatures.map((each) => fromBase64(each.slice(3))),
      text: `${id}.${time}.${body}`,
      at: Number(time),
      key: fromBase64(secret.replace(/^whsec_/, '')),
    }
  },
}

/**
 * Whether a request was signed by the provider with this secret, not longer ago than five minutes.
 *
 * @param body as it was sent, not parsed and written again
 * @param now epoch seconds
 */
export async function isSignedBy(
  provider: WebhookProvider,
  { headers, body, secret, now }: { headers: Headers; body: string; secret: string; now: number },
): Promise<boolean> {
  const { signatures, text, at = now, key = secret } = signedBy[provider](headers, body, secret)
  const found = await Promise.all(signatures.map((signature) => verifyHmac(key, text, signature)))
  return found.includes(true) && Math.abs(now - at) <= tolerance
}

function fromHex(text: string | null, prefix: string): Uint8Array<ArrayBuffer> {
  if (text === null || !text.startsWith(prefix)) return new Uint8Array()
  const hex = text.slice(prefix.length)
  return /^([\da-f]{2})+$/.test(hex)
    ? Uint8Array.from(hex.match(/../g)!, (pair) => Number.parseInt(pair, 16))
    : new Uint8Array()
}
