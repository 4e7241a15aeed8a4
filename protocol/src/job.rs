//! A job: what picture is asked for, and the layout that decides its pixels.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::ModelId;
use crate::limits::{GUIDANCE_MAX, PICTURE_PIXELS_MAX, PROMPT_BYTES_MAX, SIDE_PIXELS_MAX, STEPS_MAX, TILE_CELLS_MIN};

/// The shapes of a model's tensors: all that splitting and checking its work needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Channels of a latent.
    pub latent_channels: u32,
    /// Pixels per latent cell along one axis (AutoencoderKL: 2 to the number of its upsamplers).
    pub factor: u32,
    /// Side in latent cells of the square the UNet was trained on (`sample_size`).
    pub native_cells: u32,
    /// Tokens of a prompt, padding included (`max_position_embeddings`).
    pub tokens: u32,
    /// Width of a text embedding (`cross_attention_dim`).
    pub embedding_width: u32,
}

/// A picture's size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// Reads `WIDTHxHEIGHT`, for example `384x128`.
    pub fn parse(text: &str) -> Option<Self> {
        let (width, height) = text.trim().split_once(['x', 'X'])?;
        Some(Self { width: width.parse().ok()?, height: height.parse().ok()? })
    }

    /// Checks that the size is not empty, within [`SIDE_PIXELS_MAX`] and [`PICTURE_PIXELS_MAX`], and a whole number of
    /// the model's latent cells.
    pub fn check(self, shape: &ModelShape) -> Result<(), SpecError> {
        let Self { width, height } = self;
        let fits = |side: u32| (1..=SIDE_PIXELS_MAX).contains(&side);
        if !fits(width) || !fits(height) || width * height > PICTURE_PIXELS_MAX {
            return Err(SpecError::SizeOverLimit(self));
        }
        if !width.is_multiple_of(shape.factor) || !height.is_multiple_of(shape.factor) {
            let nearest = |side: u32| (side.div_ceil(shape.factor) * shape.factor).min(SIDE_PIXELS_MAX);
            let nearest = Self { width: nearest(width), height: nearest(height) };
            return Err(SpecError::SizeNotMultiple { size: self, factor: shape.factor, nearest });
        }
        Ok(())
    }

    /// Latent rows and columns.
    pub fn cells(self, shape: &ModelShape) -> (u32, u32) {
        (self.height / shape.factor, self.width / shape.factor)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.width, self.height)
    }
}

/// Square tiles of `tile` latent cells that share `overlap` cells with their neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    /// Side of a tile in latent cells.
    pub tile: u32,
    /// Cells that neighbouring tiles share at least; less than `tile`.
    pub overlap: u32,
}

impl Tiling {
    /// How many tiles cover so many cells.
    pub fn count(&self, rows: u32, columns: u32) -> usize {
        let along = |length: u32| 1 + length.saturating_sub(self.tile).div_ceil(self.tile - self.overlap) as usize;
        along(rows).saturating_mul(along(columns))
    }
}

/// Into what the canvas is cut in every denoising step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tiles {
    /// Nothing: the whole canvas at once.
    Whole,
    /// Overlapping tiles; where they overlap, they are blended.
    Blended(Tiling),
    /// Square tiles of so many latent cells that share nothing, on a grid that seed and step shift (SpotDiffusion). What is
    /// narrower at the canvas' border is evaluated as a full tile, of which the rest is thrown away.
    Shifted {
        /// Side of a tile in latent cells.
        tile: u32,
    },
}

impl Tiles {
    /// Side of a tile in latent cells; `None` without tiles.
    pub fn side(self) -> Option<u32> {
        match self {
            Self::Whole => None,
            Self::Blended(Tiling { tile, .. }) | Self::Shifted { tile } => Some(tile),
        }
    }

    /// Cells that one step evaluates of a canvas, those of overlaps and borders included: the mean over all shifts where
    /// tiles move.
    pub fn cells(self, rows: u32, columns: u32) -> u64 {
        let area = |side: u32| u64::from(rows.min(side)) * u64::from(columns.min(side));
        match self {
            Self::Whole => u64::from(rows) * u64::from(columns),
            Self::Blended(tiling) => tiling.count(rows, columns) as u64 * area(tiling.tile),
            Self::Shifted { tile } => {
                // Each place between two cells is a line of the grid in one of `tile` shifts.
                let strips =
                    |length: u32| if length <= tile { 1.0 } else { 1.0 + f64::from(length - 1) / f64::from(tile) };
                (strips(rows) * strips(columns) * area(tile) as f64) as u64
            }
        }
    }

    /// Whether there are none.
    pub fn is_whole(self) -> bool {
        self.side().is_none()
    }
}

/// What decides the pixels of a job beside its prompt and numbers. It is a pure function of the job and its model, never
/// of the peers: who computes, when and in what batches is the plan's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Tiles of every denoising step, or the whole canvas at once.
    pub tiles: Tiles,
    /// Blended overlapping tiles in the decoder (in latent cells), or the whole latent at once.
    pub decode_tiles: Option<Tiling>,
    /// How the numbers that cross the wire are rounded, also when nothing crosses it.
    pub wire: Wire,
}

/// The rounding that every tensor of a job gets before it is used, so that pixels do not depend on what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wire {
    /// No rounding.
    #[default]
    F32,
    /// Every output of the UNet is rounded to the nearest f16, ties to even.
    F16,
}

/// What the person asked for about splitting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlanChoice {
    /// Tiles if the picture is larger than the model's native square, the whole canvas otherwise.
    #[default]
    Auto,
    /// The whole canvas at once, all of it on one worker.
    Whole,
    /// Overlapping tiles in every step.
    Tiles,
    /// Tiles that do not overlap, shifted in every step: less work, and other pixels.
    Shifted,
    /// The whole canvas at once, the two guidance branches on two workers.
    Cfg,
}

/// Into which units a job is cut. It never changes a pixel: the arithmetic is the layout's, whoever does how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    /// One unit: the whole picture.
    Whole,
    /// One unit per guidance branch and step, over the whole canvas.
    Cfg,
    /// One unit per tile and step, both branches in it.
    Tiles,
    /// One unit per tile, guidance branch and step.
    CfgTiles,
    /// One unit per run of so many steps, over the whole canvas; for layouts without tiles.
    Runs {
        /// Steps of each run but the last, which may be shorter.
        steps: u32,
    },
}

impl Layout {
    /// Pictures of more than this many pixels are decoded in tiles: larger decodes need more memory than small peers have.
    pub const DECODE_WHOLE_PIXELS_MAX: u32 = 768 * 768;

    /// The layout of a picture of `size` on a model of `shape`.
    pub fn new(choice: PlanChoice, size: Size, shape: &ModelShape) -> Self {
        let (rows, columns) = size.cells(shape);
        let native = shape.native_cells;
        let larger = rows > native || columns > native;
        let tiling = Tiling { tile: native, overlap: native / 2 };
        let tiles = match choice {
            PlanChoice::Auto | PlanChoice::Tiles if larger => Tiles::Blended(tiling),
            PlanChoice::Shifted if larger => Tiles::Shifted { tile: native },
            PlanChoice::Auto | PlanChoice::Tiles | PlanChoice::Shifted | PlanChoice::Whole | PlanChoice::Cfg => {
                Tiles::Whole
            }
        };
        let decode_tiles =
            (size.width * size.height > Self::DECODE_WHOLE_PIXELS_MAX).then_some(decode_tiling(native.max(32)));
        Self { tiles, decode_tiles, wire: Wire::F32 }
    }

    /// The next layout whose largest unit of this part needs less memory; `None` where tiles cannot be smaller. It paints
    /// another picture.
    pub fn smaller(&self, part: Part, size: Size, shape: &ModelShape) -> Option<Self> {
        let (rows, columns) = size.cells(shape);
        let longest = rows.max(columns);
        let least = TILE_CELLS_MIN.min(shape.native_cells);
        // Half of what a unit covers at present, or the native square if that is less than all of the canvas.
        let next = |present: Option<u32>, native: u32| {
            let side = match present {
                None if native < longest => native,
                None => longest.next_power_of_two() / 2,
                Some(tile) => tile.min(longest.next_power_of_two()) / 2,
            };
            (side >= least).then_some(side)
        };
        match part {
            Part::Denoise => {
                let tile = next(self.tiles.side(), shape.native_cells)?;
                let tiles = match self.tiles {
                    Tiles::Shifted { .. } => Tiles::Shifted { tile },
                    Tiles::Whole | Tiles::Blended(_) => Tiles::Blended(Tiling { tile, overlap: tile / 2 }),
                };
                Some(Self { tiles, ..*self })
            }
            Part::Decode => {
                let present = self.decode_tiles.map(|tiling| tiling.tile);
                let tile = next(present, shape.native_cells.max(32))?;
                Some(Self { decode_tiles: Some(decode_tiling(tile)), ..*self })
            }
            Part::Everything => match self.smaller(Part::Decode, size, shape) {
                Some(smaller) => Some(smaller.smaller(Part::Denoise, size, shape).unwrap_or(smaller)),
                None => self.smaller(Part::Denoise, size, shape),
            },
        }
    }
}

/// Tiles of the decoder, whose neighbours see a quarter of each other.
fn decode_tiling(tile: u32) -> Tiling {
    Tiling { tile, overlap: tile / 4 }
}

/// The part of a job that needs memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The steps.
    Denoise,
    /// The decoder.
    Decode,
    /// One unit that did both.
    Everything,
}

impl Layout {
    /// Checks the tiles against the model's shape.
    fn is_sound(&self, shape: &ModelShape) -> bool {
        let least = TILE_CELLS_MIN.min(shape.native_cells);
        let is_sound = |tiling: &Tiling| tiling.overlap < tiling.tile && tiling.tile >= least;
        let tiles = match &self.tiles {
            Tiles::Whole => true,
            Tiles::Blended(tiling) => is_sound(tiling),
            Tiles::Shifted { tile } => *tile >= least,
        };
        tiles && self.decode_tiles.as_ref().is_none_or(is_sound)
    }
}

/// What a person asks for, unchecked.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRequest {
    /// What to paint.
    pub prompt: String,
    /// What to keep away from; may be empty.
    pub negative: String,
    /// Size in pixels.
    pub size: Size,
    /// Denoising steps.
    pub steps: u32,
    /// Guidance scale; 1 or less paints without the negative branch.
    pub guidance: f32,
    /// Seed of all noise.
    pub seed: u64,
    /// How to split.
    pub plan: PlanChoice,
}

/// A checked job: everything that decides its pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The model, by content.
    pub model: ModelId,
    /// What to paint.
    pub prompt: String,
    /// What to keep away from; may be empty.
    pub negative: String,
    /// Size in pixels.
    pub size: Size,
    /// Denoising steps.
    pub steps: u32,
    /// Guidance scale; 1 or less paints without the negative branch.
    pub guidance: f32,
    /// Seed of all noise.
    pub seed: u64,
    /// Tiles and rounding.
    pub layout: Layout,
}

/// Why a job cannot be painted as asked; each says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Nothing but spaces.
    #[error("the prompt is empty; say what to paint, for example \"mountains at sunset with a lake\"")]
    PromptEmpty,
    /// Longer than any model reads.
    #[error("the prompt has {bytes} bytes and at most {PROMPT_BYTES_MAX} are read; shorten it")]
    PromptTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a whole number of latent cells.
    #[error("size {size} is not a multiple of {factor} pixels, which this model needs; try {nearest}")]
    SizeNotMultiple {
        /// What was asked.
        size: Size,
        /// Pixels per latent cell.
        factor: u32,
        /// The nearest larger size that works.
        nearest: Size,
    },
    /// Empty or too large.
    #[error(
        "size {0} is outside the limits: sides of 1 to {SIDE_PIXELS_MAX} pixels and at most {PICTURE_PIXELS_MAX} pixels in all"
    )]
    SizeOverLimit(Size),
    /// None or too many.
    #[error("{0} steps are outside 1 to {STEPS_MAX}")]
    Steps(u32),
    /// Negative, infinite or too large.
    #[error("guidance {0} is outside 0 to {GUIDANCE_MAX}")]
    Guidance(f32),
    /// Tiles that do not fit together.
    #[error("the layout's tiles are impossible for this model")]
    Layout,
}

impl JobSpec {
    /// Checks a request against the model it is for.
    pub fn new(request: JobRequest, model: ModelId, shape: &ModelShape) -> Result<Self, SpecError> {
        let JobRequest { prompt, negative, size, steps, guidance, seed, plan } = request;
        size.check(shape)?;
        let layout = Layout::new(plan, size, shape);
        let spec = Self { model, prompt, negative, size, steps, guidance, seed, layout };
        spec.check(shape)?;
        Ok(spec)
    }

    /// Checks a spec that came from elsewhere.
    pub fn check(&self, shape: &ModelShape) -> Result<(), SpecError> {
        if self.prompt.trim().is_empty() {
            return Err(SpecError::PromptEmpty);
        }
        for text in [&self.prompt, &self.negative] {
            if text.len() > PROMPT_BYTES_MAX {
                return Err(SpecError::PromptTooLong { bytes: text.len() });
            }
        }
        self.size.check(shape)?;
        if !(1..=STEPS_MAX).contains(&self.steps) {
            return Err(SpecError::Steps(self.steps));
        }
        if !(0.0..=GUIDANCE_MAX).contains(&self.guidance) {
            return Err(SpecError::Guidance(self.guidance));
        }
        if !self.layout.is_sound(shape) {
            return Err(SpecError::Layout);
        }
        Ok(())
    }

    /// Whether steps need the negative branch (diffusers' `do_classifier_free_guidance`).
    pub fn guided(&self) -> bool {
        self.guidance > 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hash;

    const SHAPE: ModelShape =
        ModelShape { latent_channels: 8, factor: 8, native_cells: 16, tokens: 32, embedding_width: 96 };

    fn request() -> JobRequest {
        JobRequest {
            prompt: "a lake".into(),
            negative: String::new(),
            size: Size { width: 384, height: 128 },
            steps: 8,
            guidance: 3.0,
            seed: 7,
            plan: PlanChoice::Auto,
        }
    }

    fn spec(request: JobRequest) -> Result<JobSpec, SpecError> {
        JobSpec::new(request, ModelId(Hash::of(b"model")), &SHAPE)
    }

    #[test]
    fn a_wide_picture_is_tiled_and_a_native_one_is_not() {
        let tiles = |request| spec(request).unwrap().layout.tiles;
        assert_eq!(tiles(request()), Tiles::Blended(Tiling { tile: 16, overlap: 8 }));
        assert_eq!(tiles(JobRequest { plan: PlanChoice::Shifted, ..request() }), Tiles::Shifted { tile: 16 });
        assert_eq!(tiles(JobRequest { plan: PlanChoice::Whole, ..request() }), Tiles::Whole);
        for plan in [PlanChoice::Auto, PlanChoice::Tiles, PlanChoice::Shifted] {
            assert_eq!(tiles(JobRequest { plan, size: Size { width: 128, height: 128 }, ..request() }), Tiles::Whole);
        }
    }

    #[test]
    fn a_layout_gets_smaller_until_its_tiles_cannot() {
        let size = Size { width: 384, height: 128 };
        let sides = |plan, part| {
            let mut layout = Layout::new(plan, size, &SHAPE);
            let mut sides = Vec::new();
            while let Some(smaller) = layout.smaller(part, size, &SHAPE) {
                assert!(sides.len() < 10 && smaller.is_sound(&SHAPE), "{smaller:?}");
                layout = smaller;
                sides.push((layout.tiles.side(), layout.decode_tiles.map(|tiling| tiling.tile)));
            }
            sides
        };
        assert_eq!(sides(PlanChoice::Cfg, Part::Denoise), [(Some(16), None), (Some(8), None)]);
        assert_eq!(sides(PlanChoice::Auto, Part::Denoise), [(Some(8), None)]);
        assert_eq!(sides(PlanChoice::Auto, Part::Decode).last(), Some(&(Some(16), Some(8))));
        assert_eq!(sides(PlanChoice::Whole, Part::Everything).last(), Some(&(Some(8), Some(8))));
        let shifted = Layout::new(PlanChoice::Shifted, size, &SHAPE).smaller(Part::Denoise, size, &SHAPE).unwrap();
        assert_eq!(shifted.tiles, Tiles::Shifted { tile: 8 });
        let native = Size { width: 128, height: 128 };
        let halved = Layout::new(PlanChoice::Auto, native, &SHAPE).smaller(Part::Denoise, native, &SHAPE).unwrap();
        assert_eq!(halved.tiles.side(), Some(8), "also a canvas of the native size can be cut");
    }

    #[test]
    fn a_bad_size_is_refused_with_the_nearest_good_one() {
        let odd = JobRequest { size: Size { width: 130, height: 128 }, ..request() };
        let error = spec(odd).unwrap_err();
        assert!(error.to_string().ends_with("try 136x128"), "{error}");
        for (width, height) in [(0, 128), (SIDE_PIXELS_MAX + 8, 8), (u32::MAX, u32::MAX), (4096, 4096)] {
            let size = Size { width, height };
            assert_eq!(spec(JobRequest { size, ..request() }), Err(SpecError::SizeOverLimit(size)));
        }
    }

    #[test]
    fn bad_numbers_and_texts_are_refused() {
        assert_eq!(spec(JobRequest { prompt: " \n".into(), ..request() }), Err(SpecError::PromptEmpty));
        let long = "x".repeat(PROMPT_BYTES_MAX + 1);
        assert_eq!(
            spec(JobRequest { negative: long, ..request() }),
            Err(SpecError::PromptTooLong { bytes: PROMPT_BYTES_MAX + 1 })
        );
        for steps in [0, STEPS_MAX + 1] {
            assert_eq!(spec(JobRequest { steps, ..request() }), Err(SpecError::Steps(steps)));
        }
        for guidance in [-1.0, f32::INFINITY, GUIDANCE_MAX * 2.0] {
            assert_eq!(spec(JobRequest { guidance, ..request() }), Err(SpecError::Guidance(guidance)));
        }
        assert!(spec(JobRequest { guidance: f32::NAN, ..request() }).is_err());
    }

    #[test]
    fn a_size_is_read_as_people_write_it() {
        assert_eq!(Size::parse("384x128"), Some(Size { width: 384, height: 128 }));
        for bad in ["", "384", "384x", "x128", "-1x2", "384x128x3", "4e2x1"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
    }
}
