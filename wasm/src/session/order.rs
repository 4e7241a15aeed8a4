//! From a recipe to a checked order, and to the recipe that is told back with its seed.

use node::{ModelCard, Order};
use protocol::limits::NAME_BYTES_MAX;
use protocol::{JobRequest, JobSpec, PlanChoice, Size};
use sampler::SchedulerConfig;

use crate::words::Recipe;

/// A recipe that can be painted.
pub struct Checked {
    /// What the participant paints.
    pub order: Order,
    /// The recipe as it is painted, with its seed.
    pub recipe: Recipe,
    /// The model's name.
    pub model: String,
}

/// Longest model card that is read; beside shapes it holds the known answer of the engine's self-test.
pub const CARD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a model's card says.
pub struct Model {
    card: ModelCard,
    scheduler: SchedulerConfig,
}

/// Reads a model's card.
pub fn read_card(text: &[u8]) -> Result<Model, String> {
    let card: ModelCard =
        serde_json::from_slice(text).map_err(|error| format!("The model's card is malformed: {error}."))?;
    let scheduler = serde_json::from_value(card.scheduler.clone());
    let scheduler = scheduler.map_err(|error| format!("The model's scheduler cannot be used: {error}."))?;
    Ok(Model { card, scheduler })
}

/// Checks a recipe against its model; `seed` is taken if the recipe has none.
pub fn check(recipe: Recipe, Model { card, scheduler }: &Model, seed: u64) -> Result<Checked, String> {
    let recipe = Recipe { seed: Some(recipe.seed.unwrap_or(seed)), ..recipe };
    let plan = PlanChoice::Auto;
    let request = JobRequest {
        prompt: recipe.prompt.clone(),
        negative: recipe.negative.clone(),
        size: Size { width: recipe.width, height: recipe.height },
        steps: recipe.steps,
        guidance: recipe.guidance,
        seed: recipe.seed.unwrap_or(seed),
        plan,
    };
    let spec = JobSpec::new(request, card.id, &card.shape).map_err(|error| sentence(&error.to_string()))?;
    let order = Order { preview: card.preview.clone(), ..Order::new(spec, card.shape, scheduler.clone(), plan) };
    Ok(Checked { order, recipe, model: card.name.clone() })
}

/// A reason as a sentence of its own.
pub fn sentence(reason: &str) -> String {
    let mut letters = reason.trim().chars();
    let Some(first) = letters.next() else { return String::new() };
    let mut text: String = first.to_uppercase().chain(letters).collect();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// A name for somebody who gave none, from two random numbers.
pub fn made_up_name(colour: u8, animal: u8) -> String {
    const COLOURS: [&str; 12] =
        ["amber", "blue", "coral", "golden", "green", "indigo", "ivory", "jade", "ruby", "silver", "teal", "violet"];
    const ANIMALS: [&str; 12] =
        ["badger", "crane", "dolphin", "falcon", "fox", "heron", "lynx", "marten", "otter", "owl", "robin", "seal"];
    let pick = |list: [&'static str; 12], number: u8| list[usize::from(number) % list.len()];
    format!("{} {}", pick(COLOURS, colour), pick(ANIMALS, animal))
}

/// The name as it is shown to the room: trimmed, without control characters, cut to its limit.
pub fn shown_name(name: &str) -> String {
    let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
    let name = name.trim();
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        read_card(card().to_string().as_bytes()).unwrap()
    }

    fn card() -> serde_json::Value {
        serde_json::json!({
            "name": "demo",
            "id": "ab".repeat(32),
            "shape": { "latent_channels": 4, "factor": 8, "native_cells": 16, "tokens": 77, "embedding_width": 32 },
            "scheduler": { "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
                "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "steps_offset": 1 },
            "preview": [],
            "files": [],
            "selfTest": null,
        })
    }

    fn recipe() -> Recipe {
        Recipe { prompt: "a lake".into(), ..Recipe::default() }
    }

    #[test]
    fn a_recipe_without_a_seed_is_told_back_with_one() {
        let checked = check(recipe(), &model(), 7).unwrap();
        assert_eq!((checked.recipe.seed, checked.order.spec.seed), (Some(7), 7));
        let given = check(Recipe { seed: Some(u64::MAX), ..recipe() }, &model(), 7).unwrap();
        assert_eq!(given.order.spec.seed, u64::MAX);
    }

    #[test]
    fn a_bad_recipe_gets_a_sentence() {
        let bad = [
            Recipe::default(),
            Recipe { width: 129, ..recipe() },
            Recipe { width: u32::MAX, height: u32::MAX, ..recipe() },
            Recipe { steps: 0, ..recipe() },
            Recipe { guidance: f32::NAN, ..recipe() },
            Recipe { prompt: "x".repeat(1 << 20), ..recipe() },
        ];
        for recipe in bad {
            let text = check(recipe, &model(), 7).err().unwrap();
            assert!(!text.starts_with(char::is_lowercase) && text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn an_unsound_card_gets_a_sentence() {
        let with = |key: &str, value: serde_json::Value| {
            let mut card = card();
            card[key] = value;
            read_card(card.to_string().as_bytes()).err().unwrap()
        };
        assert!(with("id", "ab".into()).contains("malformed"));
        assert!(with("shape", 1.into()).contains("malformed"));
        assert!(with("scheduler", serde_json::json!({})).contains("scheduler"));
    }

    #[test]
    fn names_are_plain_and_short() {
        assert_eq!(shown_name(" a\u{7}da\n"), "ada");
        assert!(shown_name(&"ü".repeat(100)).len() <= NAME_BYTES_MAX);
        assert_eq!(made_up_name(0, 13), "amber crane");
    }
}
