//! A toy model: tiny shapes, a deterministic computation in place of a network, and a picture painted with it in stages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::{Branches, Capabilities, Hash, Instant, JobId, ModelId, ModelShape, PeerId, Unit, UnitId, Work, tensor};

pub const SHAPE: ModelShape =
    ModelShape { latent_channels: 2, factor: 2, native_cells: 4, tokens: 3, embedding_width: 4 };

/// A moment, in milliseconds.
pub fn at(ms: u64) -> Instant {
    Instant::from_origin(std::time::Duration::from_millis(ms))
}

pub fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

pub fn model() -> ModelId {
    ModelId(Hash::of(b"toy model"))
}

pub fn job(number: u8) -> JobId {
    JobId([number; 16])
}

pub fn capabilities(models: Vec<ModelId>) -> Capabilities {
    Capabilities { models, ..Capabilities::new("toy", "cpu") }
}

/// SplitMix64: seeded, and enough to shuffle with.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What the toy network gives for a unit: values in [-1, 1] that depend on every byte it may depend on.
pub fn compute(work: &Work, input: &[u8], conditioning: Option<&[u8]>) -> Vec<u8> {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    mix(input);
    mix(conditioning.unwrap_or_default());
    match work {
        Work::Encode { prompt, .. } => mix(prompt.as_bytes()),
        Work::Denoise { timestep, branches, .. } => {
            mix(&timestep.to_le_bytes());
            mix(&[*branches as u8]);
        }
        Work::Run { .. } | Work::Decode { .. } | Work::Paint { .. } => {}
    }
    let mut rng = Rng(state);
    let value = |_| (rng.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    tensor::to_bytes(&(0..work.output_values(&SHAPE)).map(value).collect::<Vec<f32>>())
}

/// What is painted: it fixes every bit of the result.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    pub tiles: u32,
    pub steps: u32,
    /// One unit for each branch of each tile.
    pub split: bool,
}

/// A picture under way: what `sampler` does in earnest.
#[derive(Clone)]
pub struct Painting {
    pub job: JobId,
    picture: Picture,
    stage: u32,
    canvas: Vec<Vec<f32>>,
    pub conditioning: Option<(Hash, Arc<[u8]>)>,
    outputs: BTreeMap<UnitId, Vec<u8>>,
    pub finished: Option<Vec<u8>>,
    pub failed: Option<Vec<(PeerId, String)>>,
    pub workers: BTreeSet<PeerId>,
}

const CELLS: u32 = 4;

impl Painting {
    pub fn new(job: JobId, picture: Picture) -> Self {
        let values = (SHAPE.latent_channels * CELLS * CELLS) as usize;
        let canvas = (0..picture.tiles).map(|tile| vec![tile as f32 / 100.0; values]).collect();
        let (conditioning, outputs) = (None, BTreeMap::new());
        let (finished, failed, workers) = (None, None, BTreeSet::new());
        Self { job, picture, stage: 0, canvas, conditioning, outputs, finished, failed, workers }
    }

    /// The units of the present stage.
    pub fn units(&self) -> Vec<(Unit, Arc<[u8]>)> {
        let unit = |index: u32, work: Work, input: Vec<u8>| {
            let id = UnitId { stage: self.stage, index };
            (Unit { job: self.job, id, model: model(), work }, Arc::from(input))
        };
        let tiles = || (0..).zip(self.canvas.iter().map(|tile| tensor::to_bytes(tile)));
        if self.stage == 0 {
            return vec![unit(0, Work::Encode { prompt: "mountains".into(), negative: Some(String::new()) }, vec![])];
        }
        if self.stage > self.picture.steps {
            return tiles()
                .map(|(tile, input)| unit(tile, Work::Decode { rows: CELLS, columns: CELLS }, input))
                .collect();
        }
        let branches: &[_] =
            if self.picture.split { &[Branches::Negative, Branches::Prompt] } else { &[Branches::Both] };
        let denoise = |branches| Work::Denoise {
            conditioning: self.conditioning.as_ref().unwrap().0,
            conditioning_rows: 2,
            branches,
            timestep: (self.picture.steps - self.stage) as f32,
            rows: CELLS,
            columns: CELLS,
        };
        let all = tiles().flat_map(|(_, input)| branches.iter().map(move |branch| (*branch, input.clone())));
        (0..).zip(all).map(|(index, (branches, input))| unit(index, denoise(branches), input)).collect()
    }

    pub fn accept(&mut self, unit: UnitId, body: Vec<u8>) {
        assert_eq!(unit.stage, self.stage, "only units of the present stage are delivered");
        assert!(self.outputs.insert(unit, body).is_none(), "a unit is delivered once");
    }

    /// The stage that is painted now.
    pub fn stage(&self) -> u32 {
        self.stage
    }

    /// Ends the present stage; afterwards the next one may begin, unless the picture is finished.
    pub fn advance(&mut self) {
        assert_eq!(self.outputs.len(), self.units().len(), "a stage is done when all its units are");
        let outputs: Vec<Vec<u8>> = std::mem::take(&mut self.outputs).into_values().collect();
        let values = |bytes: &[u8]| tensor::from_bytes(bytes, bytes.len() / 4).unwrap();
        self.stage += 1;
        if self.stage == 1 {
            self.conditioning = Some((Hash::of(&outputs[0]), outputs[0].clone().into()));
        } else if self.stage > self.picture.steps + 1 {
            self.finished = Some(outputs.concat());
        } else {
            let both = values(&outputs.concat());
            let width = self.canvas[0].len();
            let pairs: Vec<&[f32]> = both.chunks(2 * width).collect();
            let merged = |tile: usize, cell: usize| {
                let pair = pairs[tile % pairs.len()];
                pair[cell] + 1.5 * (pair[width + cell] - pair[cell])
            };
            for (index, tile) in self.canvas.iter_mut().enumerate() {
                for (cell, value) in tile.iter_mut().enumerate() {
                    *value = 0.5 * *value + 0.3 * merged(index, cell) + 0.2 * merged(index + 1, cell);
                }
            }
        }
    }
}

/// The picture as one machine paints it alone.
pub fn reference(picture: Picture) -> Vec<u8> {
    let mut painting = Painting::new(job(1), picture);
    while painting.finished.is_none() {
        let conditioning = painting.conditioning.clone();
        for (unit, input) in painting.units() {
            let blob = named_blob(&unit.work, conditioning.as_ref());
            let body = compute(&unit.work, &input, blob);
            painting.accept(unit.id, body);
        }
        painting.advance();
    }
    painting.finished.unwrap()
}

fn named_blob<'a>(work: &Work, conditioning: Option<&'a (Hash, Arc<[u8]>)>) -> Option<&'a [u8]> {
    work.conditioning().is_some().then(|| &*conditioning.unwrap().1)
}
