#!/usr/bin/env node
import { ask } from './ask.ts'
import { type Command, CommandError, type Io } from './command.ts'
import { compileCommand } from './compile.ts'
import { devCommand } from './dev.ts'
import { doctorCommand } from './doctor.ts'
import { loadEnvironment } from './environment.ts'
import { initCommand } from './init.ts'
import { limitsCommand } from './limits.ts'
import { runsCommand } from './runs.ts'
import { schedulesCommand } from './schedules.ts'
import { uninstallCommand } from './uninstall.ts'
import { upgradeCommand } from './upgrade.ts'
import { workerCommand } from './worker.ts'

const commands: Readonly<Record<string, Command>> = {
  init: initCommand,
  upgrade: upgradeCommand,
  uninstall: uninstallCommand,
  compile: compileCommand,
  dev: devCommand,
  worker: workerCommand,
  runs: runsCommand,
  schedules: schedulesCommand,
  limits: limitsCommand,
  doctor: doctorCommand,
}

const io: Io = {
  cwd: process.cwd(),
  now: new Date(),
  environment: loadEnvironment(process.cwd()),
  ask: process.stdin.isTTY && process.stdout.isTTY ? ask : undefined,
  out: (line) => process.stdout.write(`${line}\n`),
  note: (line) => process.stderr.write(`${line}\n`),
}

/** The exit code: 0 done, 1 failed, 2 not understood. */
async function main([name = 'help', ...args]: readonly string[]): Promise<number> {
  if (name === 'help' || name === '--help' || name === '-h') {
    io.out(help())
    return 0
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) {
    io.note(`pgflow has no command "${name}".\n\n${help()}`)
    return 2
  }
  try {
    await command.run(args, io)
    return 0
  } catch (error) {
    const isExpected = error instanceof CommandError
    io.note(`pgflow ${name}: ${isExpected ? error.message : (error as Error | undefined)?.stack}`)
    return 1
  }
}

function help(): string {
  const lines = Object.values(commands).map(({ usage, summary }) => `  pgflow ${usage}\n      ${summary}`)
  return ['Usage:', ...lines].join('\n')
}

// A module of flows may have opened what would keep the process alive.
process.exit(await main(process.argv.slice(2)))
