//! The page and what it loads, served from one folder: the files on its list, and no others.

mod answer;
mod list;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use tracing::warn;

use answer::{missing, serve};
pub(crate) use list::LIST;
pub use list::SiteError;
use list::{Listed, Stamp};

/// A folder as `cargo xtask web` makes it: `files.json` names every file with its length and hash.
pub(crate) struct Site {
    folder: PathBuf,
    /// Read again when `files.json` changes, so that a folder can be replaced while the relay runs.
    listed: RwLock<Arc<Listed>>,
}

impl Site {
    /// Reads the folder's list and sees that its files are there.
    pub fn open(folder: &Path) -> Result<Self, SiteError> {
        let listed = RwLock::new(Arc::new(Listed::read(folder)?));
        Ok(Self { folder: folder.to_owned(), listed })
    }

    /// Answers GET and HEAD for every path that no other route has; other methods are refused.
    pub fn routes<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        get(respond).with_state(Arc::new(self))
    }

    async fn current(&self) -> Arc<Listed> {
        let held = || Arc::clone(&self.listed.read().unwrap_or_else(PoisonError::into_inner));
        let known = held();
        let is_same = match tokio::fs::metadata(self.folder.join(LIST)).await {
            Ok(metadata) => Stamp::of(&metadata) == known.stamp,
            // While the folder is being replaced there is a moment without a list.
            Err(_) => true,
        };
        if is_same {
            return known;
        }
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || Listed::read(&folder)).await;
        match read.expect("reading a list does not panic") {
            Ok(listed) => {
                *self.listed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(listed);
                held()
            }
            Err(error) => {
                warn!(%error, "the page's folder changed and cannot be used");
                known
            }
        }
    }
}

async fn respond(State(site): State<Arc<Site>>, request: Request) -> Response {
    let listed = site.current().await;
    let path = match request.uri().path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    // Names on the list are plain, so nothing is decoded here and nothing leads out of the folder.
    let Some((path, file)) = listed.files.get_key_value(path) else { return missing() };
    serve(&site.folder.join(path), path, file, request.uri().query(), request.headers()).await
}
