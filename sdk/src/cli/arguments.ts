import { type ParseArgsConfig, parseArgs } from 'node:util'
import { CommandError } from './command.ts'

type OptionsConfig = NonNullable<ParseArgsConfig['options']>
type Values<Options extends OptionsConfig> = ReturnType<typeof parseArgs<{ options: Options }>>['values']

/**
 * The options and words of a command line.
 *
 * @throws CommandError, with the usage, for an option that is unknown or has no value, or for too many or too few words
 */
export function parsed<const Options extends OptionsConfig>(
  usage: string,
  args: readonly string[],
  options: Options,
  words: { readonly [name: string]: string },
): { values: Values<Options>; words: string[] } {
  try {
    const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options })
    const names = Object.keys(words)
    const missing = names[positionals.length]
    if (missing !== undefined) throw new Error(words[missing])
    if (positionals.length > names.length)
      throw new Error(`"${positionals[names.length]}" is one word too many`)
    return { values, words: positionals }
  } catch (cause) {
    throw new CommandError(`${(cause as Error).message}\nUsage: pgflow ${usage}`, { cause })
  }
}
