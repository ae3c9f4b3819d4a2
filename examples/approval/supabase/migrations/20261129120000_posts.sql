-- What the flow `publish_post` reads and writes: who reviews, and the posts that they have approved.
create table public.reviewers (
  user_id uuid primary key
);

create table public.posts (
  run_id uuid primary key,
  title text not null,
  body text not null,
  published_at timestamptz not null default now()
);

alter table public.reviewers enable row level security;
alter table public.posts enable row level security;
grant select on public.posts to anon, authenticated;
create policy everybody_reads on public.posts for select to anon, authenticated using (true);
