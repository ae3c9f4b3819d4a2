import { isObject, TOPIC_PREFIX } from './frames.ts'

/** A join that is refused; the message is the reason that the client is told. */
export class JoinError extends Error {
  override readonly name = 'JoinError'
  /** How long the client waits for it, if not as long as for any other. */
  readonly delayMs: number | undefined
}

/** Ends the socket, too. */
export class TooManyJoins extends JoinError {
  constructor() {
    super('ClientJoinRateLimitReached: Too many joins per second')
  }
}

/** What only the local stack refuses: at once, for it would wait where the platform does not. */
class NotOffered extends JoinError {
  override readonly delayMs = 0
}

/** What a client asks for when it joins. */
export interface JoinConfig {
  private: boolean
  /** Client broadcasts are to be answered. */
  ack: boolean
  replicationReady: boolean
  /** Undefined: the key that the socket was opened with. */
  token: string | undefined
}

/** @throws {JoinError} for what the local stack does not offer */
export function readJoin(topic: string, payload: unknown): JoinConfig {
  if (topic === TOPIC_PREFIX) throw new JoinError('TopicNameRequired: You must provide a topic name')
  const { config, access_token, user_token } = isObject(payload) ? payload : {}
  const changes = isObject(config) ? config.postgres_changes : 'asked for by the older API'
  if (changes !== undefined && !(Array.isArray(changes) && changes.length === 0)) {
    throw new NotOffered('UnableToSubscribe: Postgres changes are not supported by the local stack')
  }
  const { private: isPrivate, broadcast } = isObject(config) ? config : {}
  const { ack, replay, replication_ready } = isObject(broadcast) ? broadcast : {}
  if (replay !== undefined && replay !== null) {
    throw new NotOffered('UnableToReplayMessages: Replay is not supported by the local stack')
  }
  return {
    private: isTrue(isPrivate),
    ack: isTrue(ack),
    replicationReady: isTrue(replication_ready),
    token: usableToken(access_token) ?? usableToken(user_token),
  }
}

/** A user's token; API keys are the gateway's affair. */
export function usableToken(value: unknown): string | undefined {
  return typeof value === 'string' && !value.startsWith('sb_') ? value : undefined
}

/** The platform takes text too, and everything else for false. */
function isTrue(value: unknown): boolean {
  return value === true || (typeof value === 'string' && value.toLowerCase() === 'true')
}
