//! Says a plan in plain words.

use std::fmt::Write;

use protocol::{PeerId, PlanKind};

use super::{Plan, Rejected, StageKind, StagePlan};

/// Peers that are named one by one; of more, only the number is told.
const NAMED_MAX: usize = 4;

impl Plan {
    /// Units of all stages of all pictures.
    pub fn units(&self) -> usize {
        self.images as usize * self.stages.iter().map(|stage| stage.times * stage.units).sum::<usize>()
    }

    /// Bytes of tensors to and from workers, if nothing has to be done twice.
    pub fn bytes(&self) -> usize {
        let tensors: usize = self.stages.iter().map(|stage| stage.times * stage.units * stage.unit_bytes).sum();
        let steps = self.stages.iter().filter(|stage| matches!(stage.kind, StageKind::Denoise | StageKind::Run));
        // What the encoding stage gives is what every denoising worker is sent once.
        let denoisers = steps.map(|stage| stage.peers.len()).max().unwrap_or(0);
        let encode = self.stages.iter().find(|stage| stage.kind == StageKind::Encode);
        let conditioning = encode.map_or(0, |stage| stage.unit_bytes);
        self.images as usize * (tensors + denoisers * conditioning)
    }

    /// Cost of all units, as [`protocol::Work::cost`] counts it.
    pub fn cost(&self) -> u64 {
        let one: u64 = self.stages.iter().map(|stage| (stage.times * stage.units) as u64 * stage.unit_cost).sum();
        u64::from(self.images) * one
    }

    /// How long it is expected to take, in words, if that is known rather than guessed.
    pub fn expected(&self) -> Option<String> {
        self.eta_s.filter(|_| self.is_measured).map(duration)
    }

    /// The plan in plain words, one fact a line. Peers are called by the ends of their ids, never by the names they gave
    /// themselves.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let mut line = |fact: String| writeln!(text, "{fact}").expect("writing to a string cannot fail");
        line(format!("Plan: {}, because {}.", self.split(), self.reason));
        line(format!("Workers: {}.", self.who()));
        if !self.left_out.is_empty() {
            line(format!("Left out: {}, who would not make it faster.", listed(&self.left_out)));
        }
        line(format!("Time: {}.", self.time()));
        let each = if self.images > 1 { format!(" for each of {} pictures", self.images) } else { String::new() };
        line(format!(
            "Units: {}{each}; {} in all, about {} over the network.",
            self.what(),
            self.units(),
            size(self.bytes())
        ));
        line(format!("Exactness: {} to the same plan on one machine of the same numeric class,", self.exactness));
        line(format!("  and {} to the same job without tiles.", self.untiled));
        if self.numeric_classes > 1 {
            line(format!(
                "  These workers are of {} numeric classes: last bits may differ between them.",
                self.numeric_classes
            ));
        }
        for Rejected { kind, eta_s, why } in &self.rejected {
            let eta = eta_s.map_or(String::new(), |seconds| format!(" ({})", duration(seconds)));
            line(format!("Not chosen: {}{eta}, because {why}.", name(*kind)));
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn split(&self) -> String {
        let tiles = self.cut.tiles_max();
        // Where tiles move, steps have different numbers of them.
        let most = if self.cut.tiles.iter().all(|count| *count == tiles) { "" } else { "at most " };
        match self.kind {
            PlanKind::Whole => "one unit paints the whole picture".into(),
            PlanKind::Runs { steps } => {
                format!("each unit takes {} of the whole canvas", count(steps as usize, "step"))
            }
            PlanKind::Cfg => "each step is two units, one for each guidance branch of the whole canvas".into(),
            PlanKind::Tiles if tiles == 1 => "each step is one unit, the whole canvas".into(),
            PlanKind::Tiles => format!("each step is {most}{}, one for each tile", count(tiles, "unit")),
            PlanKind::CfgTiles => format!(
                "each step is {most}{}, one for each guidance branch of {}",
                count(2 * tiles, "unit"),
                count(tiles, "tile")
            ),
        }
    }

    fn who(&self) -> String {
        let lend = self.workers.len() + self.left_out.len();
        if lend == 0 {
            return "nobody lends this model yet; the job waits until somebody does".into();
        }
        let lend = format!("{lend} lend{} this model", if lend == 1 { "s" } else { "" });
        // Stages alike in who does them are told once, in order.
        let mut told: Vec<(&'static str, &[PeerId])> = Vec::new();
        for stage in &self.stages {
            let does = match stage.kind {
                StageKind::Encode => "the prompt",
                StageKind::Denoise | StageKind::Run => "the steps",
                StageKind::Decode => "the pixels",
                StageKind::Paint => "everything",
            };
            match told.last_mut() {
                Some((last, peers)) if *last == does => {
                    if stage.peers.len() > peers.len() {
                        *peers = &stage.peers;
                    }
                }
                _ => told.push((does, &stage.peers)),
            }
        }
        let is_same = told.iter().all(|(_, peers)| *peers == told[0].1);
        if is_same && !self.workers.is_empty() {
            return format!("{lend}; {} for everything", listed(&self.workers));
        }
        let told: Vec<_> = told.iter().map(|(does, peers)| format!("{} for {does}", listed(peers))).collect();
        format!("{lend}; {}", told.join(", "))
    }

    fn time(&self) -> String {
        match (self.eta_s, self.is_measured) {
            (Some(seconds), true) => duration(seconds),
            (Some(seconds), false) => format!("{}, by a guess: not all of them were measured yet", duration(seconds)),
            (None, _) if self.workers.is_empty() && self.left_out.is_empty() => "nobody can say yet".into(),
            (None, _) => "nobody here has the memory for its units".into(),
        }
    }

    fn what(&self) -> String {
        let stage = |stage: &StagePlan| match stage.kind {
            StageKind::Encode => format!("{} to read the prompt", stage.units),
            StageKind::Denoise => format!("{} in each of {}", stage.units, count(stage.times, "step")),
            StageKind::Run => format!("{} for the steps", stage.times * stage.units),
            StageKind::Decode => format!("{} to make pixels", stage.units),
            StageKind::Paint => format!("{} to do everything", stage.units),
        };
        self.stages.iter().map(stage).collect::<Vec<_>>().join(", ")
    }
}

/// A kind, as what is done.
pub(super) fn name(kind: PlanKind) -> &'static str {
    match kind {
        PlanKind::Whole => "the whole picture on one worker",
        PlanKind::Cfg => "the guidance branches on two workers",
        PlanKind::Runs { .. } => "several steps in one unit",
        PlanKind::Tiles => "one unit for each step or tile",
        PlanKind::CfgTiles => "one unit for each guidance branch of each tile",
    }
}

/// Seconds as people say them.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        seconds if !seconds.is_finite() => "for ever".into(),
        seconds if seconds < 10.0 => format!("about {seconds:.1} s"),
        seconds if seconds < 100.0 => format!("about {seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("about {:.0} min", seconds / 60.0),
        seconds => format!("about {:.1} h", seconds / 3600.0),
    }
}

fn listed(peers: &[PeerId]) -> String {
    match peers {
        [] => "nobody".into(),
        [one] => one.short().into(),
        [first @ .., last] if peers.len() <= NAMED_MAX => {
            let first: Vec<_> = first.iter().map(PeerId::short).collect();
            format!("{} and {}", first.join(", "), last.short())
        }
        peers => format!("{} of them", peers.len()),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
