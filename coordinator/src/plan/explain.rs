//! Says a plan in plain words.

use std::fmt::Write;

use protocol::PlanKind;

use super::{Plan, StageKind, StagePlan};

impl Plan {
    /// Units of all stages.
    pub fn units(&self) -> usize {
        self.stages.iter().map(|stage| stage.times * stage.units).sum()
    }

    /// Bytes of tensors to and from workers, if nothing has to be done twice and every worker takes part.
    pub fn bytes(&self) -> usize {
        let tensors: usize = self.stages.iter().map(|stage| stage.times * stage.units * stage.unit_bytes).sum();
        tensors + self.workers.len().min(self.parallel()) * self.conditioning_bytes()
    }

    /// Cost of all units, as [`protocol::Work::cost`] counts it.
    pub fn cost(&self) -> u64 {
        self.stages.iter().map(|stage| (stage.times * stage.units) as u64 * stage.unit_cost).sum()
    }

    /// The plan in plain words, one fact a line. Names of peers are not in it.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let mut line = |fact: String| writeln!(text, "{fact}").expect("writing to a string cannot fail");
        line(format!("Plan: {}, because {}.", self.split(), self.reason));
        line(format!("Workers: {}.", self.who()));
        line(format!(
            "Units: {}; {} in all, about {} over the network.",
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
        for rejected in &self.rejected {
            line(format!("Not chosen: {}, because {}.", name(rejected.kind), rejected.why));
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn split(&self) -> String {
        match self.kind {
            PlanKind::Whole => "one unit paints the whole picture".into(),
            PlanKind::Cfg => "each step is two units, one for each guidance branch of the whole canvas".into(),
            PlanKind::Runs { steps } => format!("each unit is {} of the whole canvas", count(steps as usize, "step")),
            PlanKind::Tiles if self.cut.tiles_max() == 1 => "each step is one unit, the whole canvas".into(),
            PlanKind::Tiles => format!("each step is {}, one for each tile", count(self.cut.tiles_max(), "unit")),
            PlanKind::CfgTiles => {
                format!(
                    "each step is {}, one for each guidance branch of {}",
                    count(2 * self.cut.tiles_max(), "unit"),
                    count(self.cut.tiles_max(), "tile")
                )
            }
        }
    }

    fn who(&self) -> String {
        match (self.workers.len(), self.parallel()) {
            (0, _) => "nobody lends this model yet; the job waits until somebody does".into(),
            (present, most) if present > most => {
                format!("{present} lend this model, of whom {most} can work at a time")
            }
            (present, _) => format!("{present} lend{} this model", if present == 1 { "s" } else { "" }),
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

    /// Most units that can be computed at one time.
    fn parallel(&self) -> usize {
        self.stages.iter().map(|stage| stage.units).max().unwrap_or(0)
    }

    /// What the encoding stage gives is what every denoising worker is sent once.
    fn conditioning_bytes(&self) -> usize {
        let encode = self.stages.iter().find(|stage| stage.kind == StageKind::Encode);
        encode.map_or(0, |stage| stage.unit_bytes)
    }
}

fn name(kind: PlanKind) -> &'static str {
    match kind {
        PlanKind::Whole => "the whole picture on one worker",
        PlanKind::Cfg => "the guidance branches on two workers",
        PlanKind::Runs { .. } => "several steps in one unit",
        PlanKind::Tiles => "one unit for each tile",
        PlanKind::CfgTiles => "one unit for each guidance branch of each tile",
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
