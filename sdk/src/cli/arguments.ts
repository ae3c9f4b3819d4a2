import { type ParseArgsConfig, parseArgs } from 'node:util'
import { CommandError } from './command.ts'

type OptionsConfig = NonNullable<ParseArgsConfig['options']>
type Values<Options extends OptionsConfig> = ReturnType<typeof parseArgs<{ options: Options }>>['values']

/**
 * The options and words of a command line.
 *
 * @param more whether any number of words may follow
 * @throws CommandError, with the usage, for an option that is unknown or has no value, or for too many or too few words
 */
export function parsed<const Options extends OptionsConfig>(
  usage: string,
  args: readonly string[],
  options: Options,
  words: { readonly [name: string]: string },
  more = false,
): { values: Values<Options>; words: string[] } {
  try {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options })
    const names = Object.keys(words)
    const missing = names[positionals.length]
    if (missing !== undefined) throw new Error(words[missing])
    if (positionals.length > names.length && !more)
      throw new Error(`unexpected argument "${positionals[names.length]}"`)
    return { values, words: positionals }
  } catch (cause) {
    throw new CommandError(`${(cause as Error).message}\nUsage: pgflow ${usage}`, { cause })
  }
}

/**
 * A whole number of the command line.
 *
 * @throws CommandError if it is none, or less than 1
 */
export function countOf(name: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  if (/^[1-9]\d{0,8}$/.test(value)) return Number(value)
  throw new CommandError(`--${name} is a whole number, 1 or more`)
}
