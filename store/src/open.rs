//! Opens the store that an address names.

use std::path::Path;
use std::sync::Arc;

use crate::limits::Limits;
use crate::memory::Memory;
use crate::sqlite::Durability;
use crate::store::{JobStore, StoreError};
use crate::{postgres, sqlite};

/// What an address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address<'a> {
    /// Nothing that lasts.
    Memory,
    /// A file.
    Sqlite(&'a Path),
    /// A server.
    Postgres(&'a str),
}

impl<'a> Address<'a> {
    pub(crate) fn parse(url: &'a str) -> Result<Self, StoreError> {
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url));
        }
        let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(path) if !path.is_empty() && path != ":memory:" => Ok(Self::Sqlite(Path::new(path))),
            // Not quoted: it may hold a password.
            Some(_) | None => Err(StoreError::Database(
                "its address is none of sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE and memory:".to_owned(),
            )),
        }
    }
}

/// Opens the queue at `sqlite:FILE` (one relay; made if it is not there), `postgres://USER:PASSWORD@HOST/DATABASE` (any number
/// of relays) or `memory:` (gone with the process).
pub async fn open(url: &str) -> Result<Arc<dyn JobStore>, StoreError> {
    let limits = Limits::default();
    Ok(match Address::parse(url)? {
        Address::Memory => Arc::new(Memory::new(limits)),
        Address::Sqlite(path) => Arc::new(sqlite::open(path, Durability::Full, limits).await?),
        Address::Postgres(url) => Arc::new(postgres::open(url, Durability::Full, limits).await?),
    })
}

/// Opens the queue to look at it, beside the relay that has it. Only Postgres would let it be changed.
pub async fn open_to_read(url: &str) -> Result<Arc<dyn JobStore>, StoreError> {
    match Address::parse(url)? {
        Address::Sqlite(path) => Ok(Arc::new(sqlite::open_to_read(path, Limits::default()).await?)),
        Address::Memory | Address::Postgres(_) => open(url).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_file_a_server_or_memory() {
        assert_eq!(Address::parse("memory:").unwrap(), Address::Memory);
        for url in ["sqlite:a/b.db", "sqlite://a/b.db"] {
            assert_eq!(Address::parse(url).unwrap(), Address::Sqlite(Path::new("a/b.db")));
        }
        assert_eq!(Address::parse("sqlite:///b.db").unwrap(), Address::Sqlite(Path::new("/b.db")));
        assert!(matches!(Address::parse("postgres://u:secret@h/d"), Ok(Address::Postgres(_))));
        for url in ["", "queue.db", "sqlite:", "sqlite::memory:", "mysql://u:secret@h/d"] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains("sqlite:FILE") && !error.contains("secret"), "{error}");
        }
    }
}
