-- What the agent's tools read and write.
create table public.products (
  product_id text primary key,
  name text not null
);

create table public.offers (
  product_id text not null references public.products,
  supplier text not null,
  price numeric not null,
  primary key (product_id, supplier)
);

create table public.orders (
  run_id uuid primary key,
  product_id text not null references public.products,
  supplier text not null,
  quantity int not null
);

alter table public.products enable row level security;
alter table public.offers enable row level security;
alter table public.orders enable row level security;

insert into public.products values ('blue', 'Blue paint'), ('white', 'White paint');
insert into public.offers values ('blue', 'Colours Ltd', 24), ('blue', 'Paint & Co', 19), ('white', 'Paint & Co', 15);
