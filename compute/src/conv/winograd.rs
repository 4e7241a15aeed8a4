//! 3 x 3 convolution by Winograd's minimal filtering (Lavin and Gray 2015): the picture is cut into tiles, and tiles and
//! weights are transformed so that each tile costs a few matrix products instead of nine products for each cell.

use std::sync::OnceLock;

use burn::tensor::{Tensor, TensorData};

/// Tiles below which the products would be too thin to be fast.
const TILES_MIN: usize = 16;

/// Matrices of one of the two tilings: `SIDE` = cells read along one axis of a tile, `OUT` = cells written.
struct Filter<const SIDE: usize, const OUT: usize> {
    /// Transforms cells read.
    input: [[f32; SIDE]; SIDE],
    /// Transforms weights.
    weight: [[f32; 3]; SIDE],
    /// Transforms products to cells written.
    output: [[f32; SIDE]; OUT],
}

/// F(2 x 2, 3 x 3): 16 products for 4 cells.
const TWO: Filter<4, 2> = Filter {
    input: [[1., 0., -1., 0.], [0., 1., 1., 0.], [0., -1., 1., 0.], [0., 1., 0., -1.]],
    weight: [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]],
    output: [[1., 1., 1., 0.], [0., 1., -1., -1.]],
};

/// F(4 x 4, 3 x 3): 36 products for 16 cells.
const FOUR: Filter<6, 4> = Filter {
    input: [
        [4., 0., -5., 0., 1., 0.],
        [0., -4., -4., 1., 1., 0.],
        [0., 4., -4., -1., 1., 0.],
        [0., -2., -1., 2., 1., 0.],
        [0., 2., -1., -2., 1., 0.],
        [0., 4., 0., -5., 0., 1.],
    ],
    weight: [
        [0.25, 0., 0.],
        [-1. / 6., -1. / 6., -1. / 6.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 24., 1. / 12., 1. / 6.],
        [1. / 24., -1. / 12., 1. / 6.],
        [0., 0., 1.],
    ],
    output: [
        [1., 1., 1., 1., 1., 0.],
        [0., 1., -1., 2., -2., 0.],
        [0., 1., 1., 4., 4., 0.],
        [0., 1., -1., 8., -8., 1.],
    ],
};

/// A 3 x 3 convolution with stride 1 and a border of one zero, its weights transformed for both tilings when first used.
pub(super) struct Winograd {
    /// `[outputs, inputs * 9]`.
    weight: Tensor<2>,
    inputs: usize,
    outputs: usize,
    two: OnceLock<Tensor<3>>,
    four: OnceLock<Tensor<3>>,
}

impl Winograd {
    /// For `weight` `[outputs, inputs * 9]`.
    pub(super) fn new(weight: Tensor<2>) -> Self {
        let [outputs, depth] = weight.dims();
        Self { weight, inputs: depth / 9, outputs, two: OnceLock::new(), four: OnceLock::new() }
    }

    /// The convolution of one picture `[inputs, rows, columns]`, without bias, as `[outputs, rows, columns]`; `None` if the
    /// picture is too small to gain.
    pub(super) fn forward(&self, picture: &[f32], rows: usize, columns: usize) -> Option<Vec<f32>> {
        let tiles = |side: usize| rows.div_ceil(side) * columns.div_ceil(side);
        if tiles(4) >= TILES_MIN {
            let weight = self.four.get_or_init(|| self.transform(&FOUR));
            Some(self.run(&FOUR, weight, picture, rows, columns))
        } else if tiles(2) >= TILES_MIN {
            let weight = self.two.get_or_init(|| self.transform(&TWO));
            Some(self.run(&TWO, weight, picture, rows, columns))
        } else {
            None
        }
    }

    /// The weights as `[SIDE * SIDE, inputs, outputs]`.
    fn transform<const SIDE: usize, const OUT: usize>(&self, filter: &Filter<SIDE, OUT>) -> Tensor<3> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let mut all = vec![0.0; SIDE * SIDE * inputs * outputs];
        let weight = self.weight.clone().into_data().try_into_vec::<f32>().expect("every tensor here is f32");
        for (index, kernel) in weight.as_chunks::<9>().0.iter().enumerate() {
            let (output, input) = (index / inputs, index % inputs);
            for (down, right) in (0..SIDE * SIDE).map(|at| (at / SIDE, at % SIDE)) {
                let (down_row, right_row) = (&filter.weight[down], &filter.weight[right]);
                let value =
                    |at: usize| f64::from(down_row[at / 3]) * f64::from(kernel[at]) * f64::from(right_row[at % 3]);
                all[((down * SIDE + right) * inputs + input) * outputs + output] =
                    (0..9).map(value).sum::<f64>() as f32;
            }
        }
        Tensor::from_data(TensorData::new(all, [SIDE * SIDE, inputs, outputs]), &self.weight.device())
    }

    fn run<const SIDE: usize, const OUT: usize>(
        &self,
        filter: &Filter<SIDE, OUT>,
        weight: &Tensor<3>,
        picture: &[f32],
        rows: usize,
        columns: usize,
    ) -> Vec<f32> {
        let (down, right) = (rows.div_ceil(OUT), columns.div_ceil(OUT));
        let (tiles, inputs, outputs) = (down * right, self.inputs, self.outputs);
        let padded = Padded::new(picture, inputs, [rows, columns], [down * OUT + 2, right * OUT + 2]);
        let mut read = vec![0.0; SIDE * SIDE * tiles * inputs];
        for (tile, (top, left)) in (0..tiles).map(|tile| (tile, (tile / right * OUT, tile % right * OUT))) {
            padded.transform(filter, top, left, |at, values| {
                read[(at * tiles + tile) * inputs..][..inputs].copy_from_slice(values);
            });
        }
        let read = Tensor::<3>::from_data(TensorData::new(read, [SIDE * SIDE, tiles, inputs]), &self.weight.device());
        let products = read.matmul(weight.clone()).into_data().try_into_vec::<f32>().expect("every tensor here is f32");

        let mut written = vec![0.0; down * OUT * right * OUT * outputs];
        let mut half = vec![0.0; OUT * SIDE * outputs];
        for (tile, (top, left)) in (0..tiles).map(|tile| (tile, (tile / right * OUT, tile % right * OUT))) {
            for (to, from) in (0..OUT * SIDE).map(|at| (at / SIDE, at % SIDE)) {
                let source = |at: usize| &products[((at * SIDE + from) * tiles + tile) * outputs..][..outputs];
                combine(&mut half[(to * SIDE + from) * outputs..][..outputs], &filter.output[to], source);
            }
            for (row, column) in (0..OUT * OUT).map(|at| (at / OUT, at % OUT)) {
                let cell = (top + row) * right * OUT + left + column;
                let source = |at: usize| &half[(row * SIDE + at) * outputs..][..outputs];
                combine(&mut written[cell * outputs..][..outputs], &filter.output[column], source);
            }
        }
        crop(&written, outputs, right * OUT, [rows, columns])
    }
}

/// A picture with zeros around it, its channels beside each other.
struct Padded {
    /// `[rows, columns, channels]`.
    values: Vec<f32>,
    columns: usize,
    channels: usize,
}

impl Padded {
    fn new(picture: &[f32], channels: usize, [rows, columns]: [usize; 2], [tall, wide]: [usize; 2]) -> Self {
        let mut values = vec![0.0; tall * wide * channels];
        for (channel, plane) in picture.chunks_exact(rows * columns).enumerate() {
            for (row, line) in plane.chunks_exact(columns).enumerate() {
                let first = ((row + 1) * wide + 1) * channels + channel;
                let cells = values[first..].iter_mut().step_by(channels);
                cells.zip(line).for_each(|(cell, &value)| *cell = value);
            }
        }
        Self { values, columns: wide, channels }
    }

    /// Gives each of the transformed values of the tile at `top`, `left`, one after the other.
    fn transform<const SIDE: usize, const OUT: usize>(
        &self,
        filter: &Filter<SIDE, OUT>,
        top: usize,
        left: usize,
        mut give: impl FnMut(usize, &[f32]),
    ) {
        let channels = self.channels;
        let mut half = vec![0.0; SIDE * SIDE * channels];
        for (to, column) in (0..SIDE * SIDE).map(|at| (at / SIDE, at % SIDE)) {
            let source =
                |row: usize| &self.values[((top + row) * self.columns + left + column) * channels..][..channels];
            combine(&mut half[(to * SIDE + column) * channels..][..channels], &filter.input[to], source);
        }
        let mut values = vec![0.0; channels];
        for (row, to) in (0..SIDE * SIDE).map(|at| (at / SIDE, at % SIDE)) {
            let source = |at: usize| &half[(row * SIDE + at) * channels..][..channels];
            combine(&mut values, &filter.input[to], source);
            give(row * SIDE + to, &values);
        }
    }
}

/// Sets `target` to the sum of the sources, each times its factor.
fn combine<'a, const N: usize>(target: &mut [f32], factors: &[f32; N], source: impl Fn(usize) -> &'a [f32]) {
    let mut first = true;
    for (at, &factor) in factors.iter().enumerate().filter(|(_, factor)| **factor != 0.0) {
        let pairs = target.iter_mut().zip(source(at));
        match first {
            true => pairs.for_each(|(target, &value)| *target = factor * value),
            false => pairs.for_each(|(target, &value)| *target += factor * value),
        }
        first = false;
    }
}

/// `[cells, channels]` of rows that are `wide` to `[channels, rows, columns]`.
fn crop(cells: &[f32], channels: usize, wide: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut picture = vec![0.0; channels * rows * columns];
    for (channel, plane) in picture.chunks_exact_mut(rows * columns).enumerate() {
        for (row, line) in plane.chunks_exact_mut(columns).enumerate() {
            let cells = cells[row * wide * channels + channel..].iter().step_by(channels);
            line.iter_mut().zip(cells).for_each(|(value, &cell)| *value = cell);
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Every output cell as the sum it is defined by.
    fn by_definition(
        picture: &[f32],
        weight: &[f32],
        [inputs, outputs]: [usize; 2],
        rows: usize,
        columns: usize,
    ) -> Vec<f32> {
        let mut result = Vec::new();
        for (output, row, column) in
            (0..outputs * rows * columns).map(|at| (at / (rows * columns), at / columns % rows, at % columns))
        {
            let mut sum = 0.0;
            for (input, offset) in (0..inputs * 9).map(|at| (at / 9, at % 9)) {
                let (down, right) = (row + offset / 3, column + offset % 3);
                if (1..=rows).contains(&down) && (1..=columns).contains(&right) {
                    let value = picture[(input * rows + down - 1) * columns + right - 1];
                    sum += f64::from(value) * f64::from(weight[(output * inputs + input) * 9 + offset]);
                }
            }
            result.push(sum as f32);
        }
        result
    }

    #[test]
    fn both_tilings_give_the_convolution_of_pictures_of_any_size() {
        let [inputs, outputs] = [5, 7];
        let wave = |count: usize, speed: f32| (0..count).map(|at| (at as f32 * speed).sin()).collect::<Vec<_>>();
        let weight = wave(outputs * inputs * 9, 1.7);
        let tensor = TensorData::new(weight.clone(), [outputs, inputs * 9]);
        let winograd = Winograd::new(Tensor::from_data(tensor, &Device::flex()));
        for (rows, columns) in [(8, 8), (7, 9), (16, 16), (13, 18), (1, 40), (40, 2), (15, 33)] {
            let picture = wave(inputs * rows * columns, 0.9);
            let given = winograd.forward(&picture, rows, columns).expect("large enough to gain");
            let known = by_definition(&picture, &weight, [inputs, outputs], rows, columns);
            let largest = given.iter().zip(&known).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // The values are up to 10; F(4 x 4) loses two digits to its transforms.
            assert!(largest < 5e-5, "{rows} x {columns}: {largest:e}");
        }
        assert_eq!(winograd.forward(&wave(inputs * 16, 0.9), 4, 4), None);
    }
}
