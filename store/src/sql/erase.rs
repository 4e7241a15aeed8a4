//! Empties a database between the sequences of a test; nothing else can, because the ledger refuses.

use sqlx::{Executor, Row};

use super::fault::Fault;
use super::session::{Dialect, Session};

impl Session<'_> {
    /// Removes every record.
    pub(crate) async fn erase(&mut self) -> Result<(), Fault> {
        match self.dialect {
            Dialect::Sqlite => {
                let find = "SELECT sql FROM sqlite_master WHERE name = 'ledger_is_not_deleted'";
                let trigger: String = self.connection.fetch_one(find).await?.try_get(0)?;
                let erase = "DROP TRIGGER ledger_is_not_deleted;
                    DELETE FROM jobs; DELETE FROM chunks; DELETE FROM attempts; DELETE FROM ledger;
                    DELETE FROM forgotten; DELETE FROM breakers; DELETE FROM told; UPDATE spent SET amount = 0";
                self.connection.execute(sqlx::raw_sql(erase)).await?;
                self.connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))).await?;
            }
            Dialect::Postgres => {
                let erase = "ALTER TABLE ledger DISABLE TRIGGER ledger_is_not_changed;
                    DELETE FROM jobs; DELETE FROM chunks; DELETE FROM attempts; DELETE FROM ledger;
                    DELETE FROM forgotten; DELETE FROM breakers; DELETE FROM told; UPDATE spent SET amount = 0;
                    ALTER TABLE ledger ENABLE TRIGGER ledger_is_not_changed";
                self.connection.execute(sqlx::raw_sql(erase)).await?;
            }
        }
        Ok(())
    }
}
