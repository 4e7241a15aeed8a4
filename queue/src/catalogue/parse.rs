//! Reads a catalogue's text and checks it; an error says where, and what to do.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use protocol::limits::{GUIDANCE_MAX, PROMPT_BYTES_MAX, SIDE_PIXELS_MAX, STEPS_MAX};
use serde::Deserialize;
use toml::Spanned;

use super::{Catalogue, Engine, Fallback, JobType, Tier, TypeLimits};
use crate::limits::{
    BADGE_BYTES_MAX, CATALOGUE_BYTES_MAX, CLIP_SECONDS_MAX, EXPECTED_MAX, IMAGES_MAX, LABEL_BYTES_MAX, PIXELS_MAX,
    SIDE_PIXELS_MIN, SIDE_PIXELS_STEP, TYPES_MAX,
};
use crate::names::{Ask, BucketName, Model, QueueName};
use crate::order::Task;

/// What is wrong with a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {problem}", place(.ask.as_ref(), *.field))]
pub struct CatalogueError {
    /// Where, counted from 1.
    pub line: usize,
    /// Of which type, if it could be read so far.
    pub ask: Option<Ask>,
    /// Of which of its fields, if it is one's.
    pub field: Option<&'static str>,
    /// What, and what to do.
    pub problem: String,
}

/// A catalogue as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(rename = "type")]
    types: Vec<Spanned<TypeText>>,
}

/// A type as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeText {
    id: Ask,
    label: String,
    badge: String,
    tier: Tier,
    queue: QueueName,
    model: Model,
    task: Task,
    width: u32,
    height: u32,
    steps: u32,
    guidance: f32,
    strength: Option<f32>,
    seconds: Option<f32>,
    expected_s: f64,
    overflow_after_s: Option<f64>,
    bucket: BucketName,
    #[serde(default)]
    needs_init_image: bool,
    engine: Engine,
    limits: TypeLimits,
    fallback: Fallback,
}

/// A field and what is wrong with it.
type Problem = (&'static str, String);

impl Catalogue {
    /// Reads a catalogue of an operator's own.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let whole = |problem: String, line| CatalogueError { line, ask: None, field: None, problem };
        if text.len() > CATALOGUE_BYTES_MAX {
            let problem = format!("the catalogue is larger than {CATALOGUE_BYTES_MAX} bytes; remove types");
            return Err(whole(problem, 1));
        }
        let written: Text = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            whole(error.message().trim().to_owned(), line_at(text, start))
        })?;
        if !(1..=TYPES_MAX).contains(&written.types.len()) {
            let problem = format!("a catalogue has 1 to {TYPES_MAX} types, this one {}", written.types.len());
            return Err(whole(problem, 1));
        }
        let starts: Vec<usize> = written.types.iter().map(|one| one.span().start).collect();
        let error = |index: usize, ask: &Ask, (field, problem): Problem| CatalogueError {
            line: line_of(text, starts[index], field),
            ask: Some(ask.clone()),
            field: Some(field),
            problem,
        };
        let mut types = Vec::new();
        for (index, written) in written.types.into_iter().map(Spanned::into_inner).enumerate() {
            let ask = written.id.clone();
            types.push(check(written).map_err(|problem| error(index, &ask, problem))?);
        }
        check_together(&types).map_err(|(index, problem)| error(index, &types[index].id, problem))?;
        Ok(Self { types })
    }
}

/// Checks one type by itself.
fn check(written: TypeText) -> Result<JobType, Problem> {
    let TypeText { limits, task, .. } = written;
    text_fits("label", &written.label, LABEL_BYTES_MAX)?;
    text_fits("badge", &written.badge, BADGE_BYTES_MAX)?;
    within("limits", "prompt_bytes", limits.prompt_bytes as u64, 1..=PROMPT_BYTES_MAX as u64)?;
    within("limits", "steps", limits.steps.into(), 1..=STEPS_MAX.into())?;
    within("limits", "images", limits.images.into(), 1..=IMAGES_MAX.into())?;
    within("limits", "pixels", limits.pixels.into(), 1..=PIXELS_MAX.into())?;
    side("width", written.width)?;
    side("height", written.height)?;
    within("steps", "steps", written.steps.into(), 1..=limits.steps.into())?;
    let pixels = written.width * written.height;
    if pixels > limits.pixels {
        let problem = format!("{}x{} are {pixels} pixels; raise limits.pixels", written.width, written.height);
        return Err(("limits", problem));
    }
    if !(0.0..=GUIDANCE_MAX).contains(&written.guidance) {
        return Err(("guidance", format!("must be 0 to {GUIDANCE_MAX}")));
    }
    let expected = seconds_of("expected_s", written.expected_s)?;
    let overflow_after = match written.overflow_after_s {
        Some(seconds) => seconds_of("overflow_after_s", seconds)?,
        None => JobType::overflow_after(expected),
    };
    check_task(&written)?;
    Ok(JobType {
        id: written.id,
        label: written.label,
        badge: written.badge,
        tier: written.tier,
        queue: written.queue,
        model: written.model,
        task,
        width: written.width,
        height: written.height,
        steps: written.steps,
        guidance: written.guidance,
        strength: written.strength,
        seconds: written.seconds,
        expected,
        overflow_after,
        bucket: written.bucket,
        needs_init_image: written.needs_init_image,
        engine: written.engine,
        limits,
        fallback: written.fallback,
    })
}

/// Checks that the fields that belong to some tasks are there for these and for no others.
fn check_task(written: &TypeText) -> Result<(), Problem> {
    let (has_first, is_clip) = match written.task {
        Task::Txt2img => (false, false),
        Task::Img2img | Task::Upscale => (true, false),
        Task::Video => (written.needs_init_image, true),
    };
    if written.needs_init_image != has_first {
        return Err(("needs_init_image", format!("must be {has_first} for this task")));
    }
    match written.strength {
        Some(strength) if !(strength > 0.0 && strength <= 1.0) => Err(("strength", "must be above 0, to 1".to_owned())),
        Some(_) if !has_first => Err(("strength", "needs an init image; remove it".to_owned())),
        None if written.task == Task::Img2img => Err(("strength", "is missing; 0.75 is usual".to_owned())),
        Some(_) | None => Ok(()),
    }?;
    match written.seconds {
        Some(seconds) if !(seconds > 0.0 && seconds <= CLIP_SECONDS_MAX) => {
            Err(("seconds", format!("must be above 0, to {CLIP_SECONDS_MAX}")))
        }
        Some(_) if !is_clip => Err(("seconds", "only clips have a length; remove it".to_owned())),
        None if is_clip => Err(("seconds", "is missing: how long the clip is".to_owned())),
        Some(_) | None => Ok(()),
    }?;
    if written.needs_init_image && written.fallback != Fallback::Never {
        let problem = "a type with an init image cannot fall back: no other has it; write \"never\"";
        return Err(("fallback", problem.to_owned()));
    }
    Ok(())
}

/// Checks what types say of each other; the index is that of the type at fault.
fn check_together(types: &[JobType]) -> Result<(), (usize, Problem)> {
    let mut indexes = BTreeMap::new();
    for (index, one) in types.iter().enumerate() {
        if indexes.insert(&one.id, index).is_some() {
            return Err((index, ("id", "another type has this name; rename one".to_owned())));
        }
    }
    for (index, one) in types.iter().enumerate() {
        let Fallback::To(to) = &one.fallback else { continue };
        let Some(target) = indexes.get(to).map(|index| &types[*index]) else {
            let problem = format!("there is no type {to}; name one of this catalogue, or \"never\"");
            return Err((index, ("fallback", problem)));
        };
        if target.task != one.task || target.needs_init_image {
            let problem = format!("{to} does another task; name a type that needs the same, or \"never\"");
            return Err((index, ("fallback", problem)));
        }
        if target.limits.prompt_bytes < one.limits.prompt_bytes {
            let problem = format!("{to} takes shorter prompts; lower limits.prompt_bytes here or raise it there");
            return Err((index, ("fallback", problem)));
        }
    }
    for index in 0..types.len() {
        let mut at = index;
        // A way through more types than there are has met one twice.
        for _ in 0..types.len() {
            let Fallback::To(to) = &types[at].fallback else { break };
            at = indexes[to];
            if at == index {
                let problem = "leads back to this type; break the circle with \"never\"";
                return Err((index, ("fallback", problem.to_owned())));
            }
        }
    }
    Ok(())
}

fn text_fits(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Problem> {
    let fits = (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err((field, format!("must be 1 to {bytes_max} bytes of plain text"))) }
}

fn within(field: &'static str, name: &str, number: u64, range: RangeInclusive<u64>) -> Result<(), Problem> {
    if range.contains(&number) {
        return Ok(());
    }
    Err((field, format!("{name} is {number} and must be {} to {}", range.start(), range.end())))
}

fn side(field: &'static str, pixels: u32) -> Result<(), Problem> {
    if (SIDE_PIXELS_MIN..=SIDE_PIXELS_MAX).contains(&pixels) && pixels.is_multiple_of(SIDE_PIXELS_STEP) {
        return Ok(());
    }
    let problem = format!("must be a multiple of {SIDE_PIXELS_STEP}, {SIDE_PIXELS_MIN} to {SIDE_PIXELS_MAX}");
    Err((field, problem))
}

fn seconds_of(field: &'static str, seconds: f64) -> Result<Duration, Problem> {
    if seconds >= 0.001 && seconds <= EXPECTED_MAX.as_secs_f64() {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err((field, format!("must be 0.001 to {}", EXPECTED_MAX.as_secs())))
}

/// The line on which the byte at `start` stands, counted from 1.
fn line_at(text: &str, start: usize) -> usize {
    1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count()
}

/// The line of a field of the type that begins at `start`; the type's own if it does not write that field.
fn line_of(text: &str, start: usize, field: &str) -> usize {
    let first = line_at(text, start);
    let fields = text.lines().skip(first).take_while(|line| !line.trim_start().starts_with("[["));
    let writes = |line: &str| {
        let name = line.trim_start().strip_prefix('[').unwrap_or(line).split(['=', '.', ']']).next();
        name.is_some_and(|name| name.trim() == field)
    };
    fields.enumerate().find(|(_, line)| writes(line)).map_or(first, |(index, _)| first + 1 + index)
}

/// `, type A, field B`, as far as known.
fn place(ask: Option<&Ask>, field: Option<&str>) -> String {
    let ask = ask.map(|ask| format!(", type {ask}")).unwrap_or_default();
    let field = field.map(|field| format!(", field {field}")).unwrap_or_default();
    ask + &field
}
