//! Rust's standard library for other targets: from rustup, else built from Debian's package of its source.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{cargo, step};

/// The only target whose library can be built without more than its source; others bring a C library.
const BUILDABLE: &str = "wasm32-unknown-unknown";

/// Where Debian keeps the sources of recent compilers.
const SOURCES: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main\n";

/// Whether rustc has the standard library for `target`, after trying to get it if not.
pub fn is_installed(target: &str) -> Result<bool> {
    let library = PathBuf::from(rustc(&["--print", "target-libdir", "--target", target])?);
    if library.is_dir() {
        return Ok(true);
    }
    eprintln!("== installing {target}");
    // Whoever needs it looks again, and says what is skipped without it.
    let _ = Command::new("rustup").args(["target", "add", target]).status();
    if !library.is_dir() && target == BUILDABLE {
        eprintln!("== rustup cannot install {target}; building it");
        if let Err(error) = build(target, &library) {
            eprintln!("== {target} cannot be built: {error:#}");
        }
    }
    Ok(library.is_dir())
}

/// Builds the library with the compiler at hand and puts it where that compiler looks.
fn build(target: &str, library: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library");
    if !source.join("Cargo.lock").is_file() {
        let package = folder.path().join("package");
        fs::create_dir(&package)?;
        copy_tree(&fetch_source(&package)?, &source)?;
    }
    let empty = folder.path().join("empty");
    fs::create_dir_all(empty.join("src"))?;
    fs::write(empty.join("Cargo.toml"), "[package]\nname = \"empty\"\nedition = \"2024\"\n[workspace]\n")?;
    fs::write(empty.join("src/lib.rs"), "//! Needs the standard library, nothing else.\n")?;
    let mut build = cargo();
    // `-Z` is for nightly compilers, unless one is told to be its own bootstrap.
    build.current_dir(&empty).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", empty.join("target"));
    build.args(["build", "--quiet", "--release", "-Z", "build-std=std,panic_abort,proc_macro", "--target", target]);
    step(&format!("build the standard library for {target}"), &mut build)?;
    // Beside its place first: a folder that is there counts as installed.
    let unfinished = library.with_extension("new");
    fs::create_dir_all(&unfinished)?;
    for entry in fs::read_dir(empty.join("target").join(target).join("release/deps"))? {
        let path = entry?.path();
        let name = path.file_name().expect("a listed file has a name").to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libempty-") {
            fs::copy(&path, unfinished.join(name))?;
        }
    }
    fs::rename(&unfinished, library).context("putting the library in its place")
}

/// Fetches Debian's `rust-src` of exactly rustc's version; returns the folder `library` in it.
fn fetch_source(folder: &Path) -> Result<PathBuf> {
    let said = rustc(&["--version"])?;
    let version = said.split(' ').nth(1).context("rustc does not tell its version")?;
    for state in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(state))?;
    }
    fs::write(folder.join("sources.list"), SOURCES)?;
    // Nothing of the system's own sources and lists is read or changed.
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(folder).args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]);
        for (option, place) in [("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache")] {
            let mut value = OsString::from(format!("Dir::{option}="));
            value.push(folder.join(place));
            command.arg("-o").arg(value);
        }
        command
    };
    step("ask Debian for Rust's source", apt("apt-get").args(["--quiet=2", "update"]))?;
    let found = apt("apt-cache").args(["madison", "rust-src"]).output().context("starting apt-cache")?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let package = found.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let package = package.into_iter().find(|offered| offered.starts_with(&format!("{version}+")));
    let package = package.with_context(|| format!("Debian has no rust-src {version}"))?;
    let download = format!("rust-src={package}");
    step("fetch Rust's source", apt("apt-get").args(["--quiet=2", "download", &download]))?;
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "deb"));
    let file = file.context("apt downloaded nothing")?;
    step("unpack Rust's source", Command::new("dpkg-deb").arg("--extract").arg(file).arg(folder.join("unpacked")))?;
    let library = folder.join(format!("unpacked/usr/src/rustc-{version}/library"));
    ensure!(library.join("Cargo.lock").is_file(), "the package has no {}", library.display());
    Ok(library)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc").args(arguments).output().context("starting rustc")?;
    ensure!(output.status.success(), "rustc {} failed", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
