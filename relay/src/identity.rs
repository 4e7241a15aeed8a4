//! The relay's identity: one key file, so that its peer id survives restarts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use libp2p::identity::Keypair;

const FILE: &str = "identity.key";

/// Reads the key from the data folder, or makes one and keeps it there. The folder is made if it is missing.
///
/// # Errors
/// When the folder cannot be written to, or when the file is there but holds no key: it is never overwritten, because
/// everyone who knows the relay knows it by this key.
pub(crate) fn load_or_create(folder: &Path) -> io::Result<Keypair> {
    fs::create_dir_all(folder)?;
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes).map_err(|_| {
            let reason = format!("{} holds no key; restore it, or move it away for a new identity", path.display());
            io::Error::new(io::ErrorKind::InvalidData, reason)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(folder, &path),
        Err(error) => Err(error),
    }
}

fn create(folder: &Path, path: &Path) -> io::Result<Keypair> {
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
    let draft = folder.join(format!("{FILE}.{}", std::process::id()));
    let written = write_private(&draft, &bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The draft may not exist; the error that counts is the one before.
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()?;
    Ok(keypair)
}

/// Writes a file that only its owner can read, and makes sure that it is on the disk.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_survives_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("deep").join("data");
        let first = load_or_create(&data).unwrap();
        assert_eq!(load_or_create(&data).unwrap().public(), first.public());
        let files: Vec<_> = fs::read_dir(&data).unwrap().collect();
        assert_eq!(files.len(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(data.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_broken_key_is_kept_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"not a key").unwrap();
        let error = load_or_create(folder.path()).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), b"not a key");
    }
}
