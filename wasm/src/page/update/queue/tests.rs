//! What the page promises of the relay's queue, told to the update function as a person and a relay would.

use super::super::tests::{Page, SECRET};
use super::*;
use crate::page::settings::Start;
use crate::page::state::Activity;
use crate::page::update::Msg;
use crate::queue::{Cloud, Line, PictureKind, Source};

const PNG: [u8; 9] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 1];

fn offer(kind: &str, is_high: bool, is_ready: bool) -> Offer {
    Offer {
        kind: kind.into(),
        label: format!("Label of {kind}"),
        is_high,
        width: 1024,
        height: 768,
        steps: 25,
        guidance: 7.5,
        expected_s: 8.0,
        prompt_bytes_max: 100,
        is_ready,
        cloud: Cloud::Open,
        note: String::new(),
    }
}

fn view(status: Status) -> View {
    View::bare("sdxl_high", status)
}

fn done() -> View {
    View {
        source: Some(Source::Cloud),
        worker: "sdxl".into(),
        cost_usd: 0.0042,
        took_ms: Some(8_200),
        route: "the cloud: 8 s against 90 s".into(),
        files: vec!["/api/files/a/b/c.png?signature=x".into()],
        ..view(Status::Completed)
    }
}

fn refused(status: u16) -> Trouble {
    Trouble::Refused { status, text: "no".into(), retry_after_s: None }
}

fn kept(id: Option<&str>, picture: Option<&str>) -> Kept {
    Kept {
        key: "old-1".into(),
        id: id.map(str::to_owned),
        kind: "sdxl_high".into(),
        label: "SDXL".into(),
        recipe: Recipe { prompt: "a lake".into(), seed: Some(3), ..Recipe::default() },
        picture: picture.map(str::to_owned),
    }
}

/// A page in a room, with the relay of the queue at its other end.
struct Room {
    page: Page,
}

impl Room {
    /// A page that knows what can be asked for, and whose form asks for high quality.
    fn open() -> Self {
        let mut room = Self::reopen(Vec::new());
        room.answer(
            Request::Offers,
            Ok(Answer::Offers(vec![offer("sdxl_fast", false, true), offer("sdxl_high", true, true)])),
        );
        let form = Form { is_high: true, ..room.page.state.form.clone() };
        room.page.tell(Msg::Edited(form));
        room.page.effects.clear();
        room
    }

    /// A page that was reloaded, with what its tab remembers.
    fn reopen(jobs: Vec<Kept>) -> Self {
        let start = Start { fragment: SECRET.into(), visit: "v".into(), ..Start::default() };
        let mut page = Page::open_with(start);
        page.tell(Msg::QueueOpened(page.state.generation, jobs));
        Self { page }
    }

    fn answer(&mut self, request: Request, answer: Result<Answer, Trouble>) {
        let generation = self.page.state.generation;
        self.page.tell(Msg::Answered(generation, Box::new(request), Box::new(answer), 9_000));
    }

    fn answer_with(&mut self, request: Request, view: View) {
        self.answer(request, Ok(Answer::Job(Box::new(view))));
    }

    /// The only request about a job since the last look, and its pause.
    fn asked(&mut self) -> (Request, u32) {
        let mut asked = self.all_asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    fn all_asked(&mut self) -> Vec<(Request, u32)> {
        let is_of_a_job = |request: &Request| !matches!(request, Request::Offers | Request::Line);
        let asked = |effect| match effect {
            Effect::Ask { request, after_ms, .. } if is_of_a_job(&request) => Some((request, after_ms)),
            _ => None,
        };
        std::mem::take(&mut self.page.effects).into_iter().filter_map(asked).collect()
    }

    /// What the tab was told to remember last.
    fn remembered(&self) -> Vec<Kept> {
        let kept = |effect: &Effect| if let Effect::KeepJobs { jobs, .. } = effect { Some(jobs.clone()) } else { None };
        self.page.effects.iter().rev().find_map(kept).expect("something was to be remembered")
    }

    fn job(&self) -> &QueueJob {
        &self.page.state.queue.jobs[0]
    }

    /// One job, which the relay has and tells so.
    fn with_job(status: Status) -> (Self, Request) {
        let mut room = Self::open();
        room.page.paint("a lake", 7);
        let (submit, _) = room.asked();
        room.answer_with(submit, view(status));
        let (look, _) = room.asked();
        (room, look)
    }
}

#[test]
fn high_quality_goes_to_the_relay_and_not_to_the_room() {
    let mut room = Room::open();
    room.page.paint("a lake", 7);
    let remembered = room.remembered();
    assert_eq!((remembered[0].id.as_ref(), remembered[0].key.as_str()), (None, "v-1"), "before it is sent");
    let (Request::Submit { key, kind, recipe, .. }, 0) = room.asked() else { panic!("no submission") };
    assert_eq!((key.as_str(), kind.as_str()), ("v-1", "sdxl_high"), "more than fast, unless another type is chosen");
    assert_eq!(
        (recipe.width, recipe.steps, recipe.seed),
        (1024, 25, Some(7)),
        "as the type says, with the form's seed"
    );
    assert!(room.page.wishes().is_empty());
    assert_eq!(room.page.state.activity(), Activity::Idle, "the room is free for quick pictures");
    let form = Form { is_high: false, ..room.page.state.form.clone() };
    room.page.tell(Msg::Paint(form, 0));
    assert_eq!(room.page.wishes().len(), 1, "the room paints quick ones");
}

#[test]
fn without_a_queue_everything_is_painted_by_the_room() {
    for answer in [Ok(Answer::Offers(Vec::new())), Err(refused(404))] {
        let mut room = Room::reopen(Vec::new());
        room.answer(Request::Offers, answer);
        room.page.state.form.is_high = true;
        room.page.paint("a lake", 7);
        assert_eq!(room.page.wishes().len(), 1);
    }
    let mut alone = Page::open("");
    assert!(alone.effects.iter().all(|effect| !matches!(effect, Effect::OpenQueue { .. } | Effect::Ask { .. })));
    alone.tell(Msg::QueueOpened(alone.state.generation + 1, vec![kept(None, None)]));
    assert!(alone.state.queue.jobs.is_empty(), "of another session");
}

#[test]
fn a_relay_that_does_not_answer_is_asked_again_for_what_it_offers_and_not_for_ever() {
    let mut room = Room::reopen(Vec::new());
    let mut asked = 0;
    loop {
        room.page.effects.clear();
        room.answer(Request::Offers, Err(Trouble::Unreachable("offline".into())));
        if room.page.effects.is_empty() {
            break;
        }
        asked += 1;
    }
    assert_eq!(asked, OFFERS_FAILURES_MAX);
}

#[test]
fn a_job_waits_is_painted_and_shown_with_source_and_cost() {
    let mut room = Room::open();
    room.page.paint("a lake", 7);
    let (submit, _) = room.asked();
    room.answer_with(submit, view(Status::Queued));
    assert_eq!(room.remembered()[0].id.as_deref(), Some("j1"), "as soon as the relay has named it");
    let (look, _) = room.asked();
    room.answer_with(look, View { position: Some(2), eta_s: Some(40.0), ..view(Status::Queued) });
    assert_eq!(room.job().view.as_ref().unwrap().position, Some(2));
    let (look, pause) = room.asked();
    assert!(pause > 0, "a relay is not asked without pause");
    room.answer_with(look, View { fraction: 0.5, source: Some(Source::Cloud), ..view(Status::Processing) });
    let (look, _) = room.asked();
    room.answer_with(look, done());
    let (fetch, 0) = room.asked() else { panic!("the picture is fetched at once") };
    assert!(matches!(&fetch, Request::Fetch { url, .. } if url.contains("signature")));
    room.answer(fetch, Ok(Answer::Picture(PNG.to_vec())));

    let picture = room.page.state.picture().expect("it is shown");
    assert_eq!(picture.id, protocol::Hash::of(&PNG).to_string());
    assert_eq!((picture.took_ms, picture.when_ms, picture.bytes, picture.file), (8_200, 9_000, 9, PictureKind::Png));
    let origin = picture.origin.clone().unwrap();
    assert_eq!((origin.source, origin.cost_usd, origin.worker.as_str()), (Some(Source::Cloud), 0.0042, "sdxl"));
    assert!(picture.explanation.contains("against"));
    assert!(matches!(&room.page.effects[0], Effect::KeepPicture(_, file) if *file == PNG), "like others");
    assert_eq!(room.job().stage, Stage::Shown);
    assert_eq!(room.remembered()[0].picture.as_deref(), Some(picture.id.as_str()));
    assert!(room.all_asked().is_empty(), "nothing more is asked");
}

#[test]
fn several_pictures_are_several_jobs_with_seeds_in_a_row() {
    let mut room = Room::open();
    room.page.state.form.count = "3".into();
    room.page.paint("a lake", 7);
    let asked = room.all_asked();
    let seed = |(request, _): &(Request, u32)| match request {
        Request::Submit { key, recipe, .. } => Some((key.clone(), recipe.seed.unwrap())),
        _ => None,
    };
    let seeds: Vec<_> = asked.iter().filter_map(seed).collect();
    assert_eq!(seeds, [("v-1".into(), 7), ("v-2".into(), 8), ("v-3".into(), 9)]);
}

#[test]
fn a_refusal_says_why_and_can_be_asked_for_again_as_another_job() {
    let mut room = Room::open();
    room.page.paint("a lake", 7);
    let (submit, _) = room.asked();
    let text = "steps is 99 and must be 1 to 50".to_owned();
    room.answer(submit, Err(Trouble::Refused { status: 400, text, retry_after_s: None }));
    assert_eq!((room.job().stage, room.job().trouble.as_str()), (Stage::Failed, "Steps is 99 and must be 1 to 50."));
    assert!(room.remembered().is_empty(), "what has failed does not come back with a reload");
    room.page.effects.clear();
    room.page.tell(Msg::RepeatJob("v-1".into()));
    assert!(matches!(room.asked(), (Request::Submit { key, .. }, 0) if key == "v-2"));
    assert_eq!(room.page.state.queue.jobs.len(), 1);
}

#[test]
fn a_busy_relay_is_asked_again_with_the_same_key_when_it_says() {
    let mut room = Room::open();
    room.page.paint("a lake", 7);
    let (submit, _) = room.asked();
    room.answer(submit, Err(Trouble::Refused { status: 429, text: "too much".into(), retry_after_s: Some(7) }));
    assert!(room.job().trouble.contains("Trying again in 7 s"), "{}", room.job().trouble);
    let (again, pause) = room.asked();
    assert!(matches!(&again, Request::Submit { key, .. } if key == "v-1"));
    assert_eq!(pause, 7_000);
    room.answer(again, Err(refused(503)));
    let (mut again, _) = room.asked();
    for _ in 0..FAILURES_MAX {
        room.answer(again.clone(), Err(Trouble::Unreachable("offline".into())));
        match room.all_asked().pop() {
            Some((request, _)) => again = request,
            None => break,
        }
    }
    assert_eq!(room.job().stage, Stage::Failed, "not for ever");
    assert!(room.job().trouble.contains("does not answer"));
}

#[test]
fn cancel_works_wherever_a_job_is() {
    for status in [Status::Queued, Status::Processing] {
        let (mut room, _) = Room::with_job(status);
        room.page.tell(Msg::CancelJob("v-1".into()));
        let (cancel, 0) = room.asked() else { panic!("at once") };
        assert!(matches!(&cancel, Request::Cancel { id, .. } if id == "j1"));
        assert_eq!(room.job().stage, Stage::Cancelling);
        room.answer(cancel, Ok(Answer::Heard));
        let (look, 0) = room.asked() else { panic!("at once") };
        room.answer_with(look, view(Status::Cancelled));
        assert_eq!(room.job().stage, Stage::Cancelled);
        assert!(room.remembered().is_empty() && room.all_asked().is_empty());
    }
}

#[test]
fn a_job_that_is_being_handed_over_is_called_off_once_the_relay_has_named_it() {
    let mut room = Room::open();
    room.page.paint("a lake", 7);
    let (submit, _) = room.asked();
    room.page.tell(Msg::Cancel);
    assert!(room.all_asked().is_empty(), "it has no name yet");
    room.answer_with(submit, view(Status::Queued));
    assert!(matches!(room.asked(), (Request::Cancel { id, .. }, 0) if id == "j1"));

    let mut room = Room::open();
    room.page.paint("a lake", 7);
    let (submit, _) = room.asked();
    room.page.tell(Msg::Cancel);
    room.answer(submit, Err(refused(400)));
    assert_eq!(room.job().stage, Stage::Cancelled, "the relay never took it");
}

#[test]
fn escape_gives_up_the_rooms_picture_before_a_job_of_the_queue() {
    let (mut room, _) = Room::with_job(Status::Queued);
    let form = Form { is_high: false, ..room.page.state.form.clone() };
    room.page.tell(Msg::Paint(form, 0));
    room.page.tell(Msg::Cancel);
    assert_eq!(room.job().stage, Stage::Watching);
    room.page.tell(Msg::Cancel);
    assert_eq!(room.job().stage, Stage::Cancelling);
}

#[test]
fn a_job_that_was_done_before_it_could_be_called_off_is_shown() {
    let (mut room, _) = Room::with_job(Status::Processing);
    room.page.tell(Msg::CancelJob("v-1".into()));
    let (cancel, _) = room.asked();
    room.answer(cancel, Err(refused(409)));
    let (look, _) = room.asked();
    room.answer_with(look, done());
    let (fetch, _) = room.asked();
    room.answer(fetch, Ok(Answer::Picture(PNG.to_vec())));
    assert_eq!(room.job().stage, Stage::Shown);
}

#[test]
fn late_answers_change_nothing() {
    let (mut room, old_look) = Room::with_job(Status::Queued);
    room.page.tell(Msg::CancelJob("v-1".into()));
    let (cancel, _) = room.asked();
    room.answer_with(old_look, View { position: Some(9), ..view(Status::Queued) });
    assert!(room.all_asked().is_empty(), "one row of questions for each job");
    room.answer(cancel, Ok(Answer::Heard));
    let (look, _) = room.asked();
    room.answer_with(look.clone(), view(Status::Cancelled));
    room.answer_with(look, done());
    assert_eq!(room.job().stage, Stage::Cancelled);
    let elsewhere = room.page.state.generation + 1;
    room.page.tell(Msg::Answered(elsewhere, Box::new(Request::Line), Box::new(Ok(Answer::Line(Line::default()))), 0));
    assert!(room.all_asked().is_empty());
}

#[test]
fn a_reload_attaches_to_jobs_again_whether_the_relay_had_named_them_or_not() {
    let mut room = Room::reopen(vec![kept(Some("j1"), None)]);
    let (look, 0) = room.asked() else { panic!("at once") };
    assert!(matches!(&look, Request::Look { id, .. } if id == "j1"));
    room.answer_with(look, View { fraction: 0.3, ..view(Status::Processing) });
    let (look, _) = room.asked();
    room.answer_with(look, done());
    let (fetch, _) = room.asked();
    room.answer(fetch, Ok(Answer::Picture(PNG.to_vec())));
    assert_eq!(room.page.state.picture().unwrap().recipe.prompt, "a lake");

    let mut room = Room::reopen(vec![kept(None, None)]);
    let (submit, 0) = room.asked() else { panic!("at once") };
    assert!(matches!(submit, Request::Submit { key, .. } if key == "old-1"), "the same key: no second job");
}

#[test]
fn a_reload_after_the_end_shows_the_picture_again() {
    let id = protocol::Hash::of(&PNG).to_string();
    let mut room = Room::reopen(vec![kept(Some("j1"), Some(&id))]);
    let (look, _) = room.asked();
    room.answer_with(look, done());
    let (fetch, _) = room.asked();
    room.answer(fetch, Ok(Answer::Picture(PNG.to_vec())));
    assert_eq!((room.job().stage, room.page.state.shown.clone()), (Stage::Shown, Some(id.clone())));

    // The browser has kept it: it is not fetched once more.
    let picture = room.page.state.history[0].clone();
    let mut room = Room::reopen(vec![kept(Some("j1"), Some(&id))]);
    let (look, _) = room.asked();
    room.page.tell(Msg::HistoryLoaded(vec![picture]));
    room.answer_with(look, done());
    assert!(room.all_asked().is_empty());
    assert_eq!((room.job().stage, room.page.state.shown.clone()), (Stage::Shown, Some(id)));
}

#[test]
fn a_relay_that_knows_the_job_no_more_is_told_and_an_old_picture_is_not_missed() {
    let mut room = Room::reopen(vec![kept(Some("j1"), None)]);
    let (look, _) = room.asked();
    room.answer(look, Err(refused(404)));
    assert_eq!(room.job().stage, Stage::Lost);
    room.page.tell(Msg::DismissJob("old-1".into()));
    assert!(room.page.state.queue.jobs.is_empty() && room.remembered().is_empty());

    let mut room = Room::reopen(vec![kept(Some("j1"), Some("ab"))]);
    let (look, _) = room.asked();
    room.answer(look, Err(refused(404)));
    assert!(room.page.state.queue.jobs.is_empty(), "its picture is among the recent ones");
}

#[test]
fn a_job_outlasts_a_relay_that_is_away() {
    let (mut room, mut look) = Room::with_job(Status::Processing);
    let mut pauses = Vec::new();
    for _ in 0..20 {
        room.answer(look, Err(Trouble::Unreachable("offline".into())));
        let (again, pause) = room.asked();
        look = again;
        pauses.push(pause);
    }
    assert!(pauses.is_sorted() && pauses[19] == 30_000, "{pauses:?}");
    assert!(room.job().trouble.contains("does not answer"));
    room.answer_with(look, view(Status::Processing));
    assert!(room.job().trouble.is_empty());
}

#[test]
fn an_address_that_has_ended_is_asked_for_anew_and_not_for_ever() {
    let (mut room, look) = Room::with_job(Status::Processing);
    room.answer_with(look, done());
    let mut fetches = 0;
    while let Some((request, _)) = room.all_asked().pop() {
        match request {
            Request::Fetch { .. } => {
                fetches += 1;
                room.answer(request, Err(refused(403)));
            }
            _ => room.answer_with(request, done()),
        }
    }
    assert_eq!((fetches, room.job().stage), (FAILURES_MAX + 1, Stage::Failed));
    assert!(room.job().trouble.contains("cannot be fetched"));
}

#[test]
fn a_job_without_a_picture_has_failed() {
    for (told, words) in [
        (View { files: Vec::new(), ..done() }, "no picture"),
        (View { error: "the model fell over".into(), ..view(Status::Failed) }, "The model fell over."),
        (view(Status::Failed), "nobody said why"),
    ] {
        let (mut room, look) = Room::with_job(Status::Processing);
        room.answer_with(look, told);
        assert_eq!(room.job().stage, Stage::Failed);
        assert!(room.job().trouble.contains(words), "{}", room.job().trouble);
    }
}

#[test]
fn a_fallback_is_shown_as_what_was_painted() {
    let (mut room, look) = Room::with_job(Status::Processing);
    let small = Offer { width: 832, height: 480, ..offer("image_high", true, true) };
    room.page.state.queue.offers.push(small);
    room.answer_with(look, View { kind: "image_high".into(), fallback_of: "sdxl_high".into(), ..done() });
    let (fetch, _) = room.asked();
    room.answer(fetch, Ok(Answer::Picture(PNG.to_vec())));
    let picture = room.page.state.picture().unwrap();
    assert_eq!((picture.recipe.width, picture.recipe.height), (832, 480));
    assert_eq!(picture.origin.as_ref().unwrap().label, "Label of image_high");
    room.page.tell(Msg::Recall);
    let form = &room.page.state.form;
    assert!(form.is_high && form.kind == "sdxl_high" && form.size == "256x128", "{form:?}");
}

#[test]
fn jobs_are_few_and_those_at_their_end_make_room() {
    let mut room = Room::open();
    room.page.state.form.count = "8".into();
    room.page.paint("a lake", 1);
    room.page.paint("a lake", 20);
    assert_eq!((room.all_asked().len(), room.page.state.queue.jobs.len()), (16, JOBS_MAX));
    room.page.state.form.count = "1".into();
    room.page.paint("a lake", 40);
    assert!(room.all_asked().is_empty() && room.page.state.error.as_ref().unwrap().contains("16"));
    let oldest = room.page.state.queue.jobs.last_mut().unwrap();
    oldest.stage = Stage::Failed;
    let key = oldest.kept.key.clone();
    room.page.paint("a lake", 40);
    assert_eq!((room.all_asked().len(), room.page.state.queue.jobs.len()), (1, JOBS_MAX));
    assert!(room.page.state.queue.job(&key).is_none());
}

#[test]
fn a_deleted_picture_does_not_come_back_with_a_reload() {
    let (mut room, look) = Room::with_job(Status::Processing);
    room.answer_with(look, done());
    let (fetch, _) = room.asked();
    room.answer(fetch, Ok(Answer::Picture(PNG.to_vec())));
    let id = room.page.state.history[0].id.clone();
    room.page.tell(Msg::Delete(id));
    assert!(room.page.state.queue.jobs.is_empty() && room.remembered().is_empty());
}

#[test]
fn the_rooms_queue_is_counted_while_somebody_wants_to_know() {
    let lines = |page: &Page| {
        let is_line = |effect: &&Effect| matches!(effect, Effect::Ask { request: Request::Line, .. });
        page.effects.iter().filter(is_line).count()
    };
    let mut room = Room::open();
    assert!(room.page.state.queue.is_watching, "high quality is chosen");
    room.answer(Request::Line, Ok(Answer::Line(Line { waiting: 2, processing: 1 })));
    assert_eq!((room.page.state.queue.line.unwrap().waiting, lines(&room.page)), (2, 1));
    let is_round = |effect: &Effect| matches!(effect, Effect::Ask { request: Request::Offers, .. });
    assert!(room.page.effects.iter().any(is_round), "who is there for it changes as well");
    room.page.effects.clear();
    room.answer(Request::Line, Err(Trouble::Unreachable("offline".into())));
    assert!(!room.page.effects.iter().any(is_round), "a relay that is away is not asked more");
    room.answer(Request::Line, Ok(Answer::Line(Line { waiting: 2, processing: 1 })));
    room.page.effects.clear();
    room.page.tell(Msg::Hidden(true));
    room.answer(Request::Line, Ok(Answer::Line(Line::default())));
    assert_eq!(lines(&room.page), 0, "nobody looks");
    room.page.tell(Msg::Hidden(false));
    assert_eq!(lines(&room.page), 1);
    room.page.tell(Msg::Edited(Form { is_high: false, ..room.page.state.form.clone() }));
    room.answer(Request::Line, Ok(Answer::Line(Line::default())));
    assert_eq!((lines(&room.page), room.page.state.queue.is_watching), (1, false));
}

#[test]
fn another_room_has_another_queue_and_the_way_back_is_told() {
    let (mut room, _) = Room::with_job(Status::Queued);
    room.page.tell(Msg::NewRoom([3; 16]));
    assert!(room.page.state.queue.jobs.is_empty() && room.page.state.queue.offers.is_empty());
    assert!(room.page.state.remarks[0].text.contains("stays in the queue"));
    let opened =
        |effect: &Effect| matches!(effect, Effect::OpenQueue { room, .. } if *room == room_name(&link()).unwrap());
    room.page.tell(Msg::Fragment(format!("#{SECRET}")));
    assert!(room.page.effects.iter().any(opened));
    room.page.paint("a lake", 7);
    assert_eq!(room.page.state.queue.asked, 1, "keys are never used twice");

    fn link() -> protocol::RoomLink {
        protocol::RoomLink::parse(&format!("https://relay.example/#{SECRET}")).unwrap()
    }
}

#[test]
fn hostile_words_of_a_relay_stay_text_and_end() {
    let markup = "<img src=x onerror=alert(1)>";
    let (mut room, look) = Room::with_job(Status::Queued);
    let told = View {
        worker: format!("\u{202e}{markup}"),
        route: "x".repeat(1 << 20),
        files: vec!["y".repeat(1 << 20)],
        ..view(Status::Processing)
    };
    room.answer_with(look, told);
    let view = room.job().view.as_ref().unwrap();
    assert_eq!(view.worker, markup);
    assert!(view.route.chars().count() <= EXPLANATION_CHARACTERS_MAX + 1 && view.files.is_empty());
    let strange = Offer { label: String::new(), note: "z".repeat(1 << 20), ..offer("sdxl_high", true, false) };
    room.answer(Request::Offers, Ok(Answer::Offers(vec![strange])));
    let offer = &room.page.state.queue.offers[0];
    assert_eq!(offer.label, "sdxl_high");
    assert!(offer.note.chars().count() <= 401);
}
