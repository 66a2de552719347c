-- The logins of worker, service, sequencer and keeper, each in its role, with passwords from files. The first start of a store runs
-- it by itself; run it again after a password changed, or on a store from before:
--   docker compose exec postgres psql -U subtext -d subtext -f /docker-entrypoint-initdb.d/logins.sql
-- `subtext migrate` says what each role may do.
\set ON_ERROR_STOP on
\set worker_password `cat "${SUBTEXT_SECRETS:-/run/secrets}/postgres_worker_password"`
\set service_password `cat "${SUBTEXT_SECRETS:-/run/secrets}/postgres_service_password"`
\set log_password `cat "${SUBTEXT_SECRETS:-/run/secrets}/postgres_log_password"`
\set keeper_password `cat "${SUBTEXT_SECRETS:-/run/secrets}/postgres_keeper_password"`

SET log_min_error_statement = panic; -- no password may reach the server's log
SELECT format('CREATE ROLE %I NOLOGIN', role)
FROM unnest(ARRAY['subtext_owner', 'subtext_writer', 'subtext_reader', 'subtext_sequencer', 'subtext_keeper']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec
SELECT format('CREATE ROLE %I LOGIN', login)
FROM unnest(ARRAY['subtext_worker', 'subtext_service', 'subtext_log', 'subtext_keep']) AS login
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = login)
\gexec
GRANT subtext_writer TO subtext_worker;
GRANT subtext_reader TO subtext_service;
GRANT subtext_sequencer TO subtext_log;
GRANT subtext_keeper TO subtext_keep;
ALTER ROLE subtext_worker PASSWORD :'worker_password';
ALTER ROLE subtext_service PASSWORD :'service_password';
ALTER ROLE subtext_log PASSWORD :'log_password';
ALTER ROLE subtext_keep PASSWORD :'keeper_password';
