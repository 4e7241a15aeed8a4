//! Results kept by what they were made from, so that nothing is made twice and nothing stale is taken.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A folder of results.
pub struct Cache {
    folder: PathBuf,
    used: HashSet<OsString>,
}

impl Cache {
    /// Opens the cache at `folder`, which is made if it is not there.
    pub fn open(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), used: HashSet::new() })
    }

    /// The result for these inputs, if there is one.
    pub fn find(&mut self, inputs: &[&[u8]]) -> Option<PathBuf> {
        let name = name_of(inputs);
        let result = self.folder.join(&name);
        result.exists().then(|| {
            self.used.insert(name);
            result
        })
    }

    /// The result that `make` once put at the path it is given, or puts there: a file or a folder.
    ///
    /// `inputs` are all that the result depends on.
    pub fn take(&mut self, inputs: &[&[u8]], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = name_of(inputs);
        let result = self.folder.join(&name);
        if !result.exists() {
            let unfinished = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.folder)?;
            let made = unfinished.path().join("result");
            make(&made)?;
            std::fs::rename(&made, &result).with_context(|| format!("keeping {}", result.display()))?;
        }
        self.used.insert(name);
        Ok(result)
    }

    /// Removes what this run did not take.
    pub fn forget_unused(self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !self.used.contains(&entry.file_name()) {
                // What cannot be removed only takes room.
                let path = entry.path();
                let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
    }
}

fn name_of(inputs: &[&[u8]]) -> OsString {
    let mut hash = Sha256::new();
    for input in inputs {
        // With their lengths, so that no two lists of inputs read the same.
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    hexadecimal(&hash.finalize()).into()
}

/// Bytes in lower-case hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_made_once_for_each_input_and_forgotten_when_unused() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = 0;
        let mut take = |cache: &mut Cache, inputs: &[&[u8]]| {
            let make = |path: &Path| {
                made += 1;
                Ok(std::fs::write(path, inputs.concat())?)
            };
            (cache.take(inputs, make).unwrap(), made)
        };
        let mut cache = Cache::open(folder.path()).unwrap();
        let (first, _) = take(&mut cache, &[b"ab", b"c"]);
        assert_eq!(take(&mut cache, &[b"ab", b"c"]), (first.clone(), 1));
        let (second, count) = take(&mut cache, &[b"a", b"bc"]);
        assert_eq!(count, 2, "other inputs are another result");
        cache.forget_unused();
        let mut cache = Cache::open(folder.path()).unwrap();
        assert_eq!(take(&mut cache, &[b"a", b"bc"]), (second.clone(), 2));
        cache.forget_unused();
        assert!(second.exists() && !first.exists());
    }

    #[test]
    fn a_result_whose_making_failed_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path()).unwrap();
        let failing = |path: &Path| {
            std::fs::write(path, "half")?;
            anyhow::bail!("the disk is full")
        };
        assert!(cache.take(&[b"a"], failing).is_err());
        let whole = cache.take(&[b"a"], |path| Ok(std::fs::write(path, "whole")?)).unwrap();
        assert_eq!(std::fs::read(whole).unwrap(), b"whole");
    }
}
