//! What the page says of the relay's queue and of the person's jobs in it.

use super::{capitalised, left, percent, quoted};
use crate::page::form::Form;
use crate::page::jobs::{Origin, Queue, QueueJob, Stage};
use crate::queue::{Cloud, Line, Offer, Source, Status, View};

/// What the choice of quality means, as it is made.
pub fn quality(queue: &Queue, form: &Form) -> String {
    match queue.chosen(form) {
        None => "Quick: the room paints it at once, and only its members see the prompt.".into(),
        Some(offer) => {
            let who = match offer.cloud {
                Cloud::Absent => "a helper of the room.",
                Cloud::Barred => {
                    "a helper of the room. The operator does not let this room spend money, so it is not sent to the cloud."
                }
                Cloud::Open => "a helper of the room, or a machine in the cloud that the operator rents.",
            };
            // The relay's own note says whom it waits for, but counts the cloud in.
            let is_told = offer.is_ready || !offer.note.is_empty();
            let away = if is_told { "" } else { " Nobody is there for it now; it waits until a helper comes." };
            let note =
                if offer.note.is_empty() { String::new() } else { format!(" {}", capitalised(&sentence(&offer.note))) };
            format!(
                "High: prompt and picture go through the relay's queue. The relay sees them, and so does who paints it: {who}{away} {}.{note}",
                facts(offer)
            )
        }
    }
}

/// A job type in the list.
pub fn offer(offer: &Offer) -> String {
    if offer.is_ready {
        format!("{}, {}", offer.label, about(offer.expected_s))
    } else {
        format!("{} (nobody there)", offer.label)
    }
}

/// How much there is to do in the room's queue; empty while nobody knows.
pub fn line(queue: &Queue) -> String {
    let Some(Line { waiting, processing }) = queue.line else { return String::new() };
    // The line is some seconds old; jobs on this page may be newer.
    let own = |status| {
        let is_so = |job: &&QueueJob| job.view.as_ref().is_some_and(|view| view.status == status);
        u32::try_from(queue.open().filter(is_so).count()).unwrap_or(u32::MAX)
    };
    match (waiting.max(own(Status::Queued)), processing.max(own(Status::Processing))) {
        (0, 0) => "The room's queue is empty.".into(),
        (waiting, 0) => format!("The room's queue: {waiting} waiting."),
        (waiting, processing) => format!("The room's queue: {waiting} waiting, {processing} being painted."),
    }
}

/// Where a job stands, where these can be asked for.
pub fn doing(job: &QueueJob, offers: &[Offer]) -> String {
    let view = job.view.as_ref();
    // The relay's time supposes that somebody comes.
    let is_alone = |view: &View| view.source.is_none() && offers.iter().any(|it| it.kind == view.kind && !it.is_ready);
    let source = view.and_then(|view| view.source);
    let worker = view.map(|view| view.worker.as_str()).unwrap_or_default();
    let stands = match job.stage {
        Stage::Handing => vec!["Being handed to the relay".to_owned()],
        Stage::Cancelling => vec!["Being called off".to_owned()],
        Stage::Fetching => vec!["Painted; its picture is on the way".to_owned()],
        Stage::Cancelled => vec!["Cancelled".to_owned()],
        Stage::Failed => vec!["No picture".to_owned()],
        Stage::Lost => vec![
            "The relay does not know this job: it was kept long enough, or the relay has a new queue. Paint it again if you still want it".to_owned(),
        ],
        Stage::Shown => vec![format!("Painted{}", by(source, worker))],
        Stage::Watching => match view {
            None => vec!["Asking the relay how it stands".to_owned()],
            Some(view) if view.status == Status::Processing => {
                let part = (view.fraction > 0.0).then(|| format!("{} %", percent(view.fraction)));
                [Some(format!("Being painted{}", by(source, worker))), part].into_iter().flatten().collect()
            }
            Some(view) => {
                vec![view.position.map_or_else(|| "Waiting".into(), |place| format!("Place {place} in the queue"))]
            }
        },
    };
    let time = |view: &View| if is_alone(view) { "nobody is there for it now".to_owned() } else { left(view.eta_s) };
    let eta = view.filter(|_| job.stage == Stage::Watching).map(time).filter(|eta| !eta.is_empty());
    let tells_cost = |view: &&View| job.stage == Stage::Shown || view.cost_usd > 0.0;
    let cost = view.filter(tells_cost).map(|view| money(view.cost_usd));
    let instead = view.filter(|view| !view.fallback_of.is_empty()).map(|view| format!("as {} instead", view.kind));
    let all: Vec<_> = stands.into_iter().chain(eta).chain(cost).chain(instead).collect();
    let text = format!("{}.", all.join(" · "));
    if job.trouble.is_empty() { text } else { format!("{text} {}", job.trouble) }
}

/// What is read aloud of the newest job; without numbers that change all the time.
pub fn aloud(job: &QueueJob) -> String {
    let prompt = quoted(&job.kept.recipe.prompt);
    let stands = match (job.stage, job.view.as_ref().map(|view| view.status)) {
        (Stage::Handing, _) => "is being handed to the relay",
        (Stage::Watching, Some(Status::Processing)) => "is being painted",
        (Stage::Watching, _) => "waits in the queue",
        (Stage::Cancelling, _) => "is being called off",
        (Stage::Fetching, _) => "is painted",
        (Stage::Shown, _) => "is shown",
        (Stage::Cancelled, _) => "was cancelled",
        (Stage::Failed, _) => "has no picture",
        (Stage::Lost, _) => "is not known to the relay",
    };
    format!("{prompt} {stands}")
}

/// Who painted a picture of the queue, for whose money.
pub fn credits(origin: &Origin, took_ms: u64) -> String {
    let time = if took_ms > 0 { format!(" in {:.1} s", took_ms as f64 / 1000.0) } else { String::new() };
    format!("{}, painted{time}{}, {}.", origin.label, by(origin.source, &origin.worker), money(origin.cost_usd))
}

/// An amount as people write it; parts of a cent are usual.
pub fn money(usd: f64) -> String {
    if usd <= 0.0 {
        return "free of charge".into();
    }
    // Rounded up: nobody is told less than was paid.
    let steps = (usd * 10_000.0 - 1e-6).ceil().max(1.0);
    format!("${:.4}", steps / 10_000.0)
}

/// Words of a source, for scripts.
pub fn source_name(source: Source) -> &'static str {
    match source {
        Source::Local => "local",
        Source::Peer => "peer",
        Source::Cloud => "cloud",
    }
}

/// Words of what rented machines do, for scripts.
pub fn cloud_name(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Absent => "absent",
        Cloud::Barred => "barred",
        Cloud::Open => "open",
    }
}

/// Words of a status, for scripts.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Queued => "queued",
        Status::Processing => "processing",
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    }
}

fn by(source: Option<Source>, worker: &str) -> String {
    let who = match source {
        None => return String::new(),
        Some(Source::Local) => "the relay's own machine",
        Some(Source::Peer) => "a helper of the room",
        Some(Source::Cloud) => "the cloud",
    };
    if worker.is_empty() { format!(" by {who}") } else { format!(" by {who} ({worker})") }
}

fn facts(offer: &Offer) -> String {
    let Offer { width, height, steps, guidance, expected_s, .. } = offer;
    format!("{width} x {height}, {steps} steps, guidance {guidance}, {}", about(*expected_s))
}

fn about(seconds: f32) -> String {
    if seconds < 90.0 {
        format!("about {} s", seconds.ceil())
    } else {
        format!("about {} min", (seconds / 60.0).ceil())
    }
}

fn sentence(text: &str) -> String {
    crate::session::order::sentence(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::jobs::Kept;
    use crate::words::Recipe;

    fn job(stage: Stage, view: Option<View>) -> QueueJob {
        let recipe = Recipe { prompt: "a lake".into(), ..Recipe::default() };
        let kept = Kept {
            key: "k-1".into(),
            id: Some("j1".into()),
            kind: "demo_high".into(),
            label: "Demo".into(),
            recipe,
            picture: None,
        };
        QueueJob { stage, view, ..QueueJob::new(kept) }
    }

    fn view(status: Status) -> View {
        View::bare("demo_high", status)
    }

    fn offered(cloud: Cloud, is_ready: bool) -> Offer {
        Offer {
            kind: "demo_high".into(),
            label: "Demo".into(),
            is_high: true,
            width: 128,
            height: 128,
            steps: 24,
            guidance: 3.0,
            expected_s: 8.0,
            prompt_bytes_max: 4096,
            is_ready,
            cloud,
            note: String::new(),
        }
    }

    #[test]
    fn a_waiting_job_tells_its_place_and_time() {
        let waits = View { position: Some(3), eta_s: Some(41.2), ..view(Status::Queued) };
        assert_eq!(doing(&job(Stage::Watching, Some(waits)), &[]), "Place 3 in the queue · about 42 s left.");
        assert_eq!(doing(&job(Stage::Watching, None), &[]), "Asking the relay how it stands.");
    }

    #[test]
    fn the_choice_says_who_sees_the_prompt_and_who_pays() {
        let words = |cloud, is_ready| {
            let queue = Queue { offers: vec![offered(cloud, is_ready)], ..Queue::default() };
            let form = Form { is_high: true, kind: "demo_high".into(), ..Form::default() };
            quality(&queue, &form)
        };
        for (cloud, is_ready) in [(Cloud::Absent, true), (Cloud::Barred, false), (Cloud::Open, true)] {
            let words = words(cloud, is_ready);
            assert!(words.contains("The relay sees them, and so does who paints it"), "{words}");
            assert_eq!(words.contains("in the cloud that the operator rents"), cloud == Cloud::Open, "{words}");
            assert_eq!(words.contains("does not let this room spend"), cloud == Cloud::Barred, "{words}");
            assert_eq!(words.contains("waits until a helper comes"), !is_ready, "{words}");
        }
        let noted = Offer { note: "it waits for sdxl".into(), ..offered(Cloud::Absent, false) };
        let form = Form { is_high: true, ..Form::default() };
        let words = quality(&Queue { offers: vec![noted], ..Queue::default() }, &form);
        assert!(words.ends_with("It waits for sdxl.") && !words.contains("Nobody"), "said once: {words}");
        let quick = quality(&Queue::default(), &Form::default());
        assert!(quick.contains("only its members see the prompt"), "{quick}");
    }

    #[test]
    fn nobody_is_told_a_time_while_nobody_is_there() {
        let waits = View { position: Some(1), eta_s: Some(3.0), ..view(Status::Queued) };
        let waits = job(Stage::Watching, Some(waits));
        let told = |cloud, is_ready| doing(&waits, &[offered(cloud, is_ready)]);
        assert_eq!(told(Cloud::Barred, false), "Place 1 in the queue · nobody is there for it now.");
        assert_eq!(told(Cloud::Barred, true), "Place 1 in the queue · about 3 s left.");
    }

    #[test]
    fn a_job_being_painted_tells_who_and_how_far() {
        let painted = View {
            source: Some(Source::Cloud),
            worker: "sdxl".into(),
            fraction: 0.456,
            eta_s: Some(4.0),
            ..view(Status::Processing)
        };
        assert_eq!(
            doing(&job(Stage::Watching, Some(painted)), &[]),
            "Being painted by the cloud (sdxl) · 45 % · about 4 s left."
        );
    }

    #[test]
    fn a_finished_job_tells_what_it_cost() {
        let done = View { source: Some(Source::Cloud), cost_usd: 0.00312, ..view(Status::Completed) };
        assert_eq!(doing(&job(Stage::Shown, Some(done)), &[]), "Painted by the cloud · $0.0032.");
        let done = View { source: Some(Source::Peer), ..view(Status::Completed) };
        assert_eq!(doing(&job(Stage::Shown, Some(done)), &[]), "Painted by a helper of the room · free of charge.");
        let called_off = View { cost_usd: 0.001, ..view(Status::Cancelled) };
        assert_eq!(doing(&job(Stage::Cancelled, Some(called_off)), &[]), "Cancelled · $0.0010.");
        assert_eq!(doing(&job(Stage::Cancelled, Some(view(Status::Cancelled))), &[]), "Cancelled.");
    }

    #[test]
    fn a_trouble_follows_what_stands() {
        let failed = QueueJob { trouble: "Too dark.".into(), ..job(Stage::Failed, Some(view(Status::Failed))) };
        assert_eq!(doing(&failed, &[]), "No picture. Too dark.");
        assert!(doing(&job(Stage::Lost, None), &[]).contains("does not know this job"));
    }

    #[test]
    fn money_is_rounded_up_and_never_to_nothing() {
        assert_eq!(money(0.0), "free of charge");
        assert_eq!(money(0.000001), "$0.0001");
        assert_eq!(money(0.0032), "$0.0032");
        assert_eq!(money(1.5), "$1.5000");
    }

    #[test]
    fn credits_of_a_queues_picture_name_its_source() {
        let origin = Origin {
            kind: "demo_high".into(),
            label: "Demo, high quality".into(),
            source: Some(Source::Cloud),
            worker: "demo".into(),
            cost_usd: 0.001,
        };
        assert_eq!(credits(&origin, 1500), "Demo, high quality, painted in 1.5 s by the cloud (demo), $0.0010.");
    }

    #[test]
    fn the_rooms_queue_is_one_line() {
        let queue = |waiting, processing| Queue { line: Some(Line { waiting, processing }), ..Queue::default() };
        assert_eq!(line(&Queue::default()), "");
        assert_eq!(line(&queue(0, 0)), "The room's queue is empty.");
        assert_eq!(line(&queue(2, 1)), "The room's queue: 2 waiting, 1 being painted.");
        let waits = || job(Stage::Watching, Some(view(Status::Queued)));
        let called_off = job(Stage::Cancelled, Some(view(Status::Queued)));
        let with_own = Queue { jobs: vec![waits(), waits(), called_off], ..queue(0, 1) };
        assert_eq!(line(&with_own), "The room's queue: 2 waiting, 1 being painted.", "own ones may be newer");
    }
}
