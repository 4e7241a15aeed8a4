//! Reads what a relay answers. A newer relay may say more; what the page needs must be there, and lists end.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Cloud, Line, Offer, Source, Status, Trouble, View};

/// Job types that a form can offer.
const OFFERS_MAX: usize = 64;

/// Pictures of one job that are looked at.
const FILES_MAX: usize = 16;

/// Words of the queue's catalogue: what the form can ask for, and what counts as better than fast.
const FROM_WORDS: &str = "txt2img";
const FAST: &str = "fast";

/// The right that lets a room's jobs cost money, as tokens name it.
const SPEND: &str = "spend";

/// What a member of a room is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token.
    pub token: String,
    /// Whether jobs asked for with it may cost money.
    pub may_spend: bool,
}

/// What can be asked for with words alone, by somebody who may spend or not: the relay tells who is there whoever asks.
pub fn offers(bytes: &[u8], may_spend: bool) -> Result<Vec<Offer>, Trouble> {
    #[derive(Deserialize)]
    struct Capability {
        id: String,
        label: String,
        tier: String,
        task: String,
        width: u32,
        height: u32,
        steps: u32,
        guidance: f32,
        expected_s: f32,
        needs_init_image: bool,
        limits: Limits,
        ready: Vec<Source>,
        note: Option<String>,
    }
    #[derive(Deserialize)]
    struct Limits {
        prompt_bytes: usize,
    }
    let types: Vec<Capability> = read(bytes)?;
    let usable = types.into_iter().filter(|kind| kind.task == FROM_WORDS && !kind.needs_init_image);
    let cloud = |ready: &[Source]| match ready.contains(&Source::Cloud) {
        false => Cloud::Absent,
        true if may_spend => Cloud::Open,
        true => Cloud::Barred,
    };
    let offer = |kind: Capability| Offer {
        kind: kind.id,
        label: kind.label,
        is_high: kind.tier != FAST,
        width: kind.width,
        height: kind.height,
        steps: kind.steps,
        guidance: kind.guidance,
        expected_s: kind.expected_s,
        prompt_bytes_max: kind.limits.prompt_bytes,
        is_ready: kind.ready.iter().any(|source| may_spend || *source != Source::Cloud),
        cloud: cloud(&kind.ready),
        note: kind.note.unwrap_or_default(),
    };
    Ok(usable.take(OFFERS_MAX).map(offer).collect())
}

/// How much there is to do.
pub fn line(bytes: &[u8]) -> Result<Line, Trouble> {
    #[derive(Deserialize)]
    struct Listed {
        jobs: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        status: Status,
    }
    let Listed { jobs } = read(bytes)?;
    let count = |status| u32::try_from(jobs.iter().filter(|job| job.status == status).count()).unwrap_or(u32::MAX);
    Ok(Line { waiting: count(Status::Queued), processing: count(Status::Processing) })
}

/// One job.
pub fn job(bytes: &[u8]) -> Result<View, Trouble> {
    read::<Told>(bytes).map(View::from)
}

/// The one job that a submission of one picture made.
pub fn submitted(bytes: &[u8]) -> Result<View, Trouble> {
    #[derive(Deserialize)]
    struct Jobs {
        jobs: Vec<Told>,
    }
    let Jobs { jobs } = read(bytes)?;
    let mut jobs = jobs.into_iter().map(View::from);
    jobs.next().ok_or_else(|| Trouble::Malformed("no job was made".into()))
}

/// The token of the room, and whether it may spend.
pub fn grant(bytes: &[u8]) -> Result<Grant, Trouble> {
    #[derive(Deserialize)]
    struct Granted {
        token: String,
        #[serde(default)]
        rights: Vec<String>,
    }
    let Granted { token, rights } = read(bytes)?;
    Ok(Grant { token, may_spend: rights.iter().any(|right| right == SPEND) })
}

/// The sentence of an error; empty if it has none.
pub fn error(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Failed {
        error: Failure,
    }
    #[derive(Deserialize)]
    struct Failure {
        message: String,
    }
    read::<Failed>(bytes).map(|failed| failed.error.message).unwrap_or_default()
}

/// A job as the relay writes it.
#[derive(Deserialize)]
struct Told {
    id: String,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    status: Status,
    #[serde(default)]
    position: Option<u32>,
    #[serde(default)]
    eta_s: Option<f32>,
    #[serde(default)]
    worker_type: Option<String>,
    #[serde(default)]
    source: Option<Source>,
    #[serde(default)]
    progress: Option<f32>,
    #[serde(default)]
    cost_usd: Option<f64>,
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    started_ms: Option<u64>,
    #[serde(default)]
    finished_ms: Option<u64>,
    #[serde(default)]
    fallback_of: Option<String>,
}

/// A file of a job, and where it can be read.
#[derive(Deserialize)]
struct File {
    url: String,
    mime: String,
}

impl From<Told> for View {
    fn from(told: Told) -> Self {
        let took_ms = told.started_ms.zip(told.finished_ms).map(|(began, ended)| ended.saturating_sub(began));
        let pictures = told.files.into_iter().filter(|file| file.mime.starts_with("image/"));
        let sound = |number: f64| if number.is_finite() && number > 0.0 { number } else { 0.0 };
        Self {
            id: told.id,
            kind: told.kind.unwrap_or_default(),
            status: told.status,
            // The relay counts those before it.
            position: told.position.map(|before| before.saturating_add(1)),
            eta_s: told.eta_s.filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
            worker: told.worker_type.unwrap_or_default(),
            source: told.source,
            fraction: sound(told.progress.unwrap_or_default().into()).min(1.0) as f32,
            cost_usd: sound(told.cost_usd.unwrap_or_default()),
            route: told.route.unwrap_or_default(),
            files: pictures.take(FILES_MAX).map(|file| file.url).collect(),
            error: told.error.unwrap_or_default(),
            took_ms,
            fallback_of: told.fallback_of.unwrap_or_default(),
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(bytes).map_err(|error| Trouble::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_of_this_version_offers_is_understood() {
        let present = ::queue::Present { cloud: true, ..Default::default() };
        let types = ::queue::Catalogue::shipped().answer(|_| present);
        let words = types.iter().filter(|kind| kind.task == ::queue::Task::Txt2img).count();
        let text = serde_json::to_string(&types).unwrap();
        let offers = offers(text.as_bytes(), true).unwrap();
        assert_eq!(offers.len(), words, "clips and pictures from pictures need another form");
        let high = offers.iter().find(|offer| offer.kind == "sdxl_image_high").unwrap();
        assert_eq!((high.width, high.height, high.steps, high.guidance), (1024, 1024, 25, 7.5));
        assert!(high.is_high && high.is_ready && high.expected_s == 8.0 && high.prompt_bytes_max > 0);
        assert!(!offers.iter().find(|offer| offer.kind == "sdxl_image_fast").unwrap().is_high);
    }

    #[test]
    fn rented_machines_are_there_for_those_only_who_may_spend() {
        let told = |peer, cloud, may_spend| {
            let present = ::queue::Present { peer, cloud, ..Default::default() };
            let types = ::queue::Catalogue::shipped().answer(|_| present);
            let offers = offers(serde_json::to_string(&types).unwrap().as_bytes(), may_spend).unwrap();
            let demo = offers.into_iter().find(|offer| offer.kind == "demo_high").unwrap();
            (demo.cloud, demo.is_ready)
        };
        assert_eq!(told(false, true, true), (Cloud::Open, true));
        assert_eq!(told(false, true, false), (Cloud::Barred, false));
        assert_eq!(told(true, true, false), (Cloud::Barred, true), "a helper is there");
        assert_eq!(told(false, false, true), (Cloud::Absent, false));
        assert_eq!(told(true, false, false), (Cloud::Absent, true));
    }

    #[test]
    fn a_job_is_read_with_whatever_is_known_of_it() {
        let bare = job(br#"{"id":"a","status":"queued","type":null,"something":"new"}"#).unwrap();
        assert_eq!((bare.status, bare.position, bare.cost_usd), (Status::Queued, None, 0.0));
        let told = job(
            br#"{"id":"a","type":"demo_high","status":"completed","position":2,"eta_s":1.5,"worker_type":"runpod","source":"cloud",
                "progress":1.0,"cost_usd":0.0042,"route":"why","started_ms":1000,"finished_ms":9200,"fallback_of":"sdxl",
                "files":[{"path":"a/b/c.mp4","url":"/clip","mime":"video/mp4"},{"path":"a/b/d.png","url":"/d","mime":"image/png"}]}"#,
        );
        let told = told.unwrap();
        assert_eq!((told.position, told.eta_s, told.took_ms), (Some(3), Some(1.5), Some(8_200)), "two are before it");
        assert_eq!((told.source, told.worker.as_str(), told.cost_usd), (Some(Source::Cloud), "runpod", 0.0042));
        assert_eq!((told.kind.as_str(), told.fallback_of.as_str(), told.route.as_str()), ("demo_high", "sdxl", "why"));
        assert_eq!(told.files, ["/d"], "a clip is no picture");
        assert!(matches!(job(br#"{"id":"a"}"#), Err(Trouble::Malformed(_))));
        assert!(matches!(job(b"<html>"), Err(Trouble::Malformed(_))));
    }

    #[test]
    fn a_submission_of_one_picture_makes_one_job() {
        let made = submitted(br#"{"jobs":[{"id":"a","status":"queued","position":0}]}"#).unwrap();
        assert_eq!((made.id.as_str(), made.position), ("a", Some(1)));
        assert!(matches!(submitted(br#"{"jobs":[]}"#), Err(Trouble::Malformed(_))));
        let granted = |may_spend| Ok(Grant { token: "t".into(), may_spend });
        assert_eq!(grant(br#"{"token":"t","rights":["read","submit"]}"#), granted(false));
        assert_eq!(grant(br#"{"token":"t","rights":["read","spend"]}"#), granted(true));
        assert_eq!(grant(br#"{"token":"t"}"#), granted(false), "what is not said is not allowed");
    }

    #[test]
    fn a_rooms_list_is_counted_by_what_is_still_to_do() {
        let told =
            line(br#"{"jobs":[{"status":"processing"},{"status":"queued"},{"status":"queued"},{"status":"failed"}]}"#);
        assert_eq!(told, Ok(Line { waiting: 2, processing: 1 }));
        assert_eq!(line(br#"{"jobs":[]}"#), Ok(Line::default()));
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let told =
            job(br#"{"id":"a","status":"processing","eta_s":-1,"progress":7,"cost_usd":-3,"position":null}"#).unwrap();
        assert_eq!((told.eta_s, told.fraction, told.cost_usd, told.position), (None, 1.0, 0.0, None));
    }

    #[test]
    fn an_errors_sentence_is_found() {
        assert_eq!(error(br#"{"error":{"code":"x","message":"no such room"}}"#), "no such room");
        assert_eq!(error(b"<html>"), "");
    }
}
