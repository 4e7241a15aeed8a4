//! Where pictures and reports go: places that are found before anything is painted, and filled as pictures are finished.

use std::path::{Path, PathBuf};
use std::time::Instant;

use node::files::Place;
use node::report::{Job, Kept, PlanReport, Report, Resumed};
use node::{Painted, picture};
use serde_json::json;

use crate::cli::Complaint;
use crate::cli::screen::{Screen, plain};

/// The places of one command's pictures.
pub struct Gallery {
    /// The model's name.
    pub model: String,
    /// When the command began.
    pub began: Instant,
    /// Where the painting went on, if it did.
    pub resumed: Option<Resumed>,
    count: usize,
    frames: Vec<Frame>,
}

/// The places of one picture.
struct Frame {
    seed: u64,
    out: Place,
    report: Option<Place>,
}

impl Gallery {
    /// Finds places for `count` pictures, of this seed and the following ones. Several are numbered: FILE-1.png, FILE-2.png.
    pub fn open(
        model: &str,
        out: Option<&Path>,
        report: Option<&Path>,
        (seed, count): (u64, u32),
        began: Instant,
    ) -> Result<Self, Complaint> {
        let frame = |index: u32| {
            let seed = seed.wrapping_add(u64::from(index));
            let place = |path: &Path| probe(&if count == 1 { path.to_owned() } else { numbered(path, index + 1) });
            let out = out.map_or_else(|| fresh_name(seed), place)?;
            Ok(Frame { seed, out, report: report.map(place).transpose()? })
        };
        let frames: Vec<Frame> = (0..count).map(frame).collect::<Result<_, Complaint>>()?;
        Ok(Self { model: model.to_owned(), began, resumed: None, count: frames.len(), frames })
    }

    /// Writes a finished picture and its report, and tells who painted it.
    pub fn hang(&mut self, painted: Painted, kept: Option<Kept>, screen: &Screen) -> Result<(), Complaint> {
        let spec = &painted.spec;
        let place = self.frames.iter().position(|frame| frame.seed == spec.seed);
        let Frame { out, report, .. } = self.frames.remove(place.ok_or("a picture came that was not asked for")?);
        let png = picture::encode(&painted.pixels, spec.size, spec, &self.model)?;
        let path = out.path().to_owned();
        write(out, &png)?;
        if let Some(place) = report {
            let report = Report {
                version: env!("CARGO_PKG_VERSION"),
                job: Job::new(spec, &self.model),
                plan: PlanReport::new(&painted.plan),
                workers: painted.workers.clone(),
                condemned: painted.condemned.clone(),
                retries: painted.retries,
                wall_ms: painted.wall_ms,
                resumed: self.resumed,
                kept,
                latent_sha256: painted.latent_sha256.clone(),
                pixels_sha256: painted.pixels_sha256.clone(),
            };
            write(place, serde_json::to_string_pretty(&report)?.as_bytes())?;
        }
        for worker in &painted.workers {
            let name = if worker.local { "this machine".to_owned() } else { plain(&worker.name) };
            let text = format!("{name} ({}): {} units in {} ms", worker.path, worker.units, worker.compute_ms);
            screen.say("worker", &text);
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let text = format!("{} painted in {seconds:.1} s (seed {})", path.display(), spec.seed);
        screen.tell("done", &text, json!({ "out": path, "pixels_sha256": painted.pixels_sha256 }));
        Ok(())
    }

    /// Whether some place is filled already.
    pub fn is_begun(&self) -> bool {
        self.frames.len() < self.count
    }

    /// Whether the next picture is the last.
    pub fn is_last(&self) -> bool {
        self.frames.len() == 1
    }

    /// Whether every place is filled.
    pub fn is_full(&self) -> bool {
        self.frames.is_empty()
    }
}

/// `FILE-N.ending` for `FILE.ending`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{number}{ending}"))
}

fn probe(path: &Path) -> Result<Place, Complaint> {
    Place::probe(path).map_err(|error| Complaint(format!("cannot write {}: {error}", path.display())))
}

fn write(place: Place, content: &[u8]) -> Result<(), Complaint> {
    let path = place.path().to_owned();
    place.write(content).map_err(|error| {
        Complaint(format!(
            "cannot write {}: {error}; free space or choose another place, and paint again",
            path.display()
        ))
    })
}

/// `manyhands-SEED.png`, or the first `manyhands-SEED-N.png` that is free.
fn fresh_name(seed: u64) -> Result<Place, Complaint> {
    for attempt in 1..1000 {
        let suffix = if attempt == 1 { String::new() } else { format!("-{attempt}") };
        let path = PathBuf::from(format!("manyhands-{seed}{suffix}.png"));
        match Place::reserve(&path) {
            Ok(place) => return Ok(place),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Complaint(format!("cannot write {}: {error}", path.display()))),
        }
    }
    Err(Complaint("there are a thousand pictures of this seed here; give --out".into()))
}
