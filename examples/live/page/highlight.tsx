import { type ParsedLine, parse } from 'sugar-high/core'
import * as json from 'sugar-high/lang/json'
import * as typescript from 'sugar-high/lang/typescript'
import './code.css'

const languages = { json, typescript }

/** The lines of a source, each as tokens. */
export function linesOf(source: string, language: keyof typeof languages): readonly ParsedLine[] {
  return parse(source, languages[language]).lines
}

/** A line in colours; code.css has one for each type of token. */
export function Tokens({ line }: { line: ParsedLine }) {
  let offset = 0
  return line.tokens.map(({ type, value }) => {
    const key = offset
    offset += value.length
    return value === '' ? null : (
      <span key={key} className={`token-${type}`}>
        {value}
      </span>
    )
  })
}
