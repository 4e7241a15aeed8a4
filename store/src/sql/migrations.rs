//! Brings a database to this version's tables, and refuses one that is newer.

use sqlx::{AnyConnection, Connection, Executor, Row};

use super::fault::Fault;
use super::session::Dialect;
use crate::store::StoreError;

/// What each version adds to the one before; the first makes everything.
const SQLITE: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_queue.sql"),
    include_str!("../../migrations/sqlite/0002_told.sql"),
    include_str!("../../migrations/sqlite/0003_heads.sql"),
];

/// See [`SQLITE`].
const POSTGRES: &[&str] = &[
    include_str!("../../migrations/postgres/0001_queue.sql"),
    include_str!("../../migrations/postgres/0002_told.sql"),
    include_str!("../../migrations/postgres/0003_heads.sql"),
];

/// Runs what is missing, in one transaction.
pub(crate) async fn migrate(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), Fault> {
    let (scripts, begin, find) = match dialect {
        Dialect::Sqlite => {
            (SQLITE, "BEGIN IMMEDIATE", "SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'")
        }
        Dialect::Postgres => {
            (POSTGRES, "BEGIN", "SELECT count(*) FROM pg_class WHERE oid = to_regclass('schema_version')")
        }
    };
    let mut transaction = connection.begin_with(begin).await?;
    if dialect == Dialect::Postgres {
        // Two relays that start at once.
        let key = i64::from_be_bytes(*b"manyhand");
        transaction.execute(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key)).await?;
    }
    if transaction.fetch_one(find).await?.try_get::<i64, _>(0)? == 0 {
        transaction.execute(sqlx::raw_sql("CREATE TABLE schema_version (version BIGINT NOT NULL)")).await?;
        transaction.execute("INSERT INTO schema_version (version) VALUES (0)").await?;
    }
    let version: i64 = transaction.fetch_one("SELECT version FROM schema_version").await?.try_get(0)?;
    let newest = i64::try_from(scripts.len()).unwrap_or(i64::MAX);
    if version > newest {
        let error = format!(
            "tables of version {version}, and this program knows {newest}; use the program that wrote them, or a newer one"
        );
        return Err(StoreError::Unreadable(error).into());
    }
    for script in scripts.iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute(sqlx::raw_sql(*script)).await?;
    }
    transaction.execute(sqlx::query("UPDATE schema_version SET version = $1").bind(newest)).await?;
    transaction.commit().await?;
    Ok(())
}
