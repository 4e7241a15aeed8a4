//! How the toy painter cuts a canvas into tiles and puts it together again.

use protocol::{Tiles, Tiling};

use crate::sim::rng::Rng;

/// Planes of values.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    channels: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// A tile's strips of rows and columns, in cells.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    down: Strip,
    across: Strip,
}

/// What a tile covers along one axis, and which cells of that it gives.
#[derive(Clone, Copy)]
struct Strip {
    begin: usize,
    length: usize,
    kept: (usize, usize),
}

impl Canvas {
    pub(super) fn new(channels: usize, rows: usize, columns: usize) -> Self {
        Self { channels, rows, columns, values: vec![0.0; channels * rows * columns] }
    }

    pub(super) fn region(&self, tile: Tile) -> Vec<f32> {
        tile.places(self).into_iter().map(|place| self.values[place]).collect()
    }
}

impl Tile {
    /// Its rows and columns.
    pub(super) fn sides(self) -> (u32, u32) {
        (self.down.length as u32, self.across.length as u32)
    }

    pub(super) fn scaled(self, factor: usize) -> Self {
        Self { down: self.down.scaled(factor), across: self.across.scaled(factor) }
    }

    /// Where its values lie on a canvas, in order.
    fn places(self, canvas: &Canvas) -> Vec<usize> {
        let row = |channel, row| (channel * canvas.rows + self.down.begin + row) * canvas.columns + self.across.begin;
        let rows = (0..canvas.channels).flat_map(|channel| (0..self.down.length).map(move |index| row(channel, index)));
        rows.flat_map(|begin| begin..begin + self.across.length).collect()
    }

    /// Whether it gives what lies at this place.
    fn gives(self, place: usize, canvas: &Canvas) -> bool {
        let (row, column) = (place / canvas.columns % canvas.rows, place % canvas.columns);
        let is_kept = |strip: Strip, index| (strip.kept.0..strip.kept.1).contains(&index);
        is_kept(self.down, row) && is_kept(self.across, column)
    }
}

impl Strip {
    fn scaled(self, factor: usize) -> Self {
        let (first, end) = self.kept;
        Self { begin: self.begin * factor, length: self.length * factor, kept: (first * factor, end * factor) }
    }
}

/// The mean of overlapping tiles, summed in the order in which they are added.
pub(super) struct Merge {
    sum: Canvas,
    times: Vec<f32>,
}

impl Merge {
    pub(super) fn new(channels: usize, rows: usize, columns: usize) -> Self {
        let sum = Canvas::new(channels, rows, columns);
        Self { times: vec![0.0; sum.values.len()], sum }
    }

    pub(super) fn add(&mut self, tile: Tile, values: &[f32]) {
        for (place, value) in tile.places(&self.sum).into_iter().zip(values) {
            if !tile.gives(place, &self.sum) {
                continue;
            }
            self.sum.values[place] += value;
            self.times[place] += 1.0;
        }
    }

    pub(super) fn mean(mut self) -> Canvas {
        for (value, times) in self.sum.values.iter_mut().zip(&self.times) {
            *value /= times;
        }
        self.sum
    }
}

/// The tiles of a canvas in a step, in canonical order: by rows.
pub(super) fn tiles(rows: usize, columns: usize, tiles: Tiles, seed: u64, step: u32) -> Vec<Tile> {
    let mut rng = Rng::new(seed ^ u64::from(step), "shift");
    let mut strips = |length: usize| match tiles {
        Tiles::Whole => vec![Strip { begin: 0, length, kept: (0, length) }],
        Tiles::Blended(Tiling { tile, overlap }) => overlapping(length, tile as usize, overlap as usize),
        Tiles::Shifted { tile } => {
            let shift = rng.below(tile as usize);
            disjoint(length, tile as usize, shift)
        }
    };
    let (down, across) = (strips(rows), strips(columns));
    down.iter().flat_map(|down| across.iter().map(|across| Tile { down: *down, across: *across })).collect()
}

pub(super) fn blended(tiling: Option<Tiling>) -> Tiles {
    tiling.map_or(Tiles::Whole, Tiles::Blended)
}

/// Strips that overlap, the last one moved inside.
fn overlapping(length: usize, tile: usize, overlap: usize) -> Vec<Strip> {
    let tile = tile.min(length);
    let stride = (tile - overlap.min(tile - 1)).max(1);
    let inner = (0..=length - tile).step_by(stride);
    let last = (!(length - tile).is_multiple_of(stride)).then_some(length - tile);
    inner.chain(last).map(|begin| Strip { begin, length: tile, kept: (begin, begin + tile) }).collect()
}

/// Strips that share nothing, on a grid that begins at `shift`; each is evaluated as a whole tile inside the canvas.
fn disjoint(length: usize, tile: usize, shift: usize) -> Vec<Strip> {
    if length <= tile {
        return vec![Strip { begin: 0, length, kept: (0, length) }];
    }
    let first = if shift == 0 { tile } else { shift };
    let begins = std::iter::once(0).chain((first..length).step_by(tile));
    let strip = |begin: usize| {
        let end = if begin == 0 { first } else { begin + tile }.min(length);
        Strip { begin: begin.min(length - tile), length: tile, kept: (begin, end) }
    };
    begins.map(strip).collect()
}
