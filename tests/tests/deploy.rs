//! What `deploy` holds fits the programs: their flags and variables are there, the files it names too.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::programs::{node, relay_command};
use tests::tidy::{read, root};

/// The files of `deploy` in which programs are started or told something.
fn files() -> Vec<PathBuf> {
    let names = [
        "README.md",
        "compose.yaml",
        ".env.example",
        "relay.example.toml",
        "relay/Dockerfile",
        "runpod/Dockerfile",
        "runpod/README.md",
        "runpod/start.sh",
    ];
    names.map(|name| root().join("deploy").join(name)).to_vec()
}

/// What a program says of itself.
fn help(command: &mut std::process::Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of a text that begin so, up to what cannot be part of a name.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.split(|c: char| !is_part(c)).filter(|word| word.starts_with(start) && word.len() > start.len()).collect()
}

#[test]
fn every_variable_is_read_by_a_program_or_by_the_start_script() {
    let script = read(&root().join("deploy/runpod/start.sh"));
    let known = [help(&mut node(), &[]), help(&mut node(), &["serve"]), help(&mut relay_command(), &[])].concat();
    let mut seen = BTreeSet::new();
    for path in files() {
        let text = read(&path);
        for name in words(&text, "MANYHANDS_") {
            let is_read = known.contains(&format!("env: {name}")) || script.contains(&format!("${{{name}:-"));
            assert!(is_read || known.contains(&format!("{name} names")), "{}: nobody reads {name}", path.display());
            seen.insert(name.to_owned());
        }
    }
    assert!(seen.len() >= 8, "only {seen:?}; is the parser still right?");
}

#[test]
fn every_flag_of_the_start_script_is_one_of_serve() {
    let serve = help(&mut node(), &["serve"]);
    let known = words(&serve, "--");
    let script = read(&root().join("deploy/runpod/start.sh"));
    let used: BTreeSet<_> =
        script.lines().filter(|line| !line.starts_with('#')).flat_map(|line| words(line, "--")).collect();
    assert!(used.len() >= 4, "{used:?}");
    assert!(used.iter().all(|flag| known.contains(flag)), "{used:?} of {known:?}");
}

#[test]
#[cfg(unix)]
fn the_start_script_is_a_script_that_runs_anywhere() {
    use std::os::unix::fs::PermissionsExt;
    let path = root().join("deploy/runpod/start.sh");
    assert!(std::process::Command::new("sh").arg("-n").arg(&path).status().unwrap().success());
    assert_ne!(path.metadata().unwrap().permissions().mode() & 0o111, 0, "it can be run");
}

#[test]
fn images_are_built_of_what_is_there_by_the_compiler_that_the_workspace_asks_for() {
    let manifest = read(&root().join("Cargo.toml"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    for (name, program, package) in [("relay", "manyhands-relay", "relay"), ("runpod", "manyhands", "node")] {
        let file = read(&root().join("deploy").join(name).join("Dockerfile"));
        assert!(file.contains(&format!("FROM rust:{version}-")), "{name}: not built by Rust {version}");
        assert!(file.contains(&format!("--package {package} --bin {program} ")), "{name}");
        assert!(root().join(package).join("Cargo.toml").is_file());
        let copied = file.lines().filter(|line| line.starts_with("COPY") && !line.contains("--from="));
        for line in copied {
            let source = line.split_whitespace().skip(1).find(|word| !word.starts_with("--")).unwrap();
            assert!(root().join(source).exists(), "{name}: there is no {source}");
        }
        let ignore = read(&root().join("deploy").join(name).join("Dockerfile.dockerignore"));
        assert!(ignore.lines().any(|line| line == "**/target"), "{name}: builds are not sent along");
    }
}

#[test]
fn compose_names_files_services_and_volumes_that_are_there() {
    let text = read(&root().join("deploy/compose.yaml"));
    assert!(!text.contains('\t'), "YAML takes no tabs");
    for file in text.lines().filter_map(|line| line.split_once("dockerfile: ")) {
        let file = file.1.trim_end_matches([' ', '}']);
        assert!(root().join(file).is_file(), "there is no {file}");
    }
    let top = |name: &str| -> Vec<&str> {
        let lines = text.lines().skip_while(|line| *line != format!("{name}:")).skip(1);
        let inside = lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
        inside
            .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
            .filter(|name| !name.starts_with(' '))
            .collect()
    };
    assert_eq!(top("services"), ["relay", "postgres", "store", "bucket", "worker"]);
    for volume in top("volumes") {
        assert!(text.contains(&format!("- {volume}:/")), "nobody uses the volume {volume}");
    }
    // What .env.example leaves empty is asked for or has a default where it is used.
    let example = read(&root().join("deploy/.env.example"));
    for used in text.split("${").skip(1) {
        let name = used.split([':', '}']).next().unwrap();
        assert!(example.contains(&format!("\n{name}=")), "{name} is not in .env.example");
    }
}

#[test]
fn the_example_of_the_relays_settings_is_one() {
    let example = root().join("deploy/relay.example.toml");
    let whole = read(&example).replace("\n# [", "\n[").replace("\n#\n", "\n\n");
    let uncommented: String = whole
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ") && !rest.contains("`")).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let folder = tempfile::tempdir().unwrap();
    let all = folder.path().join("all.toml");
    std::fs::write(&all, &uncommented).unwrap();
    assert!(uncommented.contains("\n[[queue.endpoints]]\nname = "), "{uncommented}");
    for config in [example.as_path(), all.as_path()] {
        check(config);
    }
    // What the test above would not see otherwise.
    std::fs::write(&all, uncommented.replace("claims = true", "claim = true")).unwrap();
    let output = types(&all);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn check(config: &Path) {
    let output = types(config);
    assert!(output.status.success(), "{}: {}", config.display(), String::from_utf8_lossy(&output.stderr));
}

fn types(config: &Path) -> std::process::Output {
    relay_command().arg("job-types").arg("--config").arg(config).output().unwrap()
}
