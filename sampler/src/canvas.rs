//! Splits a canvas into overlapping tiles and merges what was made of them, in one order whatever the order of arrival.
//!
//! A grid is a pure function of the canvas and the tiling. Its weights are separable ramps, as in
//! "Mixture of Diffusers" and MultiDiffusion, normalised to sum to one at every cell.

use protocol::Tiling;

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

/// Overlapping tiles that cover a canvas, in row-major order.
#[derive(Clone, Debug)]
pub struct Grid {
    rows: Axis,
    columns: Axis,
}

/// One axis of a grid: where its tiles start, and how much each counts at each of its cells.
#[derive(Clone, Debug)]
struct Axis {
    length: u32,
    tile: u32,
    overlap: u32,
    starts: Vec<u32>,
    /// `[tiles, tile]`, summing to one over the tiles at every cell.
    weights: Vec<Vec<f32>>,
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
    let Some(Tiling { tile, overlap }) = tiling else { return 1 };
    let along = |length: u32| 1 + length.saturating_sub(tile).div_ceil(tile - overlap) as usize;
    along(rows).saturating_mul(along(columns))
}

impl Grid {
    /// Covers `rows` x `columns` cells with tiles, or with one tile of the canvas' size if there is no tiling.
    pub fn new(rows: u32, columns: u32, tiling: Option<Tiling>) -> Self {
        let axis = |length: u32| match tiling {
            Some(Tiling { tile, overlap }) => {
                Axis::new(length, tile.min(length), overlap, starts(length, tile, overlap))
            }
            None => Axis::new(length, length, 0, vec![0]),
        };
        Self { rows: axis(rows), columns: axis(columns) }
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

    /// The weighted mean of all tiles, `[channels, rows, columns]`; `tiles` holds each tile's `[channels, rows, columns]`
    /// in grid order, which is the order of summation.
    pub fn merge<T: AsRef<[f32]>>(&self, channels: usize, tiles: &[T]) -> Vec<f32> {
        assert_eq!(tiles.len(), self.count(), "every tile of the grid is merged");
        let width = self.columns.length as usize;
        let mut canvas = vec![0.0; channels * self.area()];
        for (index, values) in tiles.iter().enumerate() {
            let (down, across) = self.position(index);
            let Region { row, column, rows, columns } = self.region(index);
            let (rows, columns) = (rows as usize, columns as usize);
            assert_eq!(values.as_ref().len(), channels * rows * columns, "a tile has its region's size");
            for (line, values) in values.as_ref().chunks_exact(columns).enumerate() {
                let (channel, line) = (line / rows, line % rows);
                let start = channel * self.area() + (row as usize + line) * width + column as usize;
                let down = self.rows.weights[down][line];
                for ((sum, value), across) in
                    canvas[start..start + columns].iter_mut().zip(values).zip(&self.columns.weights[across])
                {
                    *sum += (down * across) * value;
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
    fn new(length: u32, tile: u32, overlap: u32, starts: Vec<u32>) -> Self {
        let mut weights: Vec<Vec<f32>> = starts.iter().map(|&start| feather(start, length, tile, overlap)).collect();
        let mut sums = vec![0.0_f32; length as usize];
        for (&start, weights) in starts.iter().zip(&weights) {
            sums[start as usize..].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        for (&start, weights) in starts.iter().zip(&mut weights) {
            weights.iter_mut().zip(&sums[start as usize..]).for_each(|(weight, sum)| *weight /= sum);
        }
        Self { length, tile, overlap, starts, weights }
    }

    fn scaled(&self, factor: u32) -> Self {
        let starts = self.starts.iter().map(|start| start * factor).collect();
        Self::new(self.length * factor, self.tile * factor, self.overlap * factor, starts)
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
                assert!(grid.rows.weights.iter().chain(&grid.columns.weights).flatten().all(|&weight| weight > 0.0));
                assert!(grid.merge(1, &tiles).iter().all(|sum| (sum - 1.0).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn ramps_are_dropped_at_the_border_of_the_image() {
        let grid = Grid::new(4, 12, Some(Tiling { tile: 8, overlap: 4 }));
        assert_eq!(grid.rows.weights, [[1.0; 4]]);
        assert_eq!(grid.columns.weights[0][..4], [1.0; 4]);
        assert_eq!(grid.columns.weights[1][4..], [1.0; 4]);
        assert!(grid.columns.weights[0][4..].is_sorted_by(|a, b| a > b));
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
