//! What the page says, from what it knows: every sentence that is made of more than one fact.

pub mod queue;

use super::jobs::Stage;
use super::plain::plain;
use super::state::{Activity, Copied, Painting, Picture, State, Underway};
use crate::words::{LinkState, Peer, Recipe, Share};

/// Characters of a prompt inside a sentence.
const PROMPT_CHARACTERS_MAX: usize = 80;

/// The tab's title.
pub fn title(state: &State) -> String {
    match &state.painting {
        Some(painting) => format!("{} % – Manyhands", percent(painting.fraction)),
        None => "Manyhands".into(),
    }
}

/// What stands on the empty canvas.
pub fn blank(state: &State) -> &'static str {
    match state.activity() {
        Activity::Starting | Activity::Idle if state.queue.open().next().is_some() => {
            "It waits in the relay's queue.\nThe picture comes here when it is done."
        }
        Activity::Planning => "Asking the room who can help …",
        Activity::Painting => "The first look comes with the first step …",
        Activity::Starting | Activity::Idle if state.room.is_some() => {
            "Say what to paint.\nEveryone in the room paints a part of it."
        }
        Activity::Starting | Activity::Idle => "Say what to paint.\nThis device paints it, alone or with a room.",
    }
}

/// How far the picture is.
pub fn progress(painting: &Painting) -> String {
    let (number, of) = painting.number;
    let picture = (of > 1).then(|| format!("Picture {number} of {of}"));
    let doing = match (painting.is_planned, painting.doing.as_str(), painting.step) {
        (false, _, _) => "Planning".to_owned(),
        (true, "", Some(step)) => format!("Step {step} of {}", painting.recipe.steps),
        (true, "", None) => "Painting".to_owned(),
        (true, doing, _) => capitalised(doing),
    };
    let part = painting.is_planned.then(|| format!("{} %", percent(painting.fraction)));
    [picture, Some(doing), part].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// How long it still takes; empty while nobody can say.
pub fn eta(painting: &Painting) -> String {
    left(painting.eta_s)
}

/// A time that is left, in words; empty if nobody can say.
fn left(eta_s: Option<f32>) -> String {
    match eta_s {
        None => String::new(),
        Some(seconds) if seconds < 1.0 => "almost done".into(),
        Some(seconds) if seconds < 90.0 => format!("about {} s left", seconds.ceil()),
        Some(seconds) if seconds < 5400.0 => format!("about {} min left", (seconds / 60.0).ceil()),
        Some(seconds) => format!("about {} h left", (seconds / 3600.0).ceil()),
    }
}

/// What is read aloud: quarters, the end, and errors elsewhere; every per cent would be a flood.
pub fn aloud(state: &State) -> String {
    let newest = state.queue.jobs.first().filter(|job| job.stage != Stage::Shown);
    match (&state.painting, state.picture()) {
        (None, _) if newest.is_some() => newest.map(queue::aloud).unwrap_or_default(),
        (Some(painting), _) if painting.is_planned => {
            format!("Painting, {} percent", percent(painting.fraction) / 25 * 25)
        }
        (Some(_), _) => "Planning the picture".into(),
        (None, Some(picture)) => format!("The picture is shown: {}", quoted(&picture.recipe.prompt)),
        (None, None) => String::new(),
    }
}

/// Who painted the shown picture and how long it took.
pub fn credits(picture: &Picture) -> String {
    let seed = picture.recipe.seed.map(|seed| format!(" Seed {seed}.")).unwrap_or_default();
    if let Some(origin) = &picture.origin {
        return format!("{}{seed}", queue::credits(origin, picture.took_ms));
    }
    let workers: Vec<_> = picture.workers.iter().filter(|worker| worker.units > 0).map(credit).collect();
    let seconds = picture.took_ms as f64 / 1000.0;
    let by = match workers.as_slice() {
        [] => String::new(),
        [one] => format!(" by {one}"),
        several => format!(" by {}", several.join(", ")),
    };
    let again = match picture.retries {
        0 => String::new(),
        1 => "; 1 unit was painted again".into(),
        several => format!("; {several} units were painted again"),
    };
    format!("Painted in {seconds:.1} s{by}{again}.{seed}")
}

/// A recipe as text, in the form that other tools read.
pub fn recipe(recipe: &Recipe) -> String {
    let Recipe { prompt, negative, width, height, steps, guidance, seed } = recipe;
    let negative = if negative.is_empty() { String::new() } else { format!("Negative prompt: {negative}\n") };
    let seed = seed.map(|seed| format!("Seed: {seed}, ")).unwrap_or_default();
    format!("{prompt}\n{negative}Steps: {steps}, CFG scale: {guidance}, {seed}Size: {width}x{height}")
}

/// What a reload ended.
pub fn gone(underway: &Underway) -> String {
    let seed = underway.recipe.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
    let more = match underway.more {
        0 => String::new(),
        1 => ", and the one after it".into(),
        several => format!(", and the {several} after it"),
    };
    format!(
        "This page was reloaded while a picture was being painted. That picture is gone: {}{seed}{more}. The same recipe and seed paint it again.",
        quoted(&underway.recipe.prompt)
    )
}

/// The units that a peer and this page painted for each other.
pub fn units(peer: &Peer) -> String {
    match (peer.is_me, peer.units_given, peer.units_taken) {
        (_, 0, 0) => String::new(),
        (true, own, _) => format!("{own} for itself"),
        (false, given, taken) => format!("gave {given}, got {taken}"),
    }
}

/// A peer's name, never empty.
pub fn name(peer: &Peer) -> String {
    if peer.name.is_empty() { format!("…{}", &tail(&peer.id)) } else { peer.name.clone() }
}

/// Where the room stands, in one sentence.
pub fn status(state: &State) -> String {
    if !state.link.text.is_empty() {
        return state.link.text.clone();
    }
    let text = match state.link.state {
        LinkState::Connecting => "Looking for the relay.",
        LinkState::Connected => "In the room.",
        LinkState::Lost => "The relay is out of reach; members already met stay.",
        LinkState::Alone => "Painting alone.",
        LinkState::Left => "The session has ended.",
    };
    text.to_owned()
}

/// The label of a button that copies.
pub fn copy_label(what: Copied, copied: Option<Copied>) -> &'static str {
    match (copied == Some(what), what) {
        (true, _) => "Copied",
        (false, Copied::Link) => "Copy",
        (false, Copied::Recipe) => "Copy recipe",
    }
}

/// A file name that any system takes: the prompt's first words and the seed.
pub fn file_name(picture: &Picture) -> String {
    let (recipe, ending) = (&picture.recipe, picture.file.ending());
    let words: String = recipe
        .prompt
        .chars()
        .map(|character| if character.is_alphanumeric() { character } else { '-' })
        .take(40)
        .collect();
    let words = words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let words = if words.is_empty() { "picture".into() } else { words.to_lowercase() };
    match recipe.seed {
        Some(seed) => format!("manyhands-{words}-{seed}.{ending}"),
        None => format!("manyhands-{words}.{ending}"),
    }
}

/// A prompt as part of a sentence.
pub fn quoted(prompt: &str) -> String {
    format!("“{}”", plain(prompt, PROMPT_CHARACTERS_MAX))
}

/// Whole per cent; a hundred only when finished.
pub fn percent(fraction: f32) -> u32 {
    (fraction.clamp(0.0, 1.0) * 100.0).floor() as u32
}

fn credit(worker: &Share) -> String {
    let name = plain(&worker.name, 32);
    let name = if name.is_empty() { format!("…{}", tail(&worker.peer)) } else { name };
    format!("{name} ({})", worker.units)
}

fn tail(id: &str) -> String {
    let characters: Vec<char> = plain(id, 80).chars().collect();
    characters[characters.len().saturating_sub(6)..].iter().collect()
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::PictureKind;

    fn picture() -> Picture {
        let share =
            |name: &str, units| Share { name: name.into(), units, peer: "12D3KooWabcdef".into(), ..Share::default() };
        Picture {
            id: "ab".into(),
            latent_sha256: "cd".into(),
            recipe: Recipe { prompt: "A lake, at night".into(), seed: Some(7), ..Recipe::default() },
            sentence: String::new(),
            explanation: String::new(),
            workers: vec![share("Ada", 5), share("", 2), share("idle", 0)],
            retries: 2,
            took_ms: 3210,
            when_ms: 0,
            bytes: 1,
            file: PictureKind::Png,
            origin: None,
        }
    }

    #[test]
    fn credits_name_who_worked() {
        assert_eq!(
            credits(&picture()),
            "Painted in 3.2 s by Ada (5), …abcdef (2); 2 units were painted again. Seed 7."
        );
    }

    #[test]
    fn a_copied_recipe_is_what_other_tools_read() {
        let text = recipe(&Recipe { negative: "fog".into(), ..picture().recipe });
        assert_eq!(text, "A lake, at night\nNegative prompt: fog\nSteps: 8, CFG scale: 3, Seed: 7, Size: 256x128");
    }

    #[test]
    fn a_file_name_holds_no_path() {
        let named = |prompt: &str| {
            let recipe = Recipe { prompt: prompt.into(), seed: Some(7), ..Recipe::default() };
            file_name(&Picture { recipe, ..picture() })
        };
        assert_eq!(named("A lake, at night"), "manyhands-a-lake-at-night-7.png");
        assert_eq!(named("../../etc/passwd\0\u{202e}gpj"), "manyhands-etc-passwd-gpj-7.png");
        assert_eq!(named("<>:\"/\\|?*"), "manyhands-picture-7.png");
    }

    #[test]
    fn a_lost_picture_is_said_to_be_gone() {
        let text = gone(&Underway { recipe: picture().recipe, more: 2 });
        assert!(text.contains("is gone: “A lake, at night”, seed 7, and the 2 after it."), "{text}");
    }
}
