//! `cargo xtask web`: both wasm modules, the page and the demo model, as one folder that any web server can serve.

pub mod cache;
pub mod folder;
mod model;
mod module;
mod tools;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::build::{Programs, root, target_folder};
use crate::target;

use cache::Cache;
use folder::{copy, squeeze, write_list};
use module::Module;

/// What browsers compile for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Environment variable by which `cargo xtask test` tells the tests that the page is built, and where.
pub const BUILT: &str = "MANYHANDS_TEST_PAGE";

/// The model that is served with the page.
const MODEL: &str = "demo";

/// How much care a build takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Built soon: no link-time optimisation of the page's module, quick compression.
    Dev,
    /// As small as it gets.
    Release,
}

/// Options of `cargo xtask web`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Build quickly, for work on the page.
    #[arg(long, conflicts_with = "release")]
    dev: bool,
    /// Build small; this is the default.
    #[arg(long)]
    release: bool,
    /// Where the folder goes [default: `web` in the target folder, where a relay of this checkout finds it].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Builds and says what came out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let quality = if arguments.dev { Quality::Dev } else { Quality::Release };
    let programs = Programs::build()?;
    let out = build(&programs, quality, arguments.out.as_deref())?;
    print!("{}", folder::sizes(&out)?);
    println!("{}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the folder and returns where it is. What has not changed since the last time is taken from a cache.
pub fn build(programs: &Programs, quality: Quality, out: Option<&Path>) -> Result<PathBuf> {
    let began = Instant::now();
    ensure!(target::is_installed(TARGET)?, "the page needs Rust's target {TARGET}: rustup target add {TARGET}");
    let target_folder = target_folder()?;
    let out = out.map_or_else(|| target_folder.join("web"), Path::to_owned);
    let _turn = take_turn(&target_folder)?;
    let mut cache = Cache::open(&target_folder.join("web-cache").join(quality.word()))?;
    let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(beside).with_context(|| format!("making {}", beside.display()))?;
    let made = tempfile::Builder::new().prefix(".web-").tempdir_in(beside).context("making a folder for the page")?;

    let sources = root().join("wasm");
    copy(&sources.join("web"), made.path())?;
    for module in [Module::page(quality), Module::engine(quality)] {
        let bound = module.make(&target_folder, quality, &mut cache)?;
        copy(&bound, &made.path().join(module.name))?;
    }
    let worker = sources.join("engine").join("worker.js");
    std::fs::copy(&worker, made.path().join("engine").join("worker.js"))
        .with_context(|| format!("copying {}", worker.display()))?;
    model::copy(programs, MODEL, made.path())?;
    write_list(made.path())?;
    squeeze(made.path(), quality, &mut cache)?;
    put_in_place(made, &out)?;
    cache.forget_unused();
    eprintln!("== web folder in {:.1} s", began.elapsed().as_secs_f64());
    Ok(out)
}

/// Waits until no other process builds the page; the turn ends when the file is dropped.
fn take_turn(target_folder: &Path) -> Result<File> {
    let path = target_folder.join(".web-lock");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Moves the finished folder to where it is wanted, so that nobody sees half of it.
fn put_in_place(made: tempfile::TempDir, out: &Path) -> Result<()> {
    let made = made.keep();
    readable(&made)?;
    let failed = || format!("moving the page to {}", out.display());
    if out.exists() {
        ensure!(
            out.join(folder::LIST).is_file()
                || std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none()),
            "{} is neither empty nor a page; choose another folder with --out",
            out.display()
        );
        let old = made.with_extension("old");
        std::fs::rename(out, &old).with_context(failed)?;
        std::fs::rename(&made, out).with_context(failed)?;
        return std::fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()));
    }
    std::fs::rename(&made, out).with_context(failed)
}

/// Temporary folders are for their owner only; a page is for the web server too.
#[cfg(unix)]
fn readable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).context("making the page readable")
}

/// Folders are readable where they lie.
#[cfg(not(unix))]
fn readable(_folder: &Path) -> Result<()> {
    Ok(())
}

impl Quality {
    /// The quality in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    fn engine_profile(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// How hard brotli tries: from 0 to 11.
    fn brotli(self) -> u32 {
        match self {
            Self::Dev => 5,
            Self::Release => 11,
        }
    }
}
