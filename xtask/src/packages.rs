//! Programs of the system: whether one is here, and how to get it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Package managers, and what each is told; the names of packages come last.
const MANAGERS: [&[&[&str]]; 4] = [
    &[&["apt-get", "update"], &["apt-get", "install", "--yes", "--no-install-recommends"]],
    &[&["dnf", "install", "--assumeyes"]],
    &[&["apk", "add"]],
    &[&["pacman", "--sync", "--refresh", "--noconfirm"]],
];

/// Has the system's package manager install these; returns whether it says that it did.
pub fn install(packages: &[&str]) -> bool {
    let manager = MANAGERS.iter().find(|commands| in_path(Path::new(commands[0][0])).is_some());
    let Some((install, before)) = manager.and_then(|commands| commands.split_last()) else { return false };
    // Whoever is not root may be allowed to become it, if that needs no password.
    let prefix: &[&str] = if is_root() { &[] } else { &["sudo", "--non-interactive"] };
    let install = [*install, packages].concat();
    before.iter().copied().chain([install.as_slice()]).all(|command| {
        let words = [prefix, command].concat();
        let status = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    })
}

/// Has what the tests on a rough network need installed, where they can run at all: they are for root on Linux.
pub fn install_for_rough_network() {
    let missing = ["ip", "socat"].iter().any(|program| in_path(Path::new(program)).is_none());
    if cfg!(target_os = "linux") && is_root() && missing {
        eprintln!("== installing iproute2 and socat");
        if !install(&["iproute2", "socat"]) {
            eprintln!("== they cannot be installed; tests that need them say what they skip");
        }
    }
}

/// Has what the tests of the queue need installed: a Postgres server, and what the clients and workers of others run on.
pub fn install_for_queue() {
    const NEEDED: [(&str, &[&str]); 6] = [
        ("python3", &["python3", "python3-venv"]),
        ("node", &["nodejs"]),
        ("npm", &["npm"]),
        ("psql", &["postgresql"]),
        ("curl", &["curl"]),
        ("jq", &["jq"]),
    ];
    let missing = NEEDED.iter().filter(|(program, _)| in_path(Path::new(program)).is_none());
    let packages: Vec<&str> = missing.flat_map(|(_, packages)| packages.iter().copied()).collect();
    if packages.is_empty() {
        return;
    }
    eprintln!("== installing {}", packages.join(" "));
    if install(&packages) {
        return;
    }
    // One by one: what one system calls otherwise keeps no other from being installed.
    let missed: Vec<&str> = packages.into_iter().filter(|package| !install(&[package])).collect();
    if !missed.is_empty() {
        eprintln!("== {} cannot be installed; tests that need them say what they skip", missed.join(", "));
    }
}

/// The path of a program, looked up in PATH unless it is a path already.
pub fn in_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Whether we are root.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
