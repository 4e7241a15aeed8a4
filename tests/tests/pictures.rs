//! The demo model follows its prompt: night is dark, day is bright, sunset is warm, with the same seed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use compute::{Diffusion, Engine, ModelFolder};
use protocol::{JobId, JobRequest, JobSpec, PlanChoice, PlanKind, Size};
use sampler::{Painter, paint};
use tests::tidy::root;

/// The mean colour of a picture.
#[derive(Clone, Copy, Debug)]
struct Mean {
    red: f64,
    green: f64,
    blue: f64,
}

impl Mean {
    fn of(pixels: &[u8]) -> Self {
        let channel = |index: usize| {
            let sum: u64 = pixels.iter().skip(index).step_by(3).map(|value| u64::from(*value)).sum();
            sum as f64 / (pixels.len() / 3) as f64
        };
        Self { red: channel(0), green: channel(1), blue: channel(2) }
    }

    /// Rec. 709 luminance of the mean, in 0 to 255.
    fn luminance(self) -> f64 {
        0.2126 * self.red + 0.7152 * self.green + 0.0722 * self.blue
    }

    /// Hue in degrees: red 0, yellow 60, green 120, blue 240.
    fn hue(self) -> f64 {
        let Self { red, green, blue } = self;
        let most = red.max(green).max(blue);
        let spread = most - red.min(green).min(blue);
        let sixth = if most == red {
            (green - blue) / spread
        } else if most == green {
            2.0 + (blue - red) / spread
        } else {
            4.0 + (red - green) / spread
        };
        (sixth * 60.0).rem_euclid(360.0)
    }
}

struct Studio {
    folder: ModelFolder,
    engine: Diffusion,
}

impl Studio {
    fn open() -> Self {
        let folder = ModelFolder::open(&root().join("models/demo")).unwrap();
        let engine = Diffusion::load(&folder, 2).unwrap();
        Self { folder, engine }
    }

    fn paint(&mut self, prompt: &str, seed: u64) -> Mean {
        let shape = self.folder.shape();
        let request = JobRequest {
            prompt: prompt.into(),
            negative: String::new(),
            size: Size { width: 128, height: 128 },
            steps: 8,
            guidance: 3.0,
            seed,
            plan: PlanChoice::Auto,
        };
        let spec = JobSpec::new(request, self.folder.id(), &shape).unwrap();
        let scheduler = self.folder.scheduler();
        let mut painter = Painter::new(JobId([0; 16]), spec, shape, scheduler, PlanKind::Cfg).unwrap();
        paint(&mut painter, |unit, input, conditioning| self.engine.compute(unit, input, conditioning, &|| false))
            .unwrap();
        Mean::of(&painter.pixels().unwrap())
    }
}

#[test]
fn night_is_dark_day_is_bright_and_sunset_is_warm() {
    let mut studio = Studio::open();
    for subject in ["mountains", "the sea"] {
        for seed in [7, 8] {
            let night = studio.paint(&format!("{subject} at night"), seed);
            let day = studio.paint(&format!("{subject} by day"), seed);
            let sunset = studio.paint(&format!("{subject} at sunset"), seed);
            let of = format!("{subject}, seed {seed}: night {night:?}, day {day:?}, sunset {sunset:?}");
            assert!(night.luminance() < 60.0, "night is not dark; {of}");
            assert!(day.luminance() > 110.0, "day is not bright; {of}");
            assert!(sunset.luminance() > night.luminance() + 20.0, "sunset is as dark as night; {of}");
            assert!((180.0..260.0).contains(&day.hue()), "day is not blue; {of}");
            let warm = sunset.hue();
            assert!(!(70.0..300.0).contains(&warm) && sunset.red > sunset.blue, "sunset is not warm; {of}");
        }
    }
}
