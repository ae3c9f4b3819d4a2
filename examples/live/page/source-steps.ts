/** For each line of a flow's source, the step that it defines. Each step begins with a line `  .step(…`, `.map(…`, `.flow(…`, `.wait(…` or `.sleep(…`. */
export function stepOfLines(source: string): (string | undefined)[] {
  let step: string | undefined
  return source.split('\n').map((line, index, lines) => {
    if (!/^ {2}[ })]/.test(line)) step = undefined
    if (/^ {2}\.(?:step|map|flow|flowMap|wait|sleep)\(/.test(line))
      step = /'(\w+)'/.exec(lines.slice(index).join('\n'))?.[1]
    return step
  })
}
