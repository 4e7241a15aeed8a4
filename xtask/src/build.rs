//! Builds the programs and finds them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The checkout's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout").to_owned()
}

/// What cargo tells the programs it runs about themselves.
const ABOUT_US: [&str; 6] =
    ["CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR"];

/// A cargo command in the checkout. It does not see what the cargo that runs us told us about ourselves: build scripts that
/// watch those variables would run again, and half the dependencies be compiled again, at every change of caller.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| ABOUT_US.iter().any(|start| name.starts_with(start))) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a step, showing what it is; an error if it fails.
pub fn step(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("== {name}");
    let status =
        command.status().with_context(|| format!("{name}: cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{name} failed; the lines above say where");
    Ok(())
}

/// The folder that cargo builds into, found from where this program lies.
pub fn target_folder() -> Result<PathBuf> {
    let profile = profile_folder()?;
    Ok(profile.parent().expect("a profile's folder lies in the target folder").to_owned())
}

fn profile_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the folder of the programs")?;
    let folder = own.parent().expect("a program lies in a folder");
    // Tests lie one folder deeper than programs.
    Ok(if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder") } else { folder }.to_owned())
}

/// The paths of `manyhands` and `manyhands-relay`.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The node.
    pub node: PathBuf,
    /// The relay.
    pub relay: PathBuf,
}

impl Programs {
    /// Builds the programs if anything changed; they land in this profile's folder of the target folder.
    pub fn build() -> Result<Self> {
        step("build", cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
        let folder = profile_folder()?;
        let program = |name: &str| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        Ok(Self { node: program("manyhands"), relay: program("manyhands-relay") })
    }

    /// A command that runs `manyhands`, which finds the checkout's models wherever it was built to.
    pub fn node(&self) -> Command {
        let mut command = Command::new(&self.node);
        if std::env::var_os("MANYHANDS_MODELS").is_none() {
            command.env("MANYHANDS_MODELS", root().join("models"));
        }
        command
    }
}
