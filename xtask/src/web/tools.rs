//! The tools that wasm modules go through after the compiler: found, or installed into the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{cargo, step};

/// Binaryen of npm, whose `wasm-opt` makes modules smaller.
const BINARYEN: &str = "132.0.0";

/// `wasm-bindgen` of the version that a crate was compiled against.
pub struct Bindgen {
    /// Where it is.
    pub program: PathBuf,
    /// Which it is.
    pub version: String,
}

/// `wasm-opt`.
pub struct Optimiser {
    /// The script that Node.js runs.
    script: PathBuf,
    /// Of binaryen.
    pub version: &'static str,
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

/// Finds `wasm-opt`, or installs it; `None`, with a printed reason, where there is no npm.
pub fn optimiser(target_folder: &Path) -> Result<Option<Optimiser>> {
    let folder = tools(target_folder).join(format!("binaryen-{BINARYEN}"));
    let script = folder.join("node_modules").join("binaryen").join("bin").join("wasm-opt");
    let optimiser = Optimiser { script, version: BINARYEN };
    if optimiser.script.is_file() {
        return Ok(Some(optimiser));
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    if !Command::new(npm).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("== SKIPPED wasm-opt: npm is not installed; the modules are larger than they need to be");
        return Ok(None);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut install = Command::new(npm);
    install.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder);
    step(&format!("install binaryen {BINARYEN}"), install.arg(format!("binaryen@{BINARYEN}")))?;
    ensure!(optimiser.script.is_file(), "binaryen {BINARYEN} was installed and has no wasm-opt");
    Ok(Some(optimiser))
}

impl Optimiser {
    /// Replaces the module at `path` by a smaller one that does the same.
    pub fn shrink(&self, name: &str, path: &Path) -> Result<()> {
        let smaller = path.with_extension("small");
        let mut command = Command::new("node");
        command.arg(&self.script).arg(path).arg("-o").arg(&smaller).args(FLAGS);
        step(&format!("shrink the {name} module"), &mut command)?;
        std::fs::rename(&smaller, path).with_context(|| format!("replacing {}", path.display()))
    }
}

/// Smaller without losing speed; the features are those that every current browser has and our compiler uses.
const FLAGS: [&str; 8] = [
    "-Os",
    "--strip-debug",
    "--strip-producers",
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
];

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
