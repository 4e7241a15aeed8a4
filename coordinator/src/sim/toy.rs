//! The toy model: a network that is a hash, and a painter that does with it what `sampler` does in earnest.
//!
//! Its outputs depend on every byte that they may depend on, so that any mistake changes the picture.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{Branches, Hash, JobId, JobSpec, ModelId, ModelShape, PlanKind, Tiling, Unit, UnitId, Work, tensor};

use crate::plan::Cut;
use crate::sim::rng::Rng;

/// Its shapes.
pub const SHAPE: ModelShape =
    ModelShape { latent_channels: 2, factor: 2, native_cells: 4, tokens: 3, embedding_width: 4 };

const CHANNELS: usize = SHAPE.latent_channels as usize;
const FACTOR: usize = SHAPE.factor as usize;

/// Its name.
pub fn model() -> ModelId {
    ModelId(Hash::of(b"toy model"))
}

/// What the toy network of a numeric class gives for a unit: values in [-1, 1]. Classes differ in their last bits.
pub fn compute(work: &Work, input: &[u8], conditioning: Option<&[u8]>, class: u8) -> Vec<u8> {
    let values = match work {
        Work::Encode { prompt, negative } => {
            let texts = negative.iter().chain([prompt]);
            let row = |text: &String| pass(&[b"encode", text.as_bytes()], row_values());
            texts.flat_map(row).collect()
        }
        Work::Denoise { conditioning_rows, branches, timestep, rows, columns, .. } => {
            let all = conditioning.unwrap_or_default();
            let row = |row: usize| all.get(4 * row * row_values()..4 * (row + 1) * row_values()).unwrap_or_default();
            let count = CHANNELS * *rows as usize * *columns as usize;
            let rows = branches.rows(*conditioning_rows as usize).unwrap_or_default();
            let branch = |index| pass(&[b"denoise", input, row(index), &timestep.to_le_bytes()], count);
            rows.into_iter().flat_map(branch).collect()
        }
        Work::Decode { .. } => pass(&[b"decode", input], work.output_values(&SHAPE)),
        Work::Paint { spec } => return paint_alone(spec, class),
    };
    tensor::to_bytes(&values.into_iter().map(|value| in_class(value, class)).collect::<Vec<f32>>())
}

/// The picture as one machine of this class paints it alone: final latent, then pixels.
pub fn paint_alone(spec: &JobSpec, class: u8) -> Vec<u8> {
    let mut painting = Painting::new(JobId([0; 16]), spec.clone(), PlanKind::Tiles);
    while painting.picture().is_none() {
        let conditioning = painting.conditioning();
        for (unit, input) in painting.units() {
            let body = compute(&unit.work, &input, conditioning.as_ref().map(|(_, body)| &**body), class);
            painting.accept(unit.id, &body).expect("a unit of the present stage fits it");
        }
        painting.advance();
    }
    painting.picture().expect("the loop ends with a picture")
}

/// A picture under way.
#[derive(Clone, Debug)]
pub struct Painting {
    job: JobId,
    spec: JobSpec,
    kind: PlanKind,
    stage: u32,
    latent: Canvas,
    conditioning: Option<(Hash, Arc<[u8]>)>,
    outputs: BTreeMap<UnitId, Vec<f32>>,
    pixels: Option<Vec<f32>>,
}

/// Planes of values.
#[derive(Clone, Debug)]
struct Canvas {
    channels: usize,
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

/// The upper left corner and size of a tile, in cells.
#[derive(Clone, Copy)]
struct Tile {
    top: usize,
    left: usize,
    rows: usize,
    columns: usize,
}

impl Painting {
    /// A picture before its first stage.
    pub fn new(job: JobId, spec: JobSpec, kind: PlanKind) -> Self {
        let (rows, columns) = spec.size.cells(&SHAPE);
        let mut latent = Canvas::new(CHANNELS, rows as usize, columns as usize);
        let mut rng = Rng::new(spec.seed, "noise");
        latent.values.fill_with(|| rng.value());
        Self { job, spec, kind, stage: 0, latent, conditioning: None, outputs: BTreeMap::new(), pixels: None }
    }

    /// Into how many tiles the layout of a picture cuts its canvas.
    pub fn cut(spec: &JobSpec) -> Cut {
        let (rows, columns) = spec.size.cells(&SHAPE);
        let count = |tiling| tiles(rows as usize, columns as usize, tiling).len();
        Cut { tiles: count(spec.layout.tiles), decode_tiles: count(spec.layout.decode_tiles) }
    }

    /// The stages of a picture: units of each, and what one of them costs.
    pub fn works_of(spec: &JobSpec, kind: PlanKind) -> Vec<(usize, u64)> {
        let mut painting = Self::new(JobId([0; 16]), spec.clone(), kind);
        painting.conditioning = Some((Hash::of(b""), Arc::from([])));
        let stages = if kind == PlanKind::Whole { 1 } else { spec.steps + 2 };
        let stage = |stage: u32| {
            painting.stage = stage;
            let works = painting.works();
            (works.len(), works[0].0.cost(&SHAPE))
        };
        (0..stages).map(stage).collect()
    }

    /// The present stage.
    pub fn stage(&self) -> u32 {
        self.stage
    }

    /// The picture as it was when the present stage began.
    pub fn beginning(&self) -> Self {
        Self { outputs: BTreeMap::new(), ..self.clone() }
    }

    /// What the denoising units name.
    pub fn conditioning(&self) -> Option<(Hash, Arc<[u8]>)> {
        self.conditioning.clone()
    }

    /// The units of the present stage and their inputs.
    pub fn units(&self) -> Vec<(Unit, Arc<[u8]>)> {
        let work = self.works();
        let unit = |(index, (work, input)): (u32, (Work, Vec<u8>))| {
            let id = UnitId { stage: self.stage, index };
            (Unit { job: self.job, id, model: self.spec.model, work }, Arc::from(input))
        };
        (0..).zip(work).map(unit).collect()
    }

    /// Takes the output of one of them.
    pub fn accept(&mut self, unit: UnitId, body: &[u8]) -> Result<(), &'static str> {
        if unit.stage != self.stage {
            return Err("it is of another stage");
        }
        let values = tensor::from_bytes(body, body.len() / 4).map_err(|_| "its body is no tensor")?;
        match self.outputs.insert(unit, values) {
            None => Ok(()),
            Some(_) => Err("it is there already"),
        }
    }

    /// How many outputs of the present stage are there.
    pub fn accepted(&self) -> usize {
        self.outputs.len()
    }

    /// Ends the present stage, whose outputs are all there.
    pub fn advance(&mut self) {
        let outputs: Vec<Vec<f32>> = std::mem::take(&mut self.outputs).into_values().collect();
        self.stage += 1;
        if self.kind == PlanKind::Whole {
            let (latent, pixels) = outputs[0].split_at(self.latent.values.len());
            self.latent.values = latent.to_vec();
            self.pixels = Some(pixels.to_vec());
        } else if self.stage == 1 {
            let body = tensor::to_bytes(&outputs[0]);
            self.conditioning = Some((Hash::of(&body), body.into()));
        } else if self.stage <= self.spec.steps + 1 {
            self.step(&outputs);
        } else {
            let mut merge = Merge::new(3, self.latent.rows * FACTOR, self.latent.columns * FACTOR);
            for (tile, output) in self.tiles(self.spec.layout.decode_tiles).into_iter().zip(&outputs) {
                merge.add(tile.scaled(FACTOR), output);
            }
            self.pixels = Some(merge.mean().values);
        }
    }

    /// The finished picture: final latent, then pixels.
    pub fn picture(&self) -> Option<Vec<u8>> {
        let pixels = self.pixels.as_ref()?;
        Some(tensor::to_bytes(&[self.latent.values.as_slice(), pixels].concat()))
    }

    fn works(&self) -> Vec<(Work, Vec<u8>)> {
        let spec = &self.spec;
        if self.kind == PlanKind::Whole {
            return vec![(Work::Paint { spec: Box::new(spec.clone()) }, Vec::new())];
        }
        if self.stage == 0 {
            let negative = spec.guided().then(|| spec.negative.clone());
            return vec![(Work::Encode { prompt: spec.prompt.clone(), negative }, Vec::new())];
        }
        let input = |tile: Tile| tensor::to_bytes(&self.latent.region(tile));
        if self.stage > spec.steps {
            let decode = |tile: Tile| Work::Decode { rows: tile.rows as u32, columns: tile.columns as u32 };
            return self.tiles(spec.layout.decode_tiles).into_iter().map(|tile| (decode(tile), input(tile))).collect();
        }
        let (conditioning, _) = self.conditioning.as_ref().expect("the first stage gives the conditioning");
        let denoise = |tile: Tile, branches| Work::Denoise {
            conditioning: *conditioning,
            conditioning_rows: 1 + u32::from(spec.guided()),
            branches,
            timestep: (spec.steps - self.stage) as f32,
            rows: tile.rows as u32,
            columns: tile.columns as u32,
        };
        let tiles = self.tiles(spec.layout.tiles).into_iter();
        tiles.flat_map(|tile| self.branches().iter().map(move |branch| (denoise(tile, *branch), input(tile)))).collect()
    }

    fn branches(&self) -> &'static [Branches] {
        match (self.spec.guided(), self.kind) {
            (false, _) => &[Branches::Prompt],
            (true, PlanKind::Cfg | PlanKind::CfgTiles) => &[Branches::Negative, Branches::Prompt],
            (true, PlanKind::Tiles | PlanKind::Whole) => &[Branches::Both],
        }
    }

    /// Guidance, merging in canonical order, and one step.
    fn step(&mut self, outputs: &[Vec<f32>]) {
        let mut merge = Merge::new(CHANNELS, self.latent.rows, self.latent.columns);
        let units = outputs.chunks(self.branches().len());
        for (tile, outputs) in self.tiles(self.spec.layout.tiles).into_iter().zip(units) {
            let output = outputs.concat();
            if self.spec.guided() {
                let (negative, prompt) = output.split_at(output.len() / 2);
                let guide = |(negative, prompt): (&f32, &f32)| negative + self.spec.guidance * (prompt - negative);
                merge.add(tile, &negative.iter().zip(prompt).map(guide).collect::<Vec<f32>>());
            } else {
                merge.add(tile, &output);
            }
        }
        for (value, output) in self.latent.values.iter_mut().zip(merge.mean().values) {
            *value = 0.9 * *value + 0.1 * output;
        }
    }

    fn tiles(&self, tiling: Option<Tiling>) -> Vec<Tile> {
        tiles(self.latent.rows, self.latent.columns, tiling)
    }
}

impl Canvas {
    fn new(channels: usize, rows: usize, columns: usize) -> Self {
        Self { channels, rows, columns, values: vec![0.0; channels * rows * columns] }
    }

    fn region(&self, tile: Tile) -> Vec<f32> {
        tile.places(self).into_iter().map(|place| self.values[place]).collect()
    }
}

impl Tile {
    fn scaled(self, factor: usize) -> Self {
        let Self { top, left, rows, columns } = self;
        Self { top: top * factor, left: left * factor, rows: rows * factor, columns: columns * factor }
    }

    /// Where its values lie on a canvas, in order.
    fn places(self, canvas: &Canvas) -> Vec<usize> {
        let row = |channel, row| (channel * canvas.rows + self.top + row) * canvas.columns + self.left;
        let rows = (0..canvas.channels).flat_map(|channel| (0..self.rows).map(move |index| row(channel, index)));
        rows.flat_map(|begin| begin..begin + self.columns).collect()
    }
}

/// The mean of overlapping tiles, summed in the order in which they are added.
struct Merge {
    sum: Canvas,
    times: Vec<f32>,
}

impl Merge {
    fn new(channels: usize, rows: usize, columns: usize) -> Self {
        let sum = Canvas::new(channels, rows, columns);
        Self { times: vec![0.0; sum.values.len()], sum }
    }

    fn add(&mut self, tile: Tile, values: &[f32]) {
        for (place, value) in tile.places(&self.sum).into_iter().zip(values) {
            self.sum.values[place] += value;
            self.times[place] += 1.0;
        }
    }

    fn mean(mut self) -> Canvas {
        for (value, times) in self.sum.values.iter_mut().zip(&self.times) {
            *value /= times;
        }
        self.sum
    }
}

/// The tiles of a canvas in canonical order: by rows, the last of each axis moved inside.
fn tiles(rows: usize, columns: usize, tiling: Option<Tiling>) -> Vec<Tile> {
    let starts = |length: usize| -> (usize, Vec<usize>) {
        let (tile, stride) = tiling.map_or((length, length), |Tiling { tile, overlap }| {
            (length.min(tile as usize), (tile - overlap) as usize)
        });
        let inner = (0..=length - tile).step_by(stride);
        let last = (!(length - tile).is_multiple_of(stride)).then_some(length - tile);
        (tile, inner.chain(last).collect())
    };
    let ((tile_rows, tops), (tile_columns, lefts)) = (starts(rows), starts(columns));
    let tile = |top, left| Tile { top, left, rows: tile_rows, columns: tile_columns };
    tops.iter().flat_map(|top| lefts.iter().map(|left| tile(*top, *left))).collect()
}

/// One pass of the network: values that depend on every byte of all parts.
fn pass(parts: &[&[u8]], count: usize) -> Vec<f32> {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        state = mix(state, part.len() as u64);
        for word in part.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            state = mix(state, u64::from_le_bytes(bytes));
        }
    }
    let mut rng = Rng::new(state, "");
    (0..count).map(|_| rng.value()).collect()
}

fn mix(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
}

/// What machines of a class make of a value: they are a millionth apart.
fn in_class(value: f32, class: u8) -> f32 {
    if class == 0 { value } else { value * (1.0 - 1e-6 * f32::from(class)) }
}

fn row_values() -> usize {
    (SHAPE.tokens * SHAPE.embedding_width) as usize
}

#[cfg(test)]
mod tests {
    use protocol::{Layout, PlanChoice, Size, Wire};

    use super::*;

    fn spec() -> JobSpec {
        let size = Size { width: 20, height: 14 };
        let layout = Layout {
            tiles: Some(Tiling { tile: 4, overlap: 2 }),
            decode_tiles: Some(Tiling { tile: 5, overlap: 1 }),
            wire: Wire::F32,
        };
        let (prompt, negative) = ("lake".into(), "fog".into());
        JobSpec { model: model(), prompt, negative, size, steps: 3, guidance: 3.0, seed: 5, layout }
    }

    fn paint(spec: &JobSpec, kind: PlanKind) -> Vec<u8> {
        let mut painting = Painting::new(JobId([1; 16]), spec.clone(), kind);
        while painting.picture().is_none() {
            let conditioning = painting.conditioning();
            for (unit, input) in painting.units().into_iter().rev() {
                unit.work.check(&SHAPE).unwrap();
                let body = compute(&unit.work, &input, conditioning.as_ref().map(|(_, body)| &**body), 0);
                assert_eq!(body.len(), 4 * unit.work.output_values(&SHAPE));
                painting.accept(unit.id, &body).unwrap();
            }
            painting.advance();
        }
        painting.picture().unwrap()
    }

    #[test]
    fn every_kind_of_plan_paints_the_same_picture() {
        let tiled = spec();
        let untiled = JobSpec { layout: Layout::new(PlanChoice::Cfg, tiled.size, &SHAPE), ..spec() };
        for kind in [PlanKind::Tiles, PlanKind::CfgTiles, PlanKind::Whole] {
            assert_eq!(paint(&tiled, kind), paint_alone(&tiled, 0), "{kind:?}");
        }
        for kind in [PlanKind::Tiles, PlanKind::Cfg, PlanKind::Whole] {
            assert_eq!(paint(&untiled, kind), paint_alone(&untiled, 0), "{kind:?}");
        }
        assert_ne!(paint_alone(&tiled, 0), paint_alone(&untiled, 0));
    }

    #[test]
    fn whatever_decides_the_picture_changes_it() {
        let picture = paint_alone(&spec(), 0);
        for other in [
            JobSpec { seed: 6, ..spec() },
            JobSpec { prompt: "lakes".into(), ..spec() },
            JobSpec { negative: "sun".into(), ..spec() },
            JobSpec { guidance: 3.5, ..spec() },
            JobSpec { steps: 4, ..spec() },
        ] {
            assert_ne!(paint_alone(&other, 0), picture, "{other:?}");
        }
        assert_ne!(paint_alone(&spec(), 1), picture, "another numeric class");
    }
}
