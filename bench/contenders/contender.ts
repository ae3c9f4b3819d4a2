import { randomBytes } from 'node:crypto'
import type { LocalSupabase } from '@pgflow/local'

/** The input of a run of the chain. With `bytes`, each step's output is a text of that length, else the input. */
export interface Input {
  readonly n?: number
  readonly bytes?: number
}

/**
 * One way to run a chain of three steps, a, b and c. It is opened by the process that measures; its worker runs in
 * processes of their own.
 */
export interface Contender {
  /** As in tables; unique. */
  readonly name: string
  /** Whether a worker takes outputs of any size. @default true */
  readonly isAnySize?: boolean
  /** Folders of migrations that its server has. */
  readonly migrations?: readonly string[]
  /** Prepares an empty server. */
  install(stack: LocalSupabase): Promise<void>
  open(stack: LocalSupabase): Promise<Starter>
  /** Works until it is stopped. */
  work(url: string): Promise<Work>
}

/** Starts runs of an installed contender; holds 10 connections. */
export interface Starter {
  start(input: Input): Promise<unknown>
  /** Starts many with as few calls as its API allows. Absent where there is no such call. */
  startMany?(count: number): Promise<unknown>
  /** Starts a run and waits for its result, as its client does. */
  result?(input: Input): Promise<unknown>
  /** How many runs have not ended. */
  countOpen(): Promise<number>
  close(): Promise<unknown>
}

export interface Work {
  stop(): Promise<unknown>
}

/** Connections of a contender that starts runs one by one. */
export const START_CONNECTIONS = 10

/** What a step returns. */
export function outputOf(input: Input): Input | string {
  return input.bytes === undefined ? input : textOf(input.bytes)
}

const texts = new Map<number, string>()
/** A text that does not compress, made once for each length. */
function textOf(bytes: number): string {
  const text = texts.get(bytes) ?? randomBytes(bytes).toString('base64').slice(0, bytes)
  texts.set(bytes, text)
  return text
}
