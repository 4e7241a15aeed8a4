//! Checkpoints: a painting kept in a file while it is painted, so that its requester may be killed and go on.
//!
//! The file is a [`Snapshot`]'s bytes, always whole, then a little-endian u32: the steps known to be taken, which may be
//! more. The process that paints it holds a lock on it, so that no other goes on with it at the same time.

mod rhythm;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use protocol::limits::SNAPSHOT_BYTES_MAX;
use sampler::Snapshot;

use crate::report::Kept;

/// Bytes of the counter behind the snapshot.
const COUNTER_BYTES: usize = 4;

/// Abandoned checkpoints that are kept; each is some MiB at most, and holds a prompt.
const ABANDONED_MAX: usize = 8;

/// The ending of a checkpoint's file name.
const ENDING: &str = "checkpoint";

/// Keeps one painting.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    /// The file as it was written last, locked.
    file: Option<File>,
    /// Steps that were taken when it was written.
    kept: Option<u32>,
    /// When the first step began, and which it was.
    began: Option<(Instant, u32)>,
    account: Kept,
}

/// A checkpoint that a painting can go on from.
#[derive(Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The painting.
    pub snapshot: Snapshot,
    /// Steps that were taken before the painting ended; those after the snapshot's are taken again.
    pub steps_taken: u32,
    /// Holds the lock.
    file: File,
}

impl Found {
    /// Steps that are taken again.
    pub fn steps_again(&self) -> u32 {
        self.steps_taken - self.snapshot.steps_done().unwrap_or(0)
    }
}

impl Keeper {
    /// Keeps a painting in `path`, which is written as soon as there is something to keep.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, kept: None, began: None, account: Kept::default() }
    }

    /// Keeps a new painting under a name of its own in the user's folder of such files; `None` where there is no such
    /// folder.
    pub fn in_folder(seed: u64) -> Option<Self> {
        let folder = folder()?;
        std::fs::create_dir_all(&folder).ok()?;
        make_room(&folder);
        Some(Self::new(folder.join(format!("{seed}-{:08x}.{ENDING}", rand::random::<u32>()))))
    }

    /// Keeps on keeping a painting where it was found.
    pub fn of(found: Found) -> Self {
        let kept = found.snapshot.steps_done();
        Self { file: Some(found.file), kept, ..Self::new(found.path) }
    }

    /// Hears of every stage's beginning, and writes a checkpoint when one is due. An error costs a checkpoint, not the
    /// painting.
    pub fn note(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let Some(done) = snapshot.steps_done() else {
            // The painting begins anew, with another reading of its prompt or in another layout: what was kept is not of it.
            self.forget();
            (self.kept, self.began) = (None, None);
            return Ok(());
        };
        let (began, first) = *self.began.get_or_insert_with(|| (Instant::now(), done));
        // What was kept may have to be taken back: then it goes at once.
        if let Some(kept) = self.kept.filter(|kept| *kept <= done) {
            let step = began.elapsed() / done.saturating_sub(first).max(1);
            let cost = Duration::from_secs_f64(self.account.cost_ms / 1000.0);
            self.account.every_steps = rhythm::every_steps(cost, step, snapshot.spec().steps);
            if done < kept + self.account.every_steps {
                return self.count(done);
            }
        }
        let writing = Instant::now();
        self.file = Some(write(&self.path, snapshot, done)?);
        self.account.cost_ms = writing.elapsed().as_secs_f64() * 1000.0;
        self.account.written += 1;
        self.kept = Some(done);
        Ok(())
    }

    /// Removes the file: the picture is finished, or nothing of it is worth keeping.
    pub fn remove(mut self) {
        self.forget();
    }

    fn forget(&mut self) {
        if self.file.take().is_some() {
            drop(std::fs::remove_file(&self.path));
            drop(std::fs::remove_file(part_of(&self.path)));
        }
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Steps that are kept, if any.
    pub fn kept(&self) -> Option<u32> {
        self.kept
    }

    /// What it came to.
    pub fn account(&self) -> Kept {
        self.account
    }

    /// Writes the number of steps taken into the file that stands. It needs not survive more than this process's end.
    fn count(&mut self, done: u32) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.seek(SeekFrom::End(-(COUNTER_BYTES as i64)))?;
        file.write_all(&done.to_le_bytes())
    }
}

/// Reads the checkpoint at `path`, or says in words why it cannot be used.
pub fn open(path: &Path) -> Result<Found, String> {
    let unread = |error: io::Error| format!("the checkpoint {} cannot be read: {error}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(unread)?;
    if file.try_lock().is_err() {
        return Err(format!("the picture of {} is being painted by another process", path.display()));
    }
    let refused = |why: String| format!("{}: {why}; paint the picture anew", path.display());
    if file.metadata().map_err(unread)?.len() > (SNAPSHOT_BYTES_MAX + COUNTER_BYTES) as u64 {
        return Err(refused("it is longer than any checkpoint".into()));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unread)?;
    let counter = bytes.split_off(bytes.len().saturating_sub(COUNTER_BYTES));
    let snapshot = Snapshot::decode(&bytes).map_err(|error| refused(error.to_string()))?;
    let counted = counter.try_into().map_or(0, u32::from_le_bytes);
    // The counter has no hash: it is believed as far as it can be true.
    let steps_taken = counted.min(snapshot.spec().steps).max(snapshot.steps_done().unwrap_or(0));
    Ok(Found { path: path.to_owned(), snapshot, steps_taken, file })
}

/// Reads the newest checkpoint in the user's folder that no process is painting.
pub fn newest() -> Result<Found, String> {
    let nothing = "there is no picture to go on with";
    let folder =
        folder().ok_or_else(|| format!("{nothing}: no folder for checkpoints is known; give --resume FILE"))?;
    let all = abandoned(&folder);
    let newest = all.last().ok_or_else(|| format!("{nothing} in {}", folder.display()))?;
    open(newest)
}

/// `MANYHANDS_STATE`, or the folder where this system keeps what programs remember of a user's work.
fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(given) = variable("MANYHANDS_STATE") {
        return Some(given);
    }
    let state = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")))
    };
    Some(state?.join("manyhands"))
}

/// Removes the oldest abandoned checkpoints.
fn make_room(folder: &Path) {
    let all = abandoned(folder);
    for path in &all[..(all.len() + 1).saturating_sub(ABANDONED_MAX)] {
        drop(std::fs::remove_file(path));
    }
}

/// Checkpoints that no process is painting, the oldest first.
fn abandoned(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
        .filter(|path| File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok()))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Where the file is written first: what a killed process left there is overwritten by who goes on.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// Writes the file beside its place, locks it, and moves it there; nobody but its owner can read it.
fn write(path: &Path, snapshot: &Snapshot, done: u32) -> io::Result<File> {
    let part = part_of(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    let written = file
        .write_all(&snapshot.encode())
        .and_then(|()| file.write_all(&done.to_le_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| file.lock())
        .and_then(|()| std::fs::rename(&part, path));
    if let Err(error) = written {
        drop(std::fs::remove_file(&part));
        return Err(error);
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
