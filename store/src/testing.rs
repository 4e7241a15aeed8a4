//! What tests of the store and of whoever uses it share: a Postgres server of their own, and stores that can be emptied.

use std::sync::Arc;

use futures::FutureExt;

use crate::limits::Limits;
use crate::open::Address;
use crate::sql::Database;
use crate::sqlite::Durability;
use crate::store::{JobStore, StoreError};
use crate::{postgres, sqlite};

mod server;

pub use self::server::{Postgres, Sync};

/// A store that answers as any other but does not wait for the disk, and that can be emptied.
#[derive(Clone, Debug)]
pub struct Volatile(Arc<Database>);

impl Volatile {
    /// Opens a database.
    pub async fn open(url: &str, limits: Limits) -> Result<Self, StoreError> {
        let database = match Address::parse(url)? {
            Address::Memory => return Err(StoreError::Database("memory is empty as it is".to_owned())),
            Address::Sqlite(path) => sqlite::open(path, Durability::None, limits).await?,
            Address::Postgres(url) => postgres::open(url, Durability::None, limits).await?,
        };
        Ok(Self(Arc::new(database)))
    }

    /// Removes every record.
    pub async fn erase(&self) -> Result<(), StoreError> {
        self.0.write(|session| session.erase().boxed()).await
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn JobStore> {
        self.0.clone()
    }
}
