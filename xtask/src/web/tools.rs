//! The tool that wasm modules go through after the compiler: found, or installed into the target folder.
//!
//! `wasm-opt` is none of them. Binaryen 132 with -Os, -Oz and -O2 made the modules a tenth shorter, but what travels longer:
//! the page's from 740 to 795 kB of brotli, the engine's from 2.12 to 2.28 MB; and it took four minutes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{cargo, step};

/// `wasm-bindgen` of the version that a crate was compiled against.
pub struct Bindgen {
    /// Where it is.
    pub program: PathBuf,
    /// Which it is.
    pub version: String,
}

/// Finds `wasm-bindgen` of the version in this lock file, or installs it.
pub fn bindgen(lock: &Path, target_folder: &Path) -> Result<Bindgen> {
    let text = std::fs::read_to_string(lock).with_context(|| format!("reading {}", lock.display()))?;
    let version = locked(&text, "wasm-bindgen")
        .with_context(|| format!("{} does not name wasm-bindgen", lock.display()))?
        .to_owned();
    let folder = tools(target_folder).join(format!("wasm-bindgen-{version}"));
    let installed = folder.join("bin").join(format!("wasm-bindgen{}", std::env::consts::EXE_SUFFIX));
    let says = |program: &Path| {
        let output = Command::new(program).arg("--version").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let is_it = |program: &Path| says(program).is_some_and(|said| said == format!("wasm-bindgen {version}"));
    let found = [installed.clone(), PathBuf::from("wasm-bindgen")].into_iter().find(|program| is_it(program));
    if let Some(program) = found {
        return Ok(Bindgen { program, version });
    }
    let mut install = cargo();
    // Built for speed of building: it runs for seconds. Both versions share what they have in common.
    install.env("CARGO_TARGET_DIR", tools(target_folder).join("build"));
    install.args(["install", "wasm-bindgen-cli", "--quiet", "--debug", "--version", &format!("={version}"), "--root"]);
    step(&format!("install wasm-bindgen {version}"), install.arg(&folder))?;
    ensure!(is_it(&installed), "wasm-bindgen {version} was installed and does not run");
    Ok(Bindgen { program: installed, version })
}

fn tools(target_folder: &Path) -> PathBuf {
    target_folder.join("tools")
}

/// The version of a package in a lock file's text.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_tells_a_package_s_version() {
        let lock = "[[package]]\nname = \"wasm-bindgen-macro\"\nversion = \"9.9.9\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.108\"\n";
        assert_eq!(locked(lock, "wasm-bindgen"), Some("0.2.108"));
        assert_eq!(locked(lock, "wasm"), None);
    }
}
