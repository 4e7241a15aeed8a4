//! How an operation on the database fails, inside the store.

use crate::store::StoreError;

/// Why an operation gave nothing.
#[derive(Debug)]
pub(crate) enum Fault {
    /// This is the answer.
    Answer(StoreError),
    /// Postgres gave it up because of another transaction, or the connection broke before it was to commit: nothing has
    /// happened, and the same again may succeed.
    Again(String),
}

impl Fault {
    /// What the caller is told if it is not tried again.
    pub(crate) fn into_answer(self) -> StoreError {
        match self {
            Self::Answer(error) => error,
            Self::Again(reason) => StoreError::Database(reason),
        }
    }
}

/// Why a commit failed.
pub(crate) fn uncommitted(error: sqlx::Error) -> Fault {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some("40001" | "40P01") => Fault::Again(error.to_string()),
        Some(_) | None => {
            let error = format!("{error}; it was asked to commit, so the call may have happened");
            Fault::Answer(StoreError::Database(error))
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match (code.as_deref(), &error) {
            // Serialization failure, deadlock; the server ends, crashed, begins.
            (Some("40001" | "40P01" | "57P01" | "57P02" | "57P03"), _) | (_, sqlx::Error::Io(_)) => {
                Self::Again(error.to_string())
            }
            (_, sqlx::Error::PoolTimedOut) => Self::Answer(StoreError::Busy),
            (_, sqlx::Error::PoolClosed) => Self::Answer(StoreError::Database("it is closed".to_owned())),
            _ => Self::Answer(StoreError::Database(error.to_string())),
        }
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        // Not its text, which may quote a prompt.
        let place = (error.line(), error.column());
        Self::Answer(StoreError::Unreadable(format!("JSON of another shape, at line {} column {}", place.0, place.1)))
    }
}
