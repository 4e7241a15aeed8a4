//! Where models are found: a folder by path, or one by name without any configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use compute::{Diffusion, Engine, ModelFolder};
use protocol::{JobRequest, JobSpec};

use crate::lane::EngineMaker;

/// Opens the model `name`: a path to a diffusers folder, or the name of a folder below a `models` folder.
pub fn open(name: &str) -> Result<ModelFolder, String> {
    let folder = find(name, &roots()).ok_or_else(|| {
        format!(
            "no model \"{name}\": it is neither a folder nor the name of one below a models folder; give --model DIR, or \
             set MANYHANDS_MODELS to the folder that holds it"
        )
    })?;
    ModelFolder::open(&folder).map_err(|error| error.to_string())
}

/// What loads the engine of a model with so many threads, when it is needed.
pub fn engine(folder: Arc<ModelFolder>, threads: usize) -> EngineMaker {
    Box::new(move || {
        let engine = Diffusion::load(&folder, threads).map_err(|error| error.to_string())?;
        Ok(Box::new(engine) as Box<dyn Engine>)
    })
}

/// Checks a request against a model, before anybody is asked to compute.
pub fn check(folder: &ModelFolder, request: JobRequest) -> Result<JobSpec, String> {
    let shape = folder.shape();
    let spec = JobSpec::new(request, folder.id(), &shape).map_err(|error| error.to_string())?;
    for (what, text) in [("prompt", &spec.prompt), ("negative prompt", &spec.negative)] {
        if let Some(excess) = folder.excess(text) {
            let tokens = shape.tokens;
            return Err(format!(
                "the {what} is longer than the {tokens} tokens this model reads; \"{excess}\" would be cut: shorten it"
            ));
        }
    }
    Ok(spec)
}

fn find(name: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Some(path.to_owned());
    }
    // A name is one plain folder name: it cannot climb out of the models folders.
    let plain = path.components().count() == 1 && path.file_name().is_some();
    plain.then(|| roots.iter().map(|root| root.join(name)).find(|folder| folder.is_dir())).flatten()
}

/// In order: `MANYHANDS_MODELS`, then `models` beside or above the current folder, then beside or above the program.
fn roots() -> Vec<PathBuf> {
    let given = std::env::var_os("MANYHANDS_MODELS").map(PathBuf::from);
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = |start: Option<PathBuf>| -> Vec<PathBuf> {
        start
            .iter()
            .flat_map(|start| start.ancestors().map(|folder| folder.join("models")).collect::<Vec<_>>())
            .collect()
    };
    given.into_iter().chain(above(here)).chain(above(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_name_below_the_first_root_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        std::fs::create_dir_all(second.join("tiny-model")).unwrap();
        let roots = [first, second.clone()];
        assert_eq!(find("tiny-model", &roots), Some(second.join("tiny-model")));
        assert_eq!(find("another", &roots), None);
        assert_eq!(find("../second/tiny-model", &roots), None);
        let path = second.join("tiny-model");
        assert_eq!(find(path.to_str().unwrap(), &[]), Some(path));
    }
}
