//! Files that are whole or absent: written beside their place, synced, then moved there.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A place for a file that will be written later, probed now so that a wrong path costs no painting.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    part: PathBuf,
    reserved: bool,
}

impl Place {
    /// Checks that a file can be created beside `path`.
    pub fn probe(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        let mut part = name.to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let place = Self { path: path.to_owned(), part: path.with_file_name(part), reserved: false };
        File::create(&place.part)?;
        std::fs::remove_file(&place.part)?;
        Ok(place)
    }

    /// Like [`Place::probe`], and an empty file takes the name at once: two runs cannot choose the same one.
    pub fn reserve(path: &Path) -> io::Result<Self> {
        File::create_new(path)?;
        let mut place = Self::probe(path)?;
        place.reserved = true;
        Ok(place)
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file. On any error nothing is left behind.
    pub fn write(mut self, content: &[u8]) -> io::Result<()> {
        let written = write_synced(&self.part, content).and_then(|()| std::fs::rename(&self.part, &self.path));
        match written {
            Ok(()) => self.reserved = false,
            Err(_) => drop(std::fs::remove_file(&self.part)),
        }
        written
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.reserved {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        Place::probe(&path).unwrap().write(b"first").unwrap();
        Place::probe(&path).unwrap().write(b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_reserved_name_is_free_again_if_nothing_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let place = Place::reserve(&path).unwrap();
        assert!(Place::reserve(&path).is_err());
        drop(place);
        Place::reserve(&path).unwrap().write(b"whole").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn an_impossible_place_is_found_before_anything_is_painted() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Place::probe(&folder.path().join("missing/a.png")).is_err());
        assert!(Place::probe(folder.path()).is_err());
    }
}
