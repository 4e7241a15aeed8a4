//! The picture: empty, waiting, growing, finished; with its progress, plan and tools.

use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ImageData};

use super::pictures::Pictures;
use super::places::Places;
use crate::page::state::{Copied, Painting, Picture, Preview, State};
use crate::page::telling;

pub fn show(places: &Places, pictures: &Pictures, state: &State, drawn: &mut Option<(Option<u64>, u32)>) {
    let picture = state.picture().filter(|picture| state.painting.is_none() && pictures.holds(&picture.id));
    let preview = state.painting.as_ref().and_then(|painting| painting.preview.as_ref());
    let shows = match (&state.painting, preview, picture) {
        (Some(_), Some(_), _) => "preview",
        (Some(_), None, _) => "waiting",
        (None, _, Some(_)) => "picture",
        (None, _, None) => "nothing",
    };
    places.attribute("frame", "data-shows", Some(shows));
    places.shown("blank", preview.is_none() && picture.is_none());
    places.text("blank-text", telling::blank(state));
    places.shown("preview", preview.is_some());
    places.shown("picture", picture.is_some());
    places.property("mat", "--ratio", &ratio(state, picture).to_string());
    match (&state.painting, preview) {
        (Some(painting), Some(preview)) => {
            let look = Some((painting.recipe.seed, painting.previews));
            if *drawn != look {
                draw(places, preview);
                *drawn = look;
            }
        }
        (Some(_) | None, _) => *drawn = None,
    }
    show_progress(places, state.painting.as_ref());
    show_plan(places, state.painting.as_ref(), picture);
    show_tools(places, pictures, picture, state.copied);
}

fn show_progress(places: &Places, painting: Option<&Painting>) {
    places.shown("progress", painting.is_some());
    let fraction = painting.map_or(0.0, |painting| painting.fraction);
    places.attribute("progress", "value", Some(&format!("{fraction:.3}")));
    places.attribute("progress", "data-units", Some(&painting.map_or(0, |painting| painting.units).to_string()));
    places.text("progress-text", &painting.map(telling::progress).unwrap_or_default());
    places.text("eta", &painting.map(telling::eta).unwrap_or_default());
}

fn show_plan(places: &Places, painting: Option<&Painting>, picture: Option<&Picture>) {
    let plan = painting
        .map(|painting| (&painting.sentence, &painting.explanation))
        .or(picture.map(|picture| (&picture.sentence, &picture.explanation)))
        .filter(|(sentence, _)| !sentence.is_empty());
    places.shown("plan", plan.is_some());
    let (sentence, explanation) = plan.map_or(("", ""), |(sentence, explanation)| (sentence, explanation));
    places.text("plan-sentence", sentence);
    places.text("plan-explanation", explanation);
}

fn show_tools(places: &Places, pictures: &Pictures, picture: Option<&Picture>, copied: Option<Copied>) {
    places.shown("tools", picture.is_some());
    let facts = picture.map(|picture| {
        let recipe = &picture.recipe;
        let seed = recipe.seed.map(|seed| seed.to_string());
        (
            pictures.url(&picture.id),
            picture.id.as_str(),
            Some(picture.latent_sha256.as_str()).filter(|latent| !latent.is_empty()),
            seed,
            telling::quoted(&recipe.prompt),
        )
    });
    let (url, id, latent, seed, alt) = match &facts {
        Some((url, id, latent, seed, alt)) => (*url, Some(*id), *latent, seed.as_deref(), alt.as_str()),
        None => (None, None, None, None, ""),
    };
    for (name, value) in
        [("src", url), ("data-sha256", id), ("data-latent-sha256", latent), ("data-seed", seed), ("alt", Some(alt))]
    {
        places.attribute("picture", name, value);
    }
    let source = picture.and_then(|picture| picture.origin.as_ref()?.source).map(telling::queue::source_name);
    places.attribute("picture", "data-source", source);
    places.attribute("download", "href", url);
    places.attribute("download", "download", picture.map(telling::file_name).as_deref());
    places.text("copy-recipe", telling::copy_label(Copied::Recipe, copied));
    places.text("credits", &picture.map(telling::credits).unwrap_or_default());
}

/// Draws a look, one canvas pixel per latent cell; the style sheet enlarges and softens it.
fn draw(places: &Places, preview: &Preview) {
    let Some(canvas) = places.as_kind::<HtmlCanvasElement>("preview") else { return };
    let Preview { width, height, rgba } = preview;
    if (canvas.width(), canvas.height()) != (*width, *height) {
        canvas.set_width(*width);
        canvas.set_height(*height);
    }
    let context = canvas.get_context("2d").ok().flatten().and_then(|context| context.dyn_into().ok());
    let Some::<CanvasRenderingContext2d>(context) = context else { return };
    if let Ok(image) = ImageData::new_with_u8_clamped_array_and_sh(Clamped(rgba), *width, *height) {
        // Fails only for an image of another origin.
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
    places.property("mat", "--cells", &width.to_string());
}

/// Width over height of what is shown: the picture being painted, the finished one, or the one the form asks for.
fn ratio(state: &State, picture: Option<&Picture>) -> f64 {
    let recipe = state.painting.as_ref().map(|painting| &painting.recipe).or(picture.map(|picture| &picture.recipe));
    let sides = recipe.map(|recipe| (recipe.width, recipe.height));
    let asked = || state.form.size().map_or((2, 1), |size| (size.width, size.height));
    let (width, height) = sides.unwrap_or_else(asked);
    (f64::from(width.max(1)) / f64::from(height.max(1))).clamp(0.1, 10.0)
}
