import type { AnyFlow } from '../../flow/definition.ts'
import { hmac, verifyHmac } from './hmac.ts'
import type { WebhookSettings } from './settings.ts'

/** A wait of a run, as its URL names it. */
export interface NamedWait {
  readonly flow_slug: string
  readonly run_id: string
  readonly step_slug: string
}

/**
 * The URL that completes a wait. Its token is an HMAC over flow, run and step: nothing is stored, and nobody can guess it.
 *
 * @throws Error if the flow has no such wait, or the wait no `webhook`
 */
export async function waitUrl(
  { url, key }: WebhookSettings,
  flow: AnyFlow,
  { run_id, step_slug }: Omit<NamedWait, 'flow_slug'>,
): Promise<string> {
  if (webhookOf(flow, step_slug) === undefined) {
    throw new Error(
      `the step "${step_slug}" of the flow "${flow.slug}" is no wait with webhook: add it to its .wait()`,
    )
  }
  const path = `${flow.slug}/${run_id}/${step_slug}`
  return `${url.replace(/\/+$/, '')}/waits/${path}/${base64url(await hmac(key, path))}`
}

/** The wait that a URL names; `undefined` where its token is none of this key's, and `null` where it is no such URL. */
export async function waitAt(url: string, key: string): Promise<NamedWait | undefined | null> {
  const found = /\/waits\/(\w+)\/([\da-f-]{36})\/(\w+)\/([\w-]+)\/?$/.exec(new URL(url).pathname)
  if (found === null) return null
  const [flow_slug, run_id, step_slug, token] = found.slice(1) as [string, string, string, string]
  const isValid = await verifyHmac(key, `${flow_slug}/${run_id}/${step_slug}`, fromBase64(token))
  return isValid ? { flow_slug, run_id, step_slug } : undefined
}

/** The provider of a wait's webhook, `true` for any; `undefined` where it has none. */
export function webhookOf(flow: AnyFlow, stepSlug: string) {
  return flow.steps.get(stepSlug)?.options.webhook || undefined
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

/** The bytes of base64 text, in either alphabet; none where it is not that. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0))
  } catch {
    return new Uint8Array()
  }
}
