//! The list of a page's folder: what may be served, how long it is, and what it hashes to.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::limits::{SITE_FILES_MAX, SITE_LIST_BYTES_MAX};

/// The list's own name; it is served too, for the page's cache.
pub const LIST: &str = "files.json";

/// Characters of a SHA-256 in hexadecimal.
const HASH_CHARACTERS: usize = 64;

/// Why a folder cannot be served as the page.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The list or one of its files cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The list is not one.
    #[error("{path} is not the list of a page's folder: {reason}")]
    Malformed {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is not as long as the list says.
    #[error("{path} is {found} bytes long, and {LIST} says {listed}")]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its length on disk.
        found: u64,
        /// Its length in the list.
        listed: u64,
    },
}

/// One file that may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Length in bytes.
    pub bytes: u64,
    /// Its hash in hexadecimal; of the list itself, its version.
    pub sha256: String,
    /// Length of the file beside it that ends in `.br`, if there is one.
    pub brotli_bytes: Option<u64>,
}

/// Tells whether the list was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

/// A folder's list as it was read.
#[derive(Debug)]
pub struct Listed {
    /// Of the list when it was read.
    pub stamp: Stamp,
    /// Path below the folder, with `/` on every system, to what is known of it.
    pub files: BTreeMap<String, Listing>,
}

#[derive(Deserialize)]
struct Document {
    version: String,
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

impl Stamp {
    /// Of a file.
    pub fn of(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Listed {
    /// Reads the list of `folder` and compares every length.
    pub fn read(folder: &Path) -> Result<Self, SiteError> {
        let path = folder.join(LIST);
        let unreadable = |reason| SiteError::Unreadable { path: path.clone(), reason };
        let malformed = |reason: String| SiteError::Malformed { path: path.clone(), reason };
        let file = File::open(&path).map_err(unreadable)?;
        let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
        let mut text = String::new();
        file.take(SITE_LIST_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        let document: Document = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if document.files.len() > SITE_FILES_MAX {
            return Err(malformed(format!("it names more than {SITE_FILES_MAX} files")));
        }
        let own = Entry { path: LIST.into(), bytes: stamp.bytes, sha256: document.version };
        let mut files = BTreeMap::new();
        for entry in document.files.into_iter().chain([own]) {
            if !is_plain(&entry.path) {
                return Err(malformed(format!("{:?} is not a plain path", entry.path)));
            }
            if entry.sha256.len() != HASH_CHARACTERS || !entry.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed(format!("{:?} is not a SHA-256", entry.sha256)));
            }
            let on_disk = folder.join(&entry.path);
            let found = std::fs::metadata(&on_disk)
                .map_err(|reason| SiteError::Unreadable { path: on_disk.clone(), reason })?
                .len();
            if found != entry.bytes {
                return Err(SiteError::Changed { path: on_disk, found, listed: entry.bytes });
            }
            let brotli_bytes = std::fs::metadata(brotli_of(&on_disk)).ok().map(|metadata| metadata.len());
            let listing = Listing { bytes: entry.bytes, sha256: entry.sha256.to_lowercase(), brotli_bytes };
            files.insert(entry.path, listing);
        }
        Ok(Self { stamp, files })
    }
}

/// Where the compressed twin of a file lies.
pub fn brotli_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".br");
    PathBuf::from(name)
}

/// Whether a path is made of ordinary names only, below the folder, and needs no escaping in a URL.
fn is_plain(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_below_the_folder_are_taken() {
        for good in ["index.html", "page/page_bg.wasm", "models/demo/unet/config.json"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".env", "a\\b", "c:x", "a b", "a%2fb", "é"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
