-- What the flow `import_documents` writes. With the extension pgvector, `embedding` would be a vector(1536).
create table public.documents (
  document_id bigint primary key,
  body text not null,
  embedding real[] not null
);

alter table public.documents enable row level security;
