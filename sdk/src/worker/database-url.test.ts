import { describe, expect, it } from 'vitest'
import { databaseTarget } from './database-url.ts'

const of = (rest: string) => databaseTarget(`postgresql://postgres:pw@${rest}`, 'connection')
const unverified = { rejectUnauthorized: false }

describe('databaseTarget', () => {
  it.each([
    ['127.0.0.1:54322/postgres', false],
    ['localhost/postgres', false],
    ['[::1]:5432/postgres', false],
    ['db/postgres', 'prefer'],
    ['supabase_db_app:5432/postgres', 'prefer'],
    ['10.1.2.3/postgres', 'prefer'],
    ['postgres.railway.internal/postgres', 'prefer'],
    ['db.abcdefghijklmnopqrst.supabase.co:5432/postgres', unverified],
    ['aws-0-eu-central-1.pooler.supabase.com:6543/postgres', unverified],
    ['93.184.216.34/postgres', unverified],
    ['localhost,db.example.com/postgres', unverified],
  ])('without sslmode, %s: TLS is %j', (rest, ssl) => {
    expect(of(rest).options.ssl).toEqual(ssl)
  })

  it.each([
    ['db.example.com/postgres?sslmode=disable', false],
    ['localhost/postgres?sslmode=require', unverified],
    ['localhost/postgres?sslmode=prefer', 'prefer'],
    ['db.example.com/postgres?sslmode=no-verify', unverified],
    ['db.example.com/postgres?sslmode=verify-full', { rejectUnauthorized: true }],
    ['db.example.com/postgres?sslmode=verify-ca&sslrootcert=system', { rejectUnauthorized: true }],
    ['10.0.0.1/postgres?sslmode=verify-full', { rejectUnauthorized: true, host: '10.0.0.1' }],
  ])('sslmode decides: %s', (rest, ssl) => {
    expect(of(rest).options.ssl).toEqual(ssl)
  })

  it('leaves out parameters that the server would refuse', () => {
    const { url } = of(
      'db.example.com:6543/postgres?pgbouncer=true&connection_limit=1&sslmode=require&options=-c%20a%3Db',
    )
    expect(url).toBe('postgresql://postgres:pw@db.example.com:6543/postgres?options=-c+a%3Db')
  })

  it.each([
    ['https://abc.supabase.co', 'connection is the URL of a project, and not that of its database'],
    ['https://abc.supabase.co', 'use url and secretKey'],
    ['mysql://me:secret@host/db', 'connection is not the URL of a database'],
    ['nonsense', 'connection is not the URL of a database'],
    ['postgresql://me:se#cret@host/db', 'for instance # as %23'],
    ['postgresql://me:secret/@host/db', 'for instance # as %23'],
    ['postgresql://me:secret%@host/db', 'for instance # as %23'],
    ['postgresql://postgres:[YOUR-PASSWORD]@host/db', 'has a placeholder instead of the password'],
    ['postgresql://me:secret@host/db?sslmode=maybe', 'sslmode maybe, which is none'],
    [
      'postgresql://me:secret@host/db?sslrootcert=/no/such.crt',
      'the certificate /no/such.crt in sslrootcert',
    ],
  ])('refuses %s', (url, words) => {
    let message = ''
    try {
      databaseTarget(url, 'connection')
    } catch (error) {
      message = (error as Error).message
    }
    expect(message).toContain(words)
    expect(message).not.toContain('secret@')
  })
})
