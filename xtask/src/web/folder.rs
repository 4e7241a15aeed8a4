//! The page's folder: copying into it, the list of what is in it, and the compressed twins.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Quality;
use super::cache::{Cache, hexadecimal};

/// Names every file with its length and hash, and has a version that changes with any of them.
pub const LIST: &str = "files.json";

/// Smaller files fit one packet with their headers as they are.
const SQUEEZED_BYTES_MIN: usize = 1024;

/// Endings of files that brotli makes smaller. Weights are noise to it.
const SQUEEZED: [&str; 10] = ["css", "html", "js", "json", "md", "svg", "ts", "txt", "wasm", "webmanifest"];

/// A twin must save at least a twentieth, or it is not worth its decompression.
const SAVED_MIN: usize = 20;

/// Copies a folder's files into another, which is made if it is not there. Hidden files stay.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in files(from)? {
        let copy = to.join(&path);
        fs::create_dir_all(copy.parent().expect("a file lies in a folder"))?;
        fs::copy(from.join(&path), &copy).with_context(|| format!("copying {}", path.display()))?;
    }
    Ok(())
}

/// Writes the list of all that is in `folder`.
pub fn write_list(folder: &Path) -> Result<()> {
    let mut entries = Vec::new();
    let mut version = Sha256::new();
    for path in files(folder)? {
        let content = fs::read(folder.join(&path))?;
        let (name, hash) = (slashed(&path), sha256(&content));
        version.update(format!("{name} {} {hash}\n", content.len()));
        entries.push(json!({ "path": name, "bytes": content.len(), "sha256": hash }));
    }
    let list = json!({ "version": hexadecimal(&version.finalize()), "files": entries });
    fs::write(folder.join(LIST), serde_json::to_vec_pretty(&list)?).context("writing the page's list")
}

/// Puts a compressed twin beside every file that gains by it.
pub fn squeeze(folder: &Path, quality: Quality, cache: &mut Cache) -> Result<()> {
    let paths = files(folder)?.into_iter().map(|path| folder.join(path));
    let ending =
        |path: &Path| path.extension().and_then(|ending| ending.to_str()).is_some_and(|e| SQUEEZED.contains(&e));
    let mut jobs = Vec::new();
    for path in paths.filter(|path| ending(path)) {
        let content = fs::read(&path)?;
        if content.len() > SQUEEZED_BYTES_MIN {
            jobs.push((path, content));
        }
    }
    // The longest first, so that none is left for the end alone.
    jobs.sort_by_key(|(_, content)| content.len());
    let (jobs, cache, failed) = (Mutex::new(jobs), Mutex::new(cache), Mutex::new(None));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let held = "no thread panics while it holds this";
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((path, content)) = { jobs.lock().expect(held).pop() } {
                    if let Err(error) = squeeze_one(&path, &content, quality, &cache) {
                        *failed.lock().expect(held) = Some(error);
                    }
                }
            });
        }
    });
    failed.into_inner().expect(held).map_or(Ok(()), Err)
}

fn squeeze_one(path: &Path, content: &[u8], quality: Quality, cache: &Mutex<&mut Cache>) -> Result<()> {
    let held = "no thread panics while it holds this";
    let inputs: [&[u8]; 3] = [b"brotli", &quality.brotli().to_le_bytes(), content];
    let kept = cache.lock().expect(held).find(&inputs);
    let twin = match kept {
        Some(twin) => twin,
        None => {
            let squeezed = brotli(content, quality.brotli())?;
            cache.lock().expect(held).take(&inputs, |path| Ok(fs::write(path, squeezed)?))?
        }
    };
    if fs::metadata(&twin)?.len() as usize + content.len() / SAVED_MIN < content.len() {
        let mut name = path.as_os_str().to_owned();
        name.push(".br");
        fs::copy(&twin, &name).with_context(|| format!("writing {}", Path::new(&name).display()))?;
    }
    Ok(())
}

fn brotli(content: &[u8], quality: u32) -> Result<Vec<u8>> {
    let mut squeezed = Vec::new();
    let quality = i32::try_from(quality).expect("brotli's qualities end at 11");
    // The largest window that every browser takes: 16 MiB.
    let parameters =
        brotli::enc::BrotliEncoderParams { quality, lgwin: 24, size_hint: content.len(), ..Default::default() };
    brotli::BrotliCompress(&mut &*content, &mut squeezed, &parameters).context("compressing")?;
    Ok(squeezed)
}

/// A part of the page, and what it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// As it is.
    pub bytes: u64,
    /// As it travels.
    pub brotli_bytes: u64,
}

/// What each part of the page weighs.
pub fn parts(folder: &Path) -> Result<[Part; 3]> {
    let list: Value = serde_json::from_slice(&fs::read(folder.join(LIST))?).context("reading the page's list")?;
    let mut parts = ["page", "engine", "models"].map(|name| Part { name, bytes: 0, brotli_bytes: 0 });
    for file in list["files"].as_array().context("the page's list has no files")? {
        let path = file["path"].as_str().context("a listed file has no path")?;
        let bytes = file["bytes"].as_u64().context("a listed file has no length")?;
        let squeezed = fs::metadata(folder.join(format!("{path}.br"))).map_or(bytes, |twin| twin.len());
        let part = match path.split('/').next() {
            Some("engine") => 1,
            Some("models") => 2,
            _ => 0,
        };
        parts[part].bytes += bytes;
        parts[part].brotli_bytes += squeezed;
    }
    Ok(parts)
}

/// The same in words, one line each.
pub fn sizes(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for Part { name, bytes, brotli_bytes } in parts(folder)? {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        writeln!(text, "{name:7} {:8.3} MB, brotli {:7.3} MB", megabytes(bytes), megabytes(brotli_bytes))?;
    }
    Ok(text)
}

/// A hash in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The files below a folder, as paths from there, in order. Hidden ones are left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let read = || format!("reading {}", folder.join(&below).display());
        for entry in fs::read_dir(folder.join(&below)).with_context(read)? {
            let entry = entry.with_context(read)?;
            let path = below.join(entry.file_name());
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if entry.file_type()?.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_every_file_and_its_version_changes_with_any_of_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("page")).unwrap();
        fs::write(folder.path().join("index.html"), "<!doctype html>").unwrap();
        fs::write(folder.path().join("page/page.js"), "a").unwrap();
        let listed = || {
            let _ = fs::remove_file(folder.path().join(LIST));
            write_list(folder.path()).unwrap();
            serde_json::from_slice::<Value>(&fs::read(folder.path().join(LIST)).unwrap()).unwrap()
        };
        let first = listed();
        assert_eq!(first["files"][1]["path"], "page/page.js");
        assert_eq!(first["files"][1]["bytes"], 1);
        assert_eq!(first["files"][1]["sha256"], "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        assert_eq!(first, listed());
        fs::write(folder.path().join("page/page.js"), "b").unwrap();
        assert_ne!(first["version"], listed()["version"]);
    }

    #[test]
    fn twins_hold_the_same_and_only_where_they_save() {
        let folder = tempfile::tempdir().unwrap();
        let cached = tempfile::tempdir().unwrap();
        let script = "paint(); ".repeat(1000);
        fs::write(folder.path().join("a.js"), &script).unwrap();
        fs::write(folder.path().join("small.js"), "paint();").unwrap();
        fs::write(folder.path().join("weights.safetensors"), &script).unwrap();
        let mut cache = Cache::open(cached.path()).unwrap();
        squeeze(folder.path(), Quality::Release, &mut cache).unwrap();
        let twin = fs::read(folder.path().join("a.js.br")).unwrap();
        let mut back = Vec::new();
        brotli::BrotliDecompress(&mut twin.as_slice(), &mut back).unwrap();
        assert_eq!(back, script.as_bytes());
        assert!(twin.len() < 100, "{}", twin.len());
        assert_eq!(files(folder.path()).unwrap().len(), 4);
    }
}
