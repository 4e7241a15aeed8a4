//! A cheap look at a latent: one pixel per cell, by a linear map from channels to colours.

/// What turns a latent into colours: one row per channel and a last one that is added, red, green, blue in [-1, 1].
pub type Factors = Vec<[f32; 3]>;

/// Latents of sound models have about unit variance; those of schedules that begin with stronger noise are drawn as if they
/// had this deviation.
const DEVIATION_MAX: f32 = 1.25;

/// RGBA rows of `latent`, `[channels, cells]`; `None` if `factors` are not those of this many channels.
pub fn rgba(latent: &[f32], channels: usize, factors: &[[f32; 3]]) -> Option<Vec<u8>> {
    let (bias, factors) = factors.split_last()?;
    if channels == 0 || factors.len() != channels || !latent.len().is_multiple_of(channels) {
        return None;
    }
    let scale = scale(latent);
    let cells = latent.len() / channels;
    let pixel = |cell: usize| {
        let value = |colour: usize| {
            let channel =
                |(channel, factor): (usize, &[f32; 3])| latent[channel * cells + cell] * scale * factor[colour];
            bias[colour] + factors.iter().enumerate().map(channel).sum::<f32>()
        };
        let byte = |value: f32| ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
        [byte(value(0)), byte(value(1)), byte(value(2)), u8::MAX]
    };
    Some((0..cells).flat_map(pixel).collect())
}

fn scale(latent: &[f32]) -> f32 {
    let square: f32 = latent.iter().map(|value| value * value).sum();
    let deviation = (square / latent.len().max(1) as f32).sqrt();
    if deviation > DEVIATION_MAX { DEVIATION_MAX / deviation } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_becomes_one_pixel_per_cell() {
        let factors = [[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, -1.0]];
        let pixels = rgba(&[0.0, 1.0, 1.0, -1.0], 2, &factors).unwrap();
        assert_eq!(pixels, [128, 191, 0, 255, 255, 64, 0, 255]);
    }

    #[test]
    fn strong_noise_is_drawn_like_weak_noise() {
        let factors = [[0.5; 3], [0.0; 3]];
        let weak: Vec<f32> = (0..64).map(|index| if index % 2 == 0 { 1.25 } else { -1.25 }).collect();
        let strong: Vec<f32> = weak.iter().map(|value| value * 14.0).collect();
        assert_eq!(rgba(&weak, 1, &factors), rgba(&strong, 1, &factors));
    }

    #[test]
    fn factors_of_another_model_and_empty_ones_show_nothing() {
        assert_eq!(rgba(&[0.0; 8], 4, &[[0.0; 3]; 4]), None);
        assert_eq!(rgba(&[0.0; 7], 2, &[[0.0; 3]; 3]), None);
        assert_eq!(rgba(&[], 0, &[[0.0; 3]]), None);
        assert_eq!(rgba(&[0.0; 8], 4, &[]), None);
        assert_eq!(rgba(&[f32::NAN; 2], 1, &[[1.0; 3]; 2]).unwrap().len(), 8, "rubbish is drawn, not believed");
    }
}
