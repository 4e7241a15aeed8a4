//! The toy model: a network that is a hash, and a painter that does with it what `sampler` does in earnest.
//!
//! Its outputs depend on every byte that they may depend on, so that any mistake changes the picture.

mod tiles;

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::{Branches, Hash, JobId, JobSpec, ModelId, ModelShape, PlanKind, Steps, Unit, UnitId, Work, tensor};

use self::tiles::{Canvas, Merge, Tile, blended, tiles};
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
            let count = CHANNELS * *rows as usize * *columns as usize;
            let rows = branches.rows(*conditioning_rows as usize).unwrap_or_default();
            let branch = |index| denoise(input, conditioning.unwrap_or_default(), index, *timestep, count);
            rows.into_iter().flat_map(branch).collect()
        }
        Work::Run { guidance, steps, .. } => {
            let mut latent = tensor::from_bytes(input, input.len() / 4).unwrap_or_default();
            for step in steps.first..steps.first + steps.count {
                let (input, timestep) = (tensor::to_bytes(&latent), timestep(steps.in_all, step));
                let pass = |index| {
                    let values = denoise(&input, conditioning.unwrap_or_default(), index, timestep, latent.len());
                    values.into_iter().map(|value| in_class(value, class)).collect::<Vec<f32>>()
                };
                let output = if *guidance > 1.0 { guide(&pass(0), &pass(1), *guidance) } else { pass(0) };
                take_step(&mut latent, &output);
            }
            return tensor::to_bytes(&latent);
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
    /// Steps that are taken.
    steps_done: u32,
    latent: Canvas,
    conditioning: Option<(Hash, Arc<[u8]>)>,
    outputs: BTreeMap<UnitId, Vec<f32>>,
    pixels: Option<Vec<f32>>,
}

impl Painting {
    /// A picture before its first stage.
    pub fn new(job: JobId, spec: JobSpec, kind: PlanKind) -> Self {
        let (rows, columns) = spec.size.cells(&SHAPE);
        let mut latent = Canvas::new(CHANNELS, rows as usize, columns as usize);
        let mut rng = Rng::new(spec.seed, "noise");
        latent.values.fill_with(|| rng.value());
        Self {
            job,
            spec,
            kind,
            stage: 0,
            steps_done: 0,
            latent,
            conditioning: None,
            outputs: BTreeMap::new(),
            pixels: None,
        }
    }

    /// Into how many tiles the layout of a picture cuts its canvas.
    pub fn cut(spec: &JobSpec) -> Cut {
        let (rows, columns) = spec.size.cells(&SHAPE);
        let (rows, columns) = (rows as usize, columns as usize);
        let of_step = |step| tiles(rows, columns, spec.layout.tiles, spec.seed, step).len();
        let decode_tiles = tiles(rows, columns, blended(spec.layout.decode_tiles), 0, 0).len();
        Cut { tiles: (0..spec.steps).map(of_step).collect(), decode_tiles }
    }

    /// The stages of a picture: units of each, and what one of them costs.
    pub fn works_of(spec: &JobSpec, kind: PlanKind) -> Vec<(usize, u64)> {
        let mut painting = Self::new(JobId([0; 16]), spec.clone(), kind);
        painting.conditioning = Some((Hash::of(b""), Arc::from([])));
        let mut stages = Vec::new();
        loop {
            let works = painting.works();
            stages.push((works.len(), works[0].0.cost(&SHAPE)));
            if kind == PlanKind::Whole || painting.steps_done == spec.steps {
                return stages;
            }
            painting.steps_done += if painting.stage == 0 { 0 } else { painting.steps_of_stage() };
            painting.stage += 1;
        }
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
        } else if self.steps_done < self.spec.steps {
            if let PlanKind::Runs { .. } = self.kind {
                self.latent.values.clone_from(&outputs[0]);
            } else {
                self.step(&outputs);
            }
            self.steps_done += self.steps_of_stage();
        } else {
            let mut merge = Merge::new(3, self.latent.rows * FACTOR, self.latent.columns * FACTOR);
            for (tile, output) in self.decode_tiles().into_iter().zip(&outputs) {
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
        if self.steps_done == spec.steps {
            let decode = |tile: Tile| {
                let (rows, columns) = tile.sides();
                (Work::Decode { rows, columns }, input(tile))
            };
            return self.decode_tiles().into_iter().map(decode).collect();
        }
        let (conditioning, _) = self.conditioning.as_ref().expect("the first stage gives the conditioning");
        let conditioning = *conditioning;
        if let PlanKind::Runs { .. } = self.kind {
            let steps = Steps { first: self.steps_done, count: self.steps_of_stage(), in_all: spec.steps };
            let (rows, columns) = spec.size.cells(&SHAPE);
            let (guidance, wire) = (spec.guidance, spec.layout.wire);
            let work = Work::Run { conditioning, guidance, wire, steps, history: 0, rows, columns };
            return vec![(work, tensor::to_bytes(&self.latent.values))];
        }
        let denoise = |tile: Tile, branches| {
            let (rows, columns) = tile.sides();
            let conditioning_rows = 1 + u32::from(spec.guided());
            let timestep = timestep(spec.steps, self.steps_done);
            Work::Denoise { conditioning, conditioning_rows, branches, timestep, rows, columns }
        };
        let tiles = self.step_tiles().into_iter();
        tiles.flat_map(|tile| self.branches().iter().map(move |branch| (denoise(tile, *branch), input(tile)))).collect()
    }

    /// Steps that the present stage takes.
    fn steps_of_stage(&self) -> u32 {
        let left = self.spec.steps - self.steps_done;
        if let PlanKind::Runs { steps } = self.kind { steps.min(left) } else { 1 }
    }

    fn branches(&self) -> &'static [Branches] {
        match (self.spec.guided(), self.kind) {
            (false, _) => &[Branches::Prompt],
            (true, PlanKind::Cfg | PlanKind::CfgTiles) => &[Branches::Negative, Branches::Prompt],
            (true, PlanKind::Tiles | PlanKind::Whole | PlanKind::Runs { .. }) => &[Branches::Both],
        }
    }

    /// Guidance, merging in canonical order, and one step.
    fn step(&mut self, outputs: &[Vec<f32>]) {
        let mut merge = Merge::new(CHANNELS, self.latent.rows, self.latent.columns);
        let units = outputs.chunks(self.branches().len());
        for (tile, outputs) in self.step_tiles().into_iter().zip(units) {
            let output = outputs.concat();
            if self.spec.guided() {
                let (negative, prompt) = output.split_at(output.len() / 2);
                merge.add(tile, &guide(negative, prompt, self.spec.guidance));
            } else {
                merge.add(tile, &output);
            }
        }
        take_step(&mut self.latent.values, &merge.mean().values);
    }

    fn step_tiles(&self) -> Vec<Tile> {
        tiles(self.latent.rows, self.latent.columns, self.spec.layout.tiles, self.spec.seed, self.steps_done)
    }

    fn decode_tiles(&self) -> Vec<Tile> {
        tiles(self.latent.rows, self.latent.columns, blended(self.spec.layout.decode_tiles), 0, 0)
    }
}

/// The timestep of a step, counted from zero.
fn timestep(steps: u32, step: u32) -> f32 {
    (steps - 1 - step) as f32
}

/// One branch of a denoising pass.
fn denoise(input: &[u8], conditioning: &[u8], row: usize, timestep: f32, count: usize) -> Vec<f32> {
    let row = conditioning.get(4 * row * row_values()..4 * (row + 1) * row_values()).unwrap_or_default();
    pass(&[b"denoise", input, row, &timestep.to_le_bytes()], count)
}

fn guide(negative: &[f32], prompt: &[f32], guidance: f32) -> Vec<f32> {
    negative.iter().zip(prompt).map(|(negative, prompt)| negative + guidance * (prompt - negative)).collect()
}

/// The scheduler's step.
fn take_step(latent: &mut [f32], output: &[f32]) {
    for (value, output) in latent.iter_mut().zip(output) {
        *value = 0.9 * *value + 0.1 * output;
    }
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
    use protocol::{Layout, PlanChoice, Size, Tiles, Tiling, Wire};

    use super::*;

    fn spec() -> JobSpec {
        let size = Size { width: 20, height: 14 };
        let layout = Layout {
            tiles: Tiles::Blended(Tiling { tile: 4, overlap: 2 }),
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
        for steps in 1..=4 {
            assert_eq!(paint(&untiled, PlanKind::Runs { steps }), paint_alone(&untiled, 0), "runs of {steps}");
        }
        assert_ne!(paint_alone(&tiled, 0), paint_alone(&untiled, 0));
        let mut shifted = spec();
        shifted.layout.tiles = Tiles::Shifted { tile: 4 };
        for kind in [PlanKind::Tiles, PlanKind::CfgTiles, PlanKind::Whole] {
            assert_eq!(paint(&shifted, kind), paint_alone(&shifted, 0), "shifted, {kind:?}");
        }
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
