//! What stands in the form, and the recipes it asks for.

use protocol::Size;
use protocol::limits::{GUIDANCE_MAX, PROMPT_BYTES_MAX, SIDE_PIXELS_MAX, STEPS_MAX};
use serde::{Deserialize, Serialize};

use crate::queue::Offer;
use crate::words::Recipe;

/// Pictures asked for at once: more belongs to a script.
const COUNT_MAX: u32 = 8;

/// The fields as they were typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Form {
    /// What to paint.
    pub prompt: String,
    /// What to keep away from.
    pub negative: String,
    /// `WIDTHxHEIGHT`.
    pub size: String,
    /// Denoising steps.
    pub steps: String,
    /// Guidance scale.
    pub guidance: String,
    /// Seed; empty for a random one.
    pub seed: String,
    /// Pictures, one after the other.
    pub count: String,
    /// Whether it goes through the relay's queue, where there is one.
    pub is_high: bool,
    /// The type of a job that does.
    pub kind: String,
}

/// Names a field, to point at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// What to paint.
    Prompt,
    /// What to keep away from.
    Negative,
    /// Pixels.
    Size,
    /// Denoising steps.
    Steps,
    /// Guidance scale.
    Guidance,
    /// Seed.
    Seed,
    /// Pictures.
    Count,
}

/// What is wrong with the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The field at fault.
    pub field: Field,
    /// What to do, in words.
    pub text: String,
}

impl Default for Form {
    fn default() -> Self {
        let mut form = Self {
            prompt: String::new(),
            negative: String::new(),
            size: String::new(),
            steps: String::new(),
            guidance: String::new(),
            seed: String::new(),
            count: "1".into(),
            is_high: false,
            kind: String::new(),
        };
        form.fill(&Recipe::default());
        form
    }
}

impl Form {
    /// Puts a recipe into the fields; how many pictures stays.
    pub fn fill(&mut self, recipe: &Recipe) {
        let Recipe { prompt, negative, width, height, steps, guidance, seed } = recipe;
        self.prompt.clone_from(prompt);
        self.negative.clone_from(negative);
        self.size = format!("{width}x{height}");
        self.steps = steps.to_string();
        self.guidance = guidance.to_string();
        self.seed = seed.map(|seed| seed.to_string()).unwrap_or_default();
    }

    /// The recipes asked for, with consecutive seeds from the given one or, if the field is empty, from `random`.
    pub fn recipes(&self, random: u64) -> Result<Vec<Recipe>, Complaint> {
        self.check_words(PROMPT_BYTES_MAX)?;
        let size = self.size()?;
        let steps = whole(&self.steps, STEPS_MAX).ok_or_else(|| Complaint {
            field: Field::Steps,
            text: format!("Steps are a whole number from 1 to {STEPS_MAX}."),
        })?;
        let seeds = self.seeds(random)?;
        let guidance: f32 = self.guidance.trim().replace(',', ".").parse().unwrap_or(f32::NAN);
        if !(0.0..=GUIDANCE_MAX).contains(&guidance) {
            let text = format!("Guidance is a number from 0 to {GUIDANCE_MAX}.");
            return Err(Complaint { field: Field::Guidance, text });
        }
        let recipe = |seed| Recipe {
            prompt: self.prompt.trim().into(),
            negative: self.negative.trim().into(),
            width: size.width,
            height: size.height,
            steps,
            guidance,
            seed: Some(seed),
        };
        Ok(seeds.into_iter().map(recipe).collect())
    }

    /// The recipes asked for of a job type, which decides all but words and seeds.
    pub fn recipes_of(&self, offer: &Offer, random: u64) -> Result<Vec<Recipe>, Complaint> {
        self.check_words(offer.prompt_bytes_max.min(PROMPT_BYTES_MAX))?;
        let recipe = |seed| Recipe {
            prompt: self.prompt.trim().into(),
            negative: self.negative.trim().into(),
            width: offer.width,
            height: offer.height,
            steps: offer.steps,
            guidance: offer.guidance,
            seed: Some(seed),
        };
        Ok(self.seeds(random)?.into_iter().map(recipe).collect())
    }

    /// The size, if it is one: which multiples the model needs is the session's to say.
    pub fn size(&self) -> Result<Size, Complaint> {
        let text: String = self.size.chars().filter(|character| !character.is_whitespace()).collect();
        let fits = |side: u32| (1..=SIDE_PIXELS_MAX).contains(&side);
        Size::parse(&text.replace(['×', '*'], "x")).filter(|size| fits(size.width) && fits(size.height)).ok_or_else(
            || {
                let text =
                    format!("A size is width x height in pixels, each up to {SIDE_PIXELS_MAX}, for example 256x128.");
                Complaint { field: Field::Size, text }
            },
        )
    }

    fn check_words(&self, bytes_max: usize) -> Result<(), Complaint> {
        if self.prompt.trim().is_empty() {
            let text = "Say what to paint, for example “mountains at sunset with a lake”.".to_owned();
            return Err(Complaint { field: Field::Prompt, text });
        }
        for (field, text) in [(Field::Prompt, &self.prompt), (Field::Negative, &self.negative)] {
            if text.len() > bytes_max {
                let text = format!("This text has {} bytes and at most {bytes_max} are read; shorten it.", text.len());
                return Err(Complaint { field, text });
            }
        }
        Ok(())
    }

    /// One seed for each picture, counted on from the given one or, if the field is empty, from `random`.
    fn seeds(&self, random: u64) -> Result<Vec<u64>, Complaint> {
        let count = whole(&self.count, COUNT_MAX).ok_or_else(|| Complaint {
            field: Field::Count,
            text: format!("Pictures are a whole number from 1 to {COUNT_MAX}."),
        })?;
        let first: u64 = match self.seed.trim() {
            "" => random,
            text => text.parse().map_err(|_| Complaint {
                field: Field::Seed,
                text: "A seed is a whole number from 0 to 18446744073709551615, or empty for a random one.".to_owned(),
            })?,
        };
        Ok((0..u64::from(count)).map(|index| first.wrapping_add(index)).collect())
    }
}

fn whole(text: &str, max: u32) -> Option<u32> {
    text.trim().parse().ok().filter(|number| (1..=max).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Cloud;

    fn form() -> Form {
        Form { prompt: "a lake".into(), ..Form::default() }
    }

    #[test]
    fn an_empty_seed_takes_the_random_one_and_a_count_counts_on_from_it() {
        let recipes = Form { count: "3".into(), ..form() }.recipes(u64::MAX).unwrap();
        assert_eq!(recipes.iter().map(|recipe| recipe.seed.unwrap()).collect::<Vec<_>>(), [u64::MAX, 0, 1]);
        let recipes = Form { seed: " 42 ".into(), ..form() }.recipes(9).unwrap();
        assert_eq!(recipes[0].seed, Some(42));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for text in ["384x128", "384 x 128", "384×128", " 384X128 ", "384*128"] {
            let recipe = Form { size: text.into(), ..form() }.recipes(0).unwrap().remove(0);
            assert_eq!((recipe.width, recipe.height), (384, 128), "{text}");
        }
    }

    #[test]
    fn every_bad_field_is_named_with_what_to_do() {
        let cases = [
            (Form::default(), Field::Prompt),
            (Form { prompt: "x".repeat(PROMPT_BYTES_MAX + 1), ..form() }, Field::Prompt),
            (Form { negative: "x".repeat(PROMPT_BYTES_MAX + 1), ..form() }, Field::Negative),
            (Form { size: "256".into(), ..form() }, Field::Size),
            (Form { size: "0x128".into(), ..form() }, Field::Size),
            (Form { size: "99999999999x1".into(), ..form() }, Field::Size),
            (Form { steps: "0".into(), ..form() }, Field::Steps),
            (Form { steps: "1e3".into(), ..form() }, Field::Steps),
            (Form { guidance: "NaN".into(), ..form() }, Field::Guidance),
            (Form { guidance: "-1".into(), ..form() }, Field::Guidance),
            (Form { guidance: String::new(), ..form() }, Field::Guidance),
            (Form { seed: "-1".into(), ..form() }, Field::Seed),
            (Form { seed: "18446744073709551616".into(), ..form() }, Field::Seed),
            (Form { count: "9".into(), ..form() }, Field::Count),
        ];
        for (form, field) in cases {
            let complaint = form.recipes(0).unwrap_err();
            assert_eq!(complaint.field, field, "{form:?}");
            assert!(complaint.text.ends_with('.') && complaint.text.len() > 20);
        }
    }

    #[test]
    fn a_job_type_decides_all_but_words_and_seeds() {
        let offer = Offer {
            kind: "sdxl".into(),
            label: "SDXL".into(),
            is_high: true,
            width: 1024,
            height: 768,
            steps: 25,
            guidance: 7.5,
            expected_s: 8.0,
            prompt_bytes_max: 10,
            is_ready: true,
            cloud: Cloud::Open,
            note: String::new(),
        };
        let asked =
            Form { size: "nonsense".into(), steps: String::new(), count: "2".into(), seed: "5".into(), ..form() };
        let recipes = asked.recipes_of(&offer, 0).unwrap();
        assert_eq!((recipes[1].width, recipes[1].height, recipes[1].steps, recipes[1].seed), (1024, 768, 25, Some(6)));
        let long = Form { prompt: "x".repeat(11), ..asked };
        assert_eq!(long.recipes_of(&offer, 0).unwrap_err().field, Field::Prompt);
    }

    #[test]
    fn a_recipe_survives_the_form() {
        let recipe = Recipe {
            prompt: "夜".into(),
            negative: "fog".into(),
            seed: Some(u64::MAX),
            guidance: 2.5,
            ..Recipe::default()
        };
        let mut form = Form::default();
        form.fill(&recipe);
        assert_eq!(form.recipes(1), Ok(vec![recipe]));
    }
}
