//! A unit: the piece of a job that one worker computes on one lease. Units carry or name all they need.

use serde::{Deserialize, Serialize};

use crate::ids::{Hash, JobId, ModelId};
use crate::job::{JobSpec, ModelShape, Part, Tiles, Wire};
use crate::limits::{
    BODY_BYTES_MAX, GUIDANCE_MAX, HISTORY_TENSORS_MAX, PICTURE_PIXELS_MAX, PROMPT_BYTES_MAX, SIDE_PIXELS_MAX, STEPS_MAX,
};

/// Where a unit stands in its job: stages follow each other, the units of one stage are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId {
    /// The stage, counted from zero.
    pub stage: u32,
    /// The unit within its stage, counted from zero in canonical order.
    pub index: u32,
}

/// A unit of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its job.
    pub job: JobId,
    /// Its place in the job.
    pub id: UnitId,
    /// The model that computes it.
    pub model: ModelId,
    /// What to compute.
    pub work: Work,
}

/// Which guidance branches a denoising unit evaluates, always as separate batch-1 passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Branches {
    /// Only the negative (unconditional) branch.
    Negative,
    /// Only the prompt's branch.
    Prompt,
    /// Negative first, then prompt.
    Both,
}

impl Branches {
    /// Number of passes.
    pub fn count(self) -> usize {
        match self {
            Self::Negative | Self::Prompt => 1,
            Self::Both => 2,
        }
    }

    /// Rows of the conditioning (`[negative, prompt]`, or `[prompt]` alone) in the order the passes run.
    /// `None` if the conditioning has no such row.
    pub fn rows(self, conditioning_rows: usize) -> Option<Vec<usize>> {
        match (self, conditioning_rows) {
            (Self::Prompt, 1) | (Self::Negative, 2) => Some(vec![0]),
            (Self::Prompt, 2) => Some(vec![1]),
            (Self::Both, 2) => Some(vec![0, 1]),
            (Self::Negative | Self::Prompt | Self::Both, _) => None,
        }
    }
}

/// Consecutive denoising steps of a job, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// How many the job has.
    pub in_all: u32,
}

/// What a unit computes. All tensors are f32, row-major, little-endian on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Text to conditioning. In: nothing. Out: `[rows, tokens, embedding_width]`, rows `[negative, prompt]` or `[prompt]`.
    Encode {
        /// The prompt.
        prompt: String,
        /// The negative prompt, when the job is guided.
        negative: Option<String>,
    },
    /// One UNet evaluation of a region. In: the scaled latent `[latent_channels, rows, columns]`. Out: the model output
    /// (eps, v or flow) `[branches, latent_channels, rows, columns]`.
    Denoise {
        /// SHA-256 of the conditioning's bytes, which travel in `Store`.
        conditioning: Hash,
        /// Rows in the conditioning.
        conditioning_rows: u32,
        /// Which branches.
        branches: Branches,
        /// The timestep given to the UNet.
        timestep: f32,
        /// Latent rows of the region.
        rows: u32,
        /// Latent columns of the region.
        columns: u32,
    },
    /// Consecutive steps of the whole canvas, with guidance and the model's scheduler. In: the latent
    /// `[latent_channels, rows, columns]`, then what the sampler remembers, `[history, latent_channels, rows, columns]`,
    /// which is nothing before the job's first step. Out: the latent and what is remembered after the last of the steps.
    Run {
        /// SHA-256 of the conditioning's bytes, which travel in `Store`. It has two rows if the guidance is more than 1.
        conditioning: Hash,
        /// Guidance scale; 1 or less evaluates the prompt's branch alone.
        guidance: f32,
        /// Rounding of the model's outputs.
        wire: Wire,
        /// Which steps.
        steps: Steps,
        /// Tensors that the model's scheduler remembers.
        history: u32,
        /// Latent rows of the canvas.
        rows: u32,
        /// Latent columns of the canvas.
        columns: u32,
    },
    /// Latent to pixels. In: latent `[latent_channels, rows, columns]`. Out: `[3, rows * factor, columns * factor]`, each
    /// value in about [-1, 1].
    Decode {
        /// Latent rows of the region.
        rows: u32,
        /// Latent columns of the region.
        columns: u32,
    },
    /// A whole picture. In: nothing. Out: final latent `[latent_channels, rows, columns]`, then pixels
    /// `[3, height, width]`.
    Paint {
        /// The job.
        spec: Box<JobSpec>,
    },
}

/// Why a worker will not compute a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(pub &'static str);

/// What the memory that a unit needs grows with. Passes follow each other, so that their number does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Footprint {
    /// Whose memory: networks differ in how much a cell costs. `None` is the text encoder's.
    pub part: Option<Part>,
    /// Latent cells evaluated at once.
    pub cells: u64,
}

impl Work {
    /// What its memory grows with.
    pub fn footprint(&self, shape: &ModelShape) -> Footprint {
        let area = |rows: u32, columns: u32| u64::from(rows) * u64::from(columns);
        match self {
            Self::Encode { .. } => Footprint { part: None, cells: 0 },
            Self::Denoise { rows, columns, .. } | Self::Run { rows, columns, .. } => {
                Footprint { part: Some(Part::Denoise), cells: area(*rows, *columns) }
            }
            Self::Decode { rows, columns } => Footprint { part: Some(Part::Decode), cells: area(*rows, *columns) },
            Self::Paint { spec } => {
                let (rows, columns) = spec.size.cells(shape);
                let tile = |side: Option<u32>| {
                    side.map_or(area(rows, columns), |side| area(rows.min(side), columns.min(side)))
                };
                let decoded = tile(spec.layout.decode_tiles.map(|tiling| tiling.tile));
                Footprint { part: Some(Part::Everything), cells: decoded.max(tile(spec.layout.tiles.side())) }
            }
        }
    }

    /// The conditioning that the work names, and how many rows it has.
    pub fn conditioning(&self) -> Option<(Hash, u32)> {
        match self {
            Self::Denoise { conditioning, conditioning_rows, .. } => Some((*conditioning, *conditioning_rows)),
            Self::Run { conditioning, guidance, .. } => Some((*conditioning, if *guidance > 1.0 { 2 } else { 1 })),
            Self::Encode { .. } | Self::Decode { .. } | Self::Paint { .. } => None,
        }
    }

    /// Values in the input body.
    pub fn input_values(&self, shape: &ModelShape) -> usize {
        match self {
            Self::Encode { .. } | Self::Paint { .. } => 0,
            Self::Denoise { rows, columns, .. } | Self::Decode { rows, columns } => {
                latent_values(shape, *rows, *columns)
            }
            Self::Run { steps, history, rows, columns, .. } => {
                let remembered = if steps.first == 0 { 0 } else { *history as usize };
                (1 + remembered) * latent_values(shape, *rows, *columns)
            }
        }
    }

    /// Values in the output body.
    pub fn output_values(&self, shape: &ModelShape) -> usize {
        let pixels = |rows: u32, columns: u32| {
            3 * rows as usize * columns as usize * shape.factor as usize * shape.factor as usize
        };
        match self {
            Self::Encode { negative, .. } => {
                (1 + usize::from(negative.is_some())) * shape.tokens as usize * shape.embedding_width as usize
            }
            Self::Denoise { branches, rows, columns, .. } => branches.count() * latent_values(shape, *rows, *columns),
            Self::Run { history, rows, columns, .. } => (1 + *history as usize) * latent_values(shape, *rows, *columns),
            Self::Decode { rows, columns } => pixels(*rows, *columns),
            Self::Paint { spec } => {
                let (rows, columns) = spec.size.cells(shape);
                latent_values(shape, rows, columns) + pixels(rows, columns)
            }
        }
    }

    /// Cost in latent cells times UNet passes: the measure by which progress and plans are counted. Encoding and decoding
    /// are counted by rules of thumb, which measured speeds correct.
    pub fn cost(&self, shape: &ModelShape) -> u64 {
        match self {
            Self::Encode { .. } => 64,
            Self::Denoise { branches, rows, columns, .. } => {
                branches.count() as u64 * u64::from(*rows) * u64::from(*columns)
            }
            Self::Run { guidance, steps, rows, columns, .. } => {
                let passes = u64::from(steps.count) * if *guidance > 1.0 { 2 } else { 1 };
                passes * u64::from(*rows) * u64::from(*columns)
            }
            Self::Decode { rows, columns } => u64::from(*rows) * u64::from(*columns),
            Self::Paint { spec } => {
                let (rows, columns) = spec.size.cells(shape);
                let passes = u64::from(spec.steps) * if spec.guided() { 2 } else { 1 };
                let decoded = spec.layout.decode_tiles.map_or(Tiles::Whole, Tiles::Blended);
                64 + passes * spec.layout.tiles.cells(rows, columns) + decoded.cells(rows, columns)
            }
        }
    }

    /// Checks that the work is within every limit, before any memory is spent on it.
    pub fn check(&self, shape: &ModelShape) -> Result<(), UnitError> {
        let region = |rows: u32, columns: u32| {
            let longest = SIDE_PIXELS_MAX / shape.factor;
            let pixels = || rows * shape.factor * columns * shape.factor;
            (1..=longest).contains(&rows) && (1..=longest).contains(&columns) && pixels() <= PICTURE_PIXELS_MAX
        };
        let sound = match self {
            Self::Encode { prompt, negative } => {
                prompt.len() <= PROMPT_BYTES_MAX && negative.as_ref().is_none_or(|text| text.len() <= PROMPT_BYTES_MAX)
            }
            Self::Denoise { branches, conditioning_rows, timestep, rows, columns, .. } => {
                region(*rows, *columns)
                    && (0.0..=1000.0).contains(timestep)
                    && branches.rows(*conditioning_rows as usize).is_some()
            }
            Self::Run { guidance, steps, history, rows, columns, .. } => {
                let end = steps.first.checked_add(steps.count);
                region(*rows, *columns)
                    && (0.0..=GUIDANCE_MAX).contains(guidance)
                    && (1..=STEPS_MAX).contains(&steps.in_all)
                    && steps.count > 0
                    && end.is_some_and(|end| end <= steps.in_all)
                    && *history as usize <= HISTORY_TENSORS_MAX
            }
            Self::Decode { rows, columns } => region(*rows, *columns),
            Self::Paint { spec } => spec.check(shape).is_ok(),
        };
        if !sound {
            return Err(UnitError("the unit is outside the limits"));
        }
        let bytes = self.output_values(shape).max(self.input_values(shape)).saturating_mul(4);
        if bytes > BODY_BYTES_MAX {
            return Err(UnitError("the unit's tensors are larger than a message may be"));
        }
        Ok(())
    }
}

fn latent_values(shape: &ModelShape, rows: u32, columns: u32) -> usize {
    shape.latent_channels as usize * rows as usize * columns as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ModelShape =
        ModelShape { latent_channels: 8, factor: 8, native_cells: 16, tokens: 32, embedding_width: 96 };

    fn denoise(rows: u32, columns: u32, timestep: f32) -> Work {
        Work::Denoise {
            conditioning: Hash::of(b""),
            conditioning_rows: 2,
            branches: Branches::Both,
            timestep,
            rows,
            columns,
        }
    }

    #[test]
    fn shapes_follow_from_the_work() {
        assert_eq!(denoise(16, 16, 999.0).input_values(&SHAPE), 8 * 256);
        assert_eq!(denoise(16, 16, 999.0).output_values(&SHAPE), 2 * 8 * 256);
        assert_eq!(Work::Decode { rows: 16, columns: 48 }.output_values(&SHAPE), 3 * 128 * 384);
        assert_eq!(Work::Encode { prompt: "a".into(), negative: None }.output_values(&SHAPE), 32 * 96);
    }

    #[test]
    fn a_unit_over_any_limit_is_refused_before_it_costs_memory() {
        assert!(denoise(16, 16, 999.0).check(&SHAPE).is_ok());
        for (rows, columns, timestep) in
            [(0, 16, 1.0), (u32::MAX, u32::MAX, 1.0), (512, 512, 1.0), (16, 16, -1.0), (16, 16, f32::NAN)]
        {
            assert!(denoise(rows, columns, timestep).check(&SHAPE).is_err(), "{rows} {columns} {timestep}");
        }
        assert!(Work::Encode { prompt: "x".repeat(PROMPT_BYTES_MAX + 1), negative: None }.check(&SHAPE).is_err());
    }

    #[test]
    fn a_whole_picture_costs_what_its_units_do() {
        let request = crate::JobRequest {
            prompt: "a lake".into(),
            negative: String::new(),
            size: crate::Size { width: 384, height: 128 },
            steps: 8,
            guidance: 3.0,
            seed: 7,
            plan: crate::PlanChoice::Auto,
        };
        let cost = |plan| {
            let request = crate::JobRequest { plan, ..request.clone() };
            let spec = JobSpec::new(request, ModelId(Hash::of(b"model")), &SHAPE).unwrap();
            Work::Paint { spec: Box::new(spec) }.cost(&SHAPE)
        };
        assert_eq!(cost(crate::PlanChoice::Whole), 64 + 16 * 16 * 48 + 16 * 48);
        assert_eq!(cost(crate::PlanChoice::Tiles), 64 + 16 * 5 * 256 + 16 * 48);
        // Three tiles where the grid begins with the canvas, else four.
        let shifted = cost(crate::PlanChoice::Shifted);
        assert!((64 + 16 * 3 * 256 + 16 * 48..64 + 16 * 4 * 256 + 16 * 48).contains(&shifted), "{shifted}");
    }

    #[test]
    fn a_run_of_steps_carries_what_the_sampler_remembers_and_is_held_to_its_job() {
        let run = |first, count, in_all, history| Work::Run {
            conditioning: Hash::of(b""),
            guidance: 3.0,
            wire: Wire::F32,
            steps: Steps { first, count, in_all },
            history,
            rows: 16,
            columns: 48,
        };
        let latent = 8 * 16 * 48;
        let values = |work: Work| (work.input_values(&SHAPE), work.output_values(&SHAPE));
        assert_eq!(run(0, 4, 20, 1).footprint(&SHAPE), Footprint { part: Some(Part::Denoise), cells: 16 * 48 });
        assert_eq!(values(run(0, 4, 20, 1)), (latent, 2 * latent));
        assert_eq!(values(run(4, 4, 20, 1)), (2 * latent, 2 * latent));
        assert_eq!(values(run(4, 4, 20, 0)), (latent, latent));
        assert_eq!(run(4, 4, 20, 0).cost(&SHAPE), 4 * 2 * 16 * 48);
        assert_eq!(run(4, 4, 20, 0).conditioning(), Some((Hash::of(b""), 2)));
        assert!(run(16, 4, 20, 1).check(&SHAPE).is_ok());
        for (first, count, in_all, history) in [
            (0, 0, 20, 0),
            (17, 4, 20, 0),
            (u32::MAX, 1, 20, 0),
            (1, u32::MAX, 20, 0),
            (0, 1, 0, 0),
            (0, 1, 201, 0),
            (0, 1, 1, 2),
        ] {
            assert!(run(first, count, in_all, history).check(&SHAPE).is_err(), "{first} {count} {in_all} {history}");
        }
    }

    #[test]
    fn branches_name_rows_that_exist() {
        assert_eq!(Branches::Both.rows(2), Some(vec![0, 1]));
        assert_eq!(Branches::Prompt.rows(1), Some(vec![0]));
        assert_eq!(Branches::Prompt.rows(2), Some(vec![1]));
        assert_eq!(Branches::Negative.rows(1), None);
        assert_eq!(Branches::Both.rows(3), None);
    }
}
