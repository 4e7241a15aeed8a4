//! Splits a canvas into tiles and merges what was made of them, in one order whatever the order of arrival.
//!
//! A grid is a pure function of the job and the step. Overlapping tiles are blended by separable ramps, as in "Mixture of
//! Diffusers" and MultiDiffusion, normalised to sum to one at every cell. Shifted tiles (SpotDiffusion, arXiv 2407.15507) share
//! nothing: every cell comes from one of them, so that nothing is summed.

use std::ops::Range;

use protocol::{Tiles, Tiling};

use crate::noise;

/// A rectangle of the canvas, in the grid's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub row: u32,
    /// First column.
    pub column: u32,
    /// Number of rows.
    pub rows: u32,
    /// Number of columns.
    pub columns: u32,
}

/// Tiles that cover a canvas, in row-major order.
#[derive(Clone, Debug)]
pub struct Grid {
    rows: Axis,
    columns: Axis,
}

/// One axis of a grid: where its tiles start, and what each contributes.
#[derive(Clone, Debug)]
struct Axis {
    length: u32,
    tile: u32,
    starts: Vec<u32>,
    share: Share,
}

/// What the tiles of an axis contribute.
#[derive(Clone, Debug)]
enum Share {
    /// How much each counts at each of its cells: `[tiles, tile]`, summing to one over the tiles at every cell.
    Blended { overlap: u32, weights: Vec<Vec<f32>> },
    /// The cells of the axis that each gives, and no other does.
    Kept(Vec<Range<u32>>),
}

/// First cells of tiles of `tile` cells along `length`, `tile - overlap` apart, the last one moved back to end with the
/// axis. `tile` is more than `overlap`.
pub fn starts(length: u32, tile: u32, overlap: u32) -> Vec<u32> {
    assert!(overlap < tile, "tiles must advance");
    let Some(last) = length.checked_sub(tile) else { return vec![0] };
    let mut starts: Vec<u32> = (0..last).step_by((tile - overlap) as usize).collect();
    starts.push(last);
    starts
}

/// How many tiles [`Grid::new`] will have, without the memory to make it.
pub fn tile_count(rows: u32, columns: u32, tiling: Option<Tiling>) -> usize {
    tiling.map_or(1, |tiling| tiling.count(rows, columns))
}

/// How many tiles each of `steps` steps has, without the memory to make them.
pub fn step_tile_counts(rows: u32, columns: u32, tiles: Tiles, seed: u64, steps: u32) -> Vec<usize> {
    match tiles {
        Tiles::Whole => vec![1; steps as usize],
        Tiles::Blended(tiling) => vec![tile_count(rows, columns, Some(tiling)); steps as usize],
        Tiles::Shifted { tile } => {
            let count = |step| {
                let (down, across) = noise::shift(seed, step, tile);
                strips(rows, tile, down).count() * strips(columns, tile, across).count()
            };
            (0..steps).map(count).collect()
        }
    }
}

/// The cells between the lines of a grid of `tile` cells that is shifted by less than that: a whole tile each but for the
/// first and the last. An axis that one tile covers has no lines.
fn strips(length: u32, tile: u32, shift: u32) -> impl Iterator<Item = Range<u32>> {
    let first = if shift == 0 { tile } else { shift };
    let first = if length <= tile { length } else { first };
    let begins = std::iter::once(0).chain((first..length).step_by(tile as usize));
    begins.map(move |begin| begin..if begin == 0 { first } else { begin + tile }.min(length))
}

impl Grid {
    /// Covers `rows` x `columns` cells with blended tiles, or with one tile of the canvas' size if there is no tiling.
    pub fn new(rows: u32, columns: u32, tiling: Option<Tiling>) -> Self {
        let axis = |length: u32| match tiling {
            Some(Tiling { tile, overlap }) => {
                Axis::blended(length, tile.min(length), overlap, starts(length, tile, overlap))
            }
            None => Axis::blended(length, length, 0, vec![0]),
        };
        Self { rows: axis(rows), columns: axis(columns) }
    }

    /// Covers the canvas with tiles of `tile` cells that share nothing, as seed and step shift them.
    pub fn shifted(rows: u32, columns: u32, tile: u32, seed: u64, step: u32) -> Self {
        let (down, across) = noise::shift(seed, step, tile);
        Self { rows: Axis::shifted(rows, tile, down), columns: Axis::shifted(columns, tile, across) }
    }

    /// The same tiles in cells `factor` times finer, for example in pixels instead of latent cells. The ramps are as fine.
    pub fn scaled(&self, factor: u32) -> Self {
        Self { rows: self.rows.scaled(factor), columns: self.columns.scaled(factor) }
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Where the tile is.
    pub fn region(&self, tile: usize) -> Region {
        let (down, across) = self.position(tile);
        Region {
            row: self.rows.starts[down],
            column: self.columns.starts[across],
            rows: self.rows.tile,
            columns: self.columns.tile,
        }
    }

    /// Copies a tile's region out of `canvas`, `[channels, rows, columns]`.
    pub fn cut(&self, canvas: &[f32], tile: usize) -> Vec<f32> {
        let Region { row, column, rows, columns } = self.region(tile);
        let width = self.columns.length as usize;
        let mut region = Vec::with_capacity(canvas.len() / self.area() * rows as usize * columns as usize);
        for channel in canvas.chunks_exact(self.area()) {
            for line in channel.chunks_exact(width).skip(row as usize).take(rows as usize) {
                region.extend_from_slice(&line[column as usize..(column + columns) as usize]);
            }
        }
        region
    }

    /// All tiles as one canvas, `[channels, rows, columns]`: their weighted mean, or each cell from the one tile that gives it.
    /// `tiles` holds each tile's `[channels, rows, columns]` in grid order, which is the order of summation.
    pub fn merge<T: AsRef<[f32]>>(&self, channels: usize, tiles: &[T]) -> Vec<f32> {
        assert_eq!(tiles.len(), self.count(), "every tile of the grid is merged");
        let mut canvas = vec![0.0; channels * self.area()];
        for (index, values) in tiles.iter().enumerate() {
            let (down, across) = self.position(index);
            let Region { row, column, rows, columns } = self.region(index);
            let (rows, columns) = (rows as usize, columns as usize);
            assert_eq!(values.as_ref().len(), channels * rows * columns, "a tile has its region's size");
            for (line, values) in values.as_ref().chunks_exact(columns).enumerate() {
                let (channel, line) = (line / rows, line % rows);
                let start = (channel * self.rows.length as usize + row as usize + line) * self.columns.length as usize;
                let cells = &mut canvas[start..start + self.columns.length as usize];
                match (&self.rows.share, &self.columns.share) {
                    (Share::Blended { weights: downs, .. }, Share::Blended { weights: acrosses, .. }) => {
                        let (down, cells) = (downs[down][line], &mut cells[column as usize..]);
                        for ((sum, value), across) in cells.iter_mut().zip(values).zip(&acrosses[across]) {
                            *sum += (down * across) * value;
                        }
                    }
                    (Share::Kept(downs), Share::Kept(acrosses)) if downs[down].contains(&(row + line as u32)) => {
                        let kept = acrosses[across].start as usize..acrosses[across].end as usize;
                        let first = kept.start - column as usize;
                        cells[kept.clone()].copy_from_slice(&values[first..first + kept.len()]);
                    }
                    (Share::Kept(_), _) | (_, Share::Kept(_)) => {}
                }
            }
        }
        canvas
    }

    fn position(&self, tile: usize) -> (usize, usize) {
        (tile / self.columns.starts.len(), tile % self.columns.starts.len())
    }

    fn area(&self) -> usize {
        self.rows.length as usize * self.columns.length as usize
    }
}

impl Axis {
    fn blended(length: u32, tile: u32, overlap: u32, starts: Vec<u32>) -> Self {
        let mut weights: Vec<Vec<f32>> = starts.iter().map(|&start| feather(start, length, tile, overlap)).collect();
        let mut sums = vec![0.0_f32; length as usize];
        for (&start, weights) in starts.iter().zip(&weights) {
            sums[start as usize..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        for (&start, weights) in starts.iter().zip(&mut weights) {
            weights.iter_mut().zip(&sums[start as usize..]).for_each(|(weight, sum)| *weight /= sum);
        }
        Self { length, tile, starts, share: Share::Blended { overlap, weights } }
    }

    fn shifted(length: u32, tile: u32, shift: u32) -> Self {
        let kept: Vec<_> = strips(length, tile, shift).collect();
        let tile = tile.min(length);
        // A strip narrower than a tile is the border's: its tile begins or ends with the canvas.
        let starts = kept.iter().map(|strip| strip.start.min(length - tile)).collect();
        Self { length, tile, starts, share: Share::Kept(kept) }
    }

    fn scaled(&self, factor: u32) -> Self {
        let (length, tile) = (self.length * factor, self.tile * factor);
        let starts: Vec<u32> = self.starts.iter().map(|start| start * factor).collect();
        match &self.share {
            Share::Blended { overlap, .. } => Self::blended(length, tile, overlap * factor, starts),
            Share::Kept(kept) => {
                let kept = kept.iter().map(|cells| cells.start * factor..cells.end * factor).collect();
                Self { length, tile, starts, share: Share::Kept(kept) }
            }
        }
    }

    #[cfg(test)]
    fn weights(&self) -> &[Vec<f32>] {
        match &self.share {
            Share::Blended { weights, .. } => weights,
            Share::Kept(_) => panic!("these tiles are not blended"),
        }
    }
}

/// Weights of a tile that starts at `start` of an axis: ramps of `overlap` cells towards its neighbours, none towards the
/// border of the image.
fn feather(start: u32, length: u32, tile: u32, overlap: u32) -> Vec<f32> {
    let ramp = |cells: u32| (cells + 1) as f32 / (overlap + 1) as f32;
    (0..tile)
        .map(|cell| {
            let left = if start == 0 { 1.0 } else { ramp(cell) };
            let right = if start + tile == length { 1.0 } else { ramp(tile - 1 - cell) };
            left.min(right).min(1.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Purpose, field};

    #[test]
    fn every_cell_is_covered_and_neighbours_share_the_overlap() {
        for length in 1..=70 {
            for tile in 1..=20 {
                for overlap in 0..tile {
                    let starts = starts(length, tile, overlap);
                    let side = tile.min(length);
                    assert_eq!(starts[0], 0, "{length} {tile} {overlap}");
                    assert_eq!(starts[starts.len() - 1] + side, length, "{length} {tile} {overlap}");
                    for pair in starts.windows(2) {
                        assert!(pair[0] < pair[1] && pair[0] + tile - pair[1] >= overlap, "{length} {tile} {overlap}");
                    }
                    assert_eq!(tile_count(length, 1, Some(Tiling { tile, overlap })), starts.len());
                }
            }
        }
    }

    #[test]
    fn weights_are_positive_and_sum_to_one_at_every_cell() {
        for (rows, columns, tile, overlap) in [(16, 48, 16, 8), (37, 23, 10, 3), (64, 64, 8, 7), (5, 5, 8, 0)] {
            for factor in [1, 8] {
                let grid = Grid::new(rows, columns, Some(Tiling { tile, overlap })).scaled(factor);
                let tiles: Vec<Vec<f32>> = (0..grid.count())
                    .map(|tile| {
                        let region = grid.region(tile);
                        vec![1.0; (region.rows * region.columns) as usize]
                    })
                    .collect();
                assert!(grid.rows.weights().iter().chain(grid.columns.weights()).flatten().all(|&weight| weight > 0.0));
                assert!(grid.merge(1, &tiles).iter().all(|sum| (sum - 1.0).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn ramps_are_dropped_at_the_border_of_the_image() {
        let grid = Grid::new(4, 12, Some(Tiling { tile: 8, overlap: 4 }));
        assert_eq!(grid.rows.weights(), [[1.0; 4]]);
        assert_eq!(grid.columns.weights()[0][..4], [1.0; 4]);
        assert_eq!(grid.columns.weights()[1][4..], [1.0; 4]);
        assert!(grid.columns.weights()[0][4..].is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn shifted_tiles_are_whole_and_every_cell_comes_from_one_of_them() {
        for (rows, columns, tile) in [(16, 48, 16), (37, 23, 8), (8, 9, 8), (5, 70, 16), (7, 7, 8), (17, 31, 16)] {
            for step in 0..40 {
                let grid = Grid::shifted(rows, columns, tile, 7, step);
                let counts = step_tile_counts(rows, columns, Tiles::Shifted { tile }, 7, 40);
                assert_eq!(grid.count(), counts[step as usize]);
                assert!(grid.count() as u32 <= (rows.div_ceil(tile) + 1) * (columns.div_ceil(tile) + 1));
                let values: Vec<Vec<f32>> = (0..grid.count())
                    .map(|index| {
                        let region = grid.region(index);
                        assert_eq!((region.rows, region.columns), (tile.min(rows), tile.min(columns)));
                        assert!(region.row + region.rows <= rows && region.column + region.columns <= columns);
                        // No tile gives a zero, and -0 stays what it is.
                        vec![if index == 0 { -0.0 } else { index as f32 }; (region.rows * region.columns) as usize]
                    })
                    .collect();
                let merged = grid.merge(1, &values);
                let given = |index: usize| merged.iter().filter(|value| **value == index as f32).count();
                assert!((0..grid.count()).all(|index| given(index) > 0), "every tile gives something");
                assert!(merged.iter().all(|value| *value > 0.0 || value.to_bits() == (-0.0_f32).to_bits()));
                let canvas = field(1, Purpose::Initial, 0, 3, rows, columns);
                let tiles: Vec<_> = (0..grid.count()).map(|tile| grid.cut(&canvas, tile)).collect();
                assert_eq!(grid.merge(3, &tiles), canvas);
                let fine = grid.scaled(2);
                assert_eq!(
                    fine.merge(1, &vec![vec![1.0; (4 * tile.min(rows) * tile.min(columns)) as usize]; fine.count()]),
                    vec![1.0; (4 * rows * columns) as usize]
                );
            }
        }
    }

    #[test]
    fn a_canvas_that_one_tile_covers_is_not_cut() {
        assert!((0..20).all(|step| Grid::shifted(8, 5, 8, 3, step).count() == 1));
        let moved: std::collections::BTreeSet<u32> =
            (0..20).map(|step| Grid::shifted(8, 24, 8, 3, step).region(1).column).collect();
        assert!(moved.len() > 4, "the grid moves: {moved:?}");
    }

    #[test]
    fn a_canvas_cut_and_merged_is_itself() {
        let canvas = field(1, Purpose::Initial, 0, 3, 20, 33);
        let whole = Grid::new(20, 33, None);
        assert_eq!(whole.merge(3, &[whole.cut(&canvas, 0)]), canvas);
        let grid = Grid::new(20, 33, Some(Tiling { tile: 9, overlap: 4 }));
        let tiles: Vec<_> = (0..grid.count()).map(|tile| grid.cut(&canvas, tile)).collect();
        let merged = grid.merge(3, &tiles);
        assert!(merged.iter().zip(&canvas).all(|(merged, value)| (merged - value).abs() < 1e-5));
    }
}
