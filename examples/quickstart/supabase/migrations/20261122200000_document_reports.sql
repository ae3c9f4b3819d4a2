-- What the flow `analyze_document` saves: one report for each run, readable by the run's owner.
create table public.document_reports (
  run_id uuid primary key,
  owner_id uuid,
  report jsonb not null,
  created_at timestamptz not null default now()
);

alter table public.document_reports enable row level security;
grant select on public.document_reports to authenticated;
create policy own_reports on public.document_reports for select to authenticated
  using (owner_id = (select auth.uid()));

-- The signed-in user's reports, the newest first.
create function public.my_document_reports()
returns setof public.document_reports
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from public.document_reports order by created_at desc
$$;
