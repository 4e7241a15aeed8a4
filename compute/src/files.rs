//! The files of a model: a folder on disk, or bytes in memory where there is no file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::weights::LoadError;

/// Longest JSON file read: tokenizers and shard indexes of the largest models are a few MiB.
pub const JSON_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Files by name, or those below one folder of them. Names are relative, with `/` between their parts.
#[derive(Clone, Debug)]
pub struct Files {
    source: Arc<Source>,
    folder: String,
}

#[derive(Debug)]
enum Source {
    Disk(PathBuf),
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Files {
    /// The files below `path`.
    pub fn on_disk(path: &Path) -> Self {
        Self { source: Arc::new(Source::Disk(path.to_owned())), folder: String::new() }
    }

    /// Files held in memory, by their names (`unet/config.json`).
    pub fn in_memory(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { source: Arc::new(Source::Memory(files)), folder: String::new() }
    }

    /// The files below the folder `name`.
    pub fn at(&self, name: &str) -> Self {
        Self { source: self.source.clone(), folder: self.full(name) }
    }

    /// What messages call the file `name`, or, with an empty name, the folder itself.
    pub fn path(&self, name: &str) -> PathBuf {
        match &*self.source {
            Source::Disk(root) => {
                self.full(name).split('/').filter(|part| !part.is_empty()).fold(root.clone(), |at, part| at.join(part))
            }
            Source::Memory(_) => PathBuf::from(self.full(name)),
        }
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        match &*self.source {
            Source::Disk(_) => self.path(name).is_file(),
            Source::Memory(files) => files.contains_key(&self.full(name)),
        }
    }

    /// Bytes in the file.
    ///
    /// # Errors
    /// [`LoadError::Read`] if it cannot be opened.
    pub fn length(&self, name: &str) -> Result<u64, LoadError> {
        match &*self.source {
            Source::Disk(_) => {
                let path = self.path(name);
                let length = File::open(&path).and_then(|file| file.metadata());
                length.map(|metadata| metadata.len()).map_err(|source| LoadError::read(&path, source))
            }
            Source::Memory(_) => self.bytes(name).map(|bytes| bytes.len() as u64),
        }
    }

    /// `length` bytes of the file from byte `start` on. The caller has bounded `length`.
    ///
    /// # Errors
    /// [`LoadError::Read`] if the file cannot be read or ends before.
    pub fn read(&self, name: &str, start: u64, length: usize) -> Result<Vec<u8>, LoadError> {
        let path = self.path(name);
        match &*self.source {
            Source::Disk(_) => {
                let read = |mut file: File| {
                    let mut bytes = vec![0; length];
                    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes)).map(|()| bytes)
                };
                File::open(&path).and_then(read).map_err(|source| LoadError::read(&path, source))
            }
            Source::Memory(_) => {
                let bytes = self.bytes(name)?;
                let from = usize::try_from(start).ok().and_then(|start| bytes.get(start..));
                let piece = from.and_then(|bytes| bytes.get(..length)).map(<[u8]>::to_vec);
                piece.ok_or_else(|| LoadError::read(&path, Error::from(ErrorKind::UnexpectedEof)))
            }
        }
    }

    /// A whole text file of at most [`JSON_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// If it cannot be read, is longer, or is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<String, LoadError> {
        let path = self.path(name);
        let length = self.length(name)?;
        if length > JSON_BYTES_MAX {
            return Err(LoadError::malformed(&path, format!("larger than {JSON_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(self.read(name, 0, length as usize)?);
        text.map_err(|error| LoadError::read(&path, Error::new(ErrorKind::InvalidData, error)))
    }

    /// A JSON object.
    ///
    /// # Errors
    /// Those of [`Files::read_text`], and if the text is not a JSON object.
    pub fn read_json(&self, name: &str) -> Result<Map<String, Value>, LoadError> {
        serde_json::from_str(&self.read_text(name)?)
            .map_err(|error| LoadError::malformed(&self.path(name), format!("not a JSON object: {error}")))
    }

    fn bytes(&self, name: &str) -> Result<&[u8], LoadError> {
        let found = match &*self.source {
            Source::Disk(_) => None,
            Source::Memory(files) => files.get(&self.full(name)),
        };
        let missing = || LoadError::read(&self.path(name), Error::new(ErrorKind::NotFound, "the file is missing"));
        found.map(Vec::as_slice).ok_or_else(missing)
    }

    fn full(&self, name: &str) -> String {
        match (self.folder.as_str(), name) {
            ("", name) => name.to_owned(),
            (folder, "") => folder.to_owned(),
            (folder, name) => format!("{folder}/{name}"),
        }
    }
}
