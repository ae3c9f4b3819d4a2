const algorithm = { name: 'HMAC', hash: 'SHA-256' }

/** HMAC-SHA256; text is taken as UTF-8. */
export async function hmac(key: string | Uint8Array<ArrayBuffer>, text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign(algorithm, await imported(key), bytesOf(text)))
}

/** Whether that is the HMAC of the text. The time that it takes says nothing about the right one. */
export async function verifyHmac(
  key: string | Uint8Array<ArrayBuffer>,
  text: string,
  given: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  return crypto.subtle.verify(algorithm, await imported(key), given, bytesOf(text))
}

function imported(key: string | Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  const bytes = typeof key === 'string' ? bytesOf(key) : key
  return crypto.subtle.importKey('raw', bytes, algorithm, false, ['sign', 'verify'])
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text) as Uint8Array<ArrayBuffer> // which TypeScript does not say
}
