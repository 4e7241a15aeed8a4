//! What the page promises, told to the update function as a person and a session would.

use super::*;
use crate::page::state::{Activity, Preview};
use crate::words::{EngineState, LinkState, Recipe};

const BASE: &str = "https://relay.example";
pub(super) const SECRET: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A page with its session open, and all effects since the last look.
pub(super) struct Page {
    pub(super) state: State,
    pub(super) effects: Vec<Effect>,
}

impl Page {
    pub(super) fn open(fragment: &str) -> Self {
        Self::open_with(Start { fragment: fragment.into(), ..Start::default() })
    }

    pub(super) fn open_with(start: Start) -> Self {
        let mut page = Self { state: State::new(), effects: Vec::new() };
        page.tell(Msg::Opened(Box::new(Start { base: BASE.into(), ..start })));
        page.tell(Msg::Joined(page.state.generation));
        page
    }

    pub(super) fn tell(&mut self, msg: Msg) {
        self.effects.extend(update(&mut self.state, msg));
    }

    fn news(&mut self, news: News) {
        self.tell(Msg::Told(self.state.generation, Box::new(news), 1_000));
    }

    pub(super) fn paint(&mut self, prompt: &str, seed: u64) {
        let form = Form { prompt: prompt.into(), seed: seed.to_string(), ..self.state.form.clone() };
        self.tell(Msg::Paint(form, 0));
    }

    pub(super) fn planned(&mut self) {
        let recipe = self.state.painting.as_ref().unwrap().recipe.clone();
        self.news(plan(recipe));
    }

    pub(super) fn painted(&mut self, id: &str) {
        let recipe = self.state.painting.as_ref().map(|painting| painting.recipe.clone()).unwrap_or_default();
        self.news(finished(id, recipe));
    }

    /// The wishes told since the last look.
    pub(super) fn wishes(&mut self) -> Vec<Wish> {
        let wish = |effect| if let Effect::Wish(wish) = effect { Some(wish) } else { None };
        std::mem::take(&mut self.effects).into_iter().filter_map(wish).collect()
    }

    fn seeds_asked(&mut self) -> Vec<u64> {
        let seed = |wish| if let Wish::Paint(recipe) = wish { recipe.seed } else { None };
        self.wishes().into_iter().filter_map(seed).collect()
    }
}

fn plan(recipe: Recipe) -> News {
    News::Planned { sentence: "Two workers, 8 steps.".into(), explanation: "a\nb".into(), recipe, units: 10 }
}

fn finished(id: &str, recipe: Recipe) -> News {
    News::Painted {
        png: vec![1, 2, 3],
        pixels_sha256: id.into(),
        latent_sha256: "00".into(),
        recipe,
        workers: Vec::new(),
        retries: 0,
        took_ms: 5,
    }
}

fn progress(fraction: f32) -> News {
    News::Progress { fraction, eta_s: Some(2.0), units: 1, step: Some(1), doing: "denoising".into() }
}

fn look(width: u32, height: u32, bytes: usize) -> News {
    News::Preview { width, height, rgba: vec![9; bytes] }
}

#[test]
fn a_link_with_a_secret_is_joined_at_once_and_lends() {
    let page = Page::open(SECRET);
    let link = format!("{BASE}/#{SECRET}");
    assert_eq!(page.state.room.as_deref(), Some(link.as_str()));
    let [Effect::Join { generation: 1, link: Some(joined), options }, Effect::OpenQueue { generation: 1, .. }] =
        page.effects.as_slice()
    else {
        panic!("{:?}", page.effects)
    };
    assert_eq!((joined, options.lend, options.base.as_str()), (&link, true, BASE));
}

#[test]
fn without_a_secret_the_page_paints_alone_and_lends_nothing() {
    let mut page = Page::open("");
    assert!(matches!(page.effects.as_slice(), [Effect::Join { link: None, options, .. }] if !options.lend));
    page.paint("a lake", 7);
    assert_eq!(page.seeds_asked(), [7]);
}

#[test]
fn a_damaged_secret_gets_a_sentence_and_the_page_stays_usable() {
    let mut page = Page::open("not-a-secret");
    assert!(page.state.room_error.as_ref().unwrap().contains("damaged"));
    assert!(page.state.room.is_none());
    page.paint("a lake", 7);
    assert_eq!(page.seeds_asked(), [7]);
    page.tell(Msg::NewRoom([3; 16]));
    assert!(page.state.room.is_some() && page.state.room_error.is_none());
}

#[test]
fn a_new_room_goes_into_the_address_and_leaves_the_old_session() {
    let mut page = Page::open("");
    page.effects.clear();
    page.tell(Msg::NewRoom([0; 16]));
    let [Effect::Address { fragment, relay: None }, Effect::Join { generation: 2, link: Some(link), .. }, queue] =
        page.effects.as_slice()
    else {
        panic!("{:?}", page.effects)
    };
    assert!(matches!(queue, Effect::OpenQueue { generation: 2, link: opened, .. } if opened == link));
    assert_eq!(link, &format!("{BASE}/#{fragment}"));
    page.tell(Msg::Told(1, Box::new(News::Failed { text: "old news".into() }), 0));
    assert_eq!(page.state.error, None, "news of the session that was left change nothing");
    page.effects.clear();
    let fragment = page.state.room.clone().unwrap().split_once('#').unwrap().1.to_owned();
    page.tell(Msg::Fragment(format!("#{fragment}")));
    assert!(page.effects.is_empty(), "the address follows the room, not the other way round");
}

#[test]
fn a_link_of_another_relay_is_entered_and_its_relay_stays_in_the_address() {
    let mut page = Page::open("");
    page.effects.clear();
    page.tell(Msg::EnterRoom(format!("  https://other.example/#{SECRET} ")));
    assert_eq!(
        page.effects[0],
        Effect::Address { fragment: SECRET.into(), relay: Some("https://other.example".into()) }
    );
    page.tell(Msg::EnterRoom("https://other.example/".into()));
    assert!(page.state.room_error.as_ref().unwrap().contains("no secret"));
    assert!(page.state.room.is_some(), "a bad link does not throw the person out of the room");
}

#[test]
fn the_page_follows_its_address_into_a_room_and_out_of_it() {
    let mut page = Page::open("");
    page.tell(Msg::Fragment(format!("#{SECRET}")));
    assert!(page.state.room.as_ref().unwrap().ends_with(SECRET));
    page.tell(Msg::Fragment("#damaged".into()));
    assert!(page.state.room.is_none() && page.state.room_error.is_some());
    page.tell(Msg::Fragment(format!("#{SECRET}")));
    page.tell(Msg::Fragment(String::new()));
    assert!(page.state.room.is_none() && page.state.room_error.is_none());
    let joins = page.effects.iter().filter(|effect| matches!(effect, Effect::Join { .. })).count();
    assert_eq!(joins, 5, "one session each for alone, in, out, in, out");
}

#[test]
fn a_refused_room_leaves_a_page_that_paints_alone() {
    let mut page = Page::open(SECRET);
    page.tell(Msg::JoinRefused(1, "no WebTransport here".into()));
    assert_eq!(page.state.room_error.as_deref(), Some("no WebTransport here"));
    assert!(matches!(page.effects.last(), Some(Effect::Join { generation: 2, link: None, .. })));
    page.tell(Msg::JoinRefused(2, "no crypto here".into()));
    assert_eq!(page.state.error.as_deref(), Some("no crypto here"));
    page.effects.clear();
    page.paint("a lake", 7);
    assert!(matches!(&page.effects[1], Effect::Join { generation: 3, .. }), "the next wish tries again");
    assert_eq!(page.seeds_asked(), [7]);
}

#[test]
fn cancel_always_works() {
    type Before = fn(&mut Page);
    let asked: Before = |page| page.paint("a lake", 7);
    let planned: Before = |page| {
        page.paint("a lake", 7);
        page.planned();
    };
    let growing: Before = |page| {
        page.paint("a lake", 7);
        page.planned();
        page.news(progress(0.5));
        page.news(look(2, 2, 16));
    };
    let joining: Before = |page| {
        page.tell(Msg::NewRoom([1; 16]));
        page.paint("a lake", 7);
    };
    for before in [asked, planned, growing, joining] {
        let mut page = Page::open("");
        page.state.form.count = "8".into();
        before(&mut page);
        page.effects.clear();
        page.tell(Msg::Cancel);
        assert!(page.effects.contains(&Effect::KeepUnderway(None)));
        assert_eq!(page.wishes(), [Wish::Cancel]);
        assert!(page.state.painting.is_none() && page.state.waiting.is_empty());
        page.news(News::Cancelled);
        page.paint("another", 9);
        page.planned();
        page.painted("b");
        assert_eq!(page.state.picture().unwrap().id, "b");
    }
    let mut page = Page::open("");
    page.effects.clear();
    page.tell(Msg::Cancel);
    assert!(page.effects.is_empty(), "nothing to cancel is no fault");
}

#[test]
fn late_news_of_a_picture_given_up_change_nothing() {
    let mut page = Page::open("");
    page.paint("a lake", 7);
    page.planned();
    page.tell(Msg::Cancel);
    page.paint("a fire", 8);
    page.news(progress(0.9));
    page.news(look(2, 2, 16));
    let given_up = Recipe { prompt: "a lake".into(), seed: Some(7), ..Recipe::default() };
    page.news(plan(given_up));
    page.news(News::Cancelled);
    let painting = page.state.painting.as_ref().expect("the end of the first picture is not the end of the second");
    assert!(!painting.is_planned && painting.fraction == 0.0 && painting.preview.is_none());
    page.planned();
    page.news(progress(0.5));
    assert_eq!(page.state.painting.as_ref().unwrap().fraction, 0.5);
}

#[test]
fn the_same_recipe_may_be_given_up_and_asked_for_again() {
    let mut page = Page::open("");
    for _ in 0..3 {
        page.paint("a lake", 7);
        page.tell(Msg::Cancel);
    }
    page.paint("a lake", 7);
    let recipe = page.state.painting.as_ref().unwrap().recipe.clone();
    for _ in 0..3 {
        page.news(plan(recipe.clone()));
        page.news(News::Cancelled);
    }
    page.news(plan(recipe.clone()));
    assert_eq!(page.state.activity(), Activity::Painting);
    page.news(finished("a", recipe));
    assert_eq!(page.state.activity(), Activity::Idle);
}

#[test]
fn a_session_that_does_not_tell_the_end_of_a_given_up_picture_blocks_nothing() {
    let mut page = Page::open("");
    page.paint("a lake", 7);
    page.tell(Msg::Cancel);
    page.paint("a fire", 8);
    page.planned();
    page.painted("b");
    assert_eq!(page.state.picture().unwrap().id, "b");
}

#[test]
fn several_pictures_are_painted_one_after_the_other_with_consecutive_seeds() {
    let mut page = Page::open("");
    page.state.form.count = "3".into();
    page.paint("a lake", 40);
    for (index, id) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(page.seeds_asked(), [40 + index as u64]);
        assert_eq!(page.state.painting.as_ref().unwrap().number, (index as u32 + 1, 3));
        page.tell(Msg::Edited(Form { count: "8".into(), ..page.state.form.clone() }));
        page.planned();
        page.painted(id);
    }
    assert!(page.effects.contains(&Effect::KeepUnderway(None)));
    assert_eq!(page.state.activity(), Activity::Idle);
    assert_eq!(page.state.history.iter().map(|picture| picture.id.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
}

#[test]
fn a_failure_ends_the_row_says_why_and_leaves_the_page_usable() {
    let mut page = Page::open("");
    page.state.form.count = "3".into();
    page.paint("a lake", 40);
    page.news(News::Failed { text: "nobody here can paint".into() });
    assert_eq!(page.state.error.as_deref(), Some("nobody here can paint"));
    assert!(page.state.painting.is_none() && page.state.waiting.is_empty());
    page.effects.clear();
    page.paint("a lake", 41);
    assert_eq!(page.state.error, None);
    assert_eq!(page.seeds_asked(), [41]);
}

#[test]
fn a_picture_given_up_by_the_session_ends_too() {
    let mut page = Page::open("");
    page.paint("a lake", 40);
    page.planned();
    page.news(News::Cancelled);
    assert_eq!(page.state.activity(), Activity::Idle);
}

#[test]
fn a_reload_amid_a_picture_is_told_and_the_same_recipe_is_offered() {
    let mut page = Page::open(SECRET);
    page.state.form.count = "3".into();
    page.paint("a lake", 40);
    page.planned();
    page.painted("a");
    let kept = page.effects.iter().rev().find_map(|effect| match effect {
        Effect::KeepUnderway(underway) => Some(underway.clone()),
        _ => None,
    });
    let underway = kept.flatten().unwrap();
    assert_eq!((underway.recipe.seed, underway.more), (Some(41), 1));

    let mut page = Page::open_with(Start { fragment: SECRET.into(), underway: Some(underway), ..Start::default() });
    assert!(page.state.gone.is_some() && page.state.painting.is_none(), "nothing is painted without being asked for");
    page.effects.clear();
    page.tell(Msg::PaintGone(0));
    assert_eq!(page.seeds_asked(), [41]);
    assert_eq!((page.state.waiting.len(), page.state.gone.as_ref()), (1, None));
}

#[test]
fn a_bad_field_is_pointed_at_and_nothing_is_sent() {
    let mut page = Page::open("");
    page.effects.clear();
    page.tell(Msg::Paint(Form { size: "big".into(), prompt: "a lake".into(), ..Form::default() }, 0));
    assert_eq!(page.state.field_at_fault, Some(Field::Size));
    assert!(page.effects.contains(&Effect::Point(Field::Size)));
    assert!(page.wishes().is_empty());
    page.tell(Msg::Edited(Form { size: "256x128".into(), ..page.state.form.clone() }));
    assert_eq!((page.state.field_at_fault, page.state.error.as_ref()), (None, None));
}

#[test]
fn a_look_that_lies_about_its_size_is_not_shown() {
    let mut page = Page::open("");
    page.paint("a lake", 7);
    page.planned();
    for (width, height, bytes) in [(2, 2, 15), (0, 2, 0), (u32::MAX, u32::MAX, 4), (100_000, 1, 400_000)] {
        page.news(look(width, height, bytes));
        assert_eq!(page.state.painting.as_ref().unwrap().preview, None);
    }
    page.news(look(2, 3, 24));
    assert_eq!(page.state.painting.as_ref().unwrap().preview, Some(Preview { width: 2, height: 3, rgba: vec![9; 24] }));
}

#[test]
fn progress_never_runs_backwards_and_is_a_number() {
    let mut page = Page::open("");
    page.paint("a lake", 7);
    page.planned();
    for (told, shown) in [(0.4, 0.4), (0.2, 0.4), (f32::NAN, 0.4), (7.0, 1.0)] {
        page.news(progress(told));
        assert_eq!(page.state.painting.as_ref().unwrap().fraction, shown);
    }
}

#[test]
fn a_hidden_page_pauses_lending_and_goes_on_when_it_is_seen() {
    let mut page = Page::open(SECRET);
    page.tell(Msg::Hidden(true));
    page.tell(Msg::Hidden(true));
    assert_eq!(page.wishes(), [Wish::Pause(true)]);
    page.tell(Msg::PauseHidden(false));
    assert_eq!(page.wishes(), [Wish::Pause(false)]);
    page.tell(Msg::PauseHidden(true));
    page.tell(Msg::Hidden(false));
    assert_eq!(page.wishes(), [Wish::Pause(true), Wish::Pause(false)]);
}

#[test]
fn a_page_opened_in_the_background_pauses_once_its_session_is_there() {
    let mut page = Page::open_with(Start { fragment: SECRET.into(), hidden: true, ..Start::default() });
    assert_eq!(page.wishes(), [Wish::Pause(true)]);
}

#[test]
fn choices_are_told_to_the_session_and_remembered() {
    let mut page = Page::open(SECRET);
    page.effects.clear();
    page.tell(Msg::Lend(false));
    page.tell(Msg::Rename("  Ada\u{202e} ".into()));
    page.tell(Msg::Rename("Ada".into()));
    page.tell(Msg::Pledge("512".into()));
    page.tell(Msg::Pledge("a lot".into()));
    let remembered = Remembered { name: "Ada".into(), lend: Some(false), pledge: Some(512), pause_hidden: None };
    assert!(page.effects.contains(&Effect::Remember(remembered)));
    assert_eq!(page.wishes(), [Wish::Lend(false), Wish::Rename("Ada".into()), Wish::Pledge(512)]);
    assert!(page.state.remarks[0].text.contains("128"));
    assert!(!page.state.lends());
}

#[test]
fn hostile_strings_stay_text_and_end() {
    let mut page = Page::open(SECRET);
    let markup = "<img src=x onerror=alert(1)>";
    let peer = Peer { id: "12D3".into(), name: markup.into(), doing: "x".repeat(1000), ..Peer::default() };
    page.news(News::Peers { peers: vec![peer; 1000] });
    assert_eq!(page.state.peers.len(), PEERS_MAX);
    assert_eq!((page.state.peers[0].name.as_str(), page.state.peers[0].doing.chars().count()), (markup, 121));
    page.news(News::Remark { text: format!("\u{202e}{markup}\0") });
    assert_eq!(page.state.remarks[0].text, markup);
    page.news(News::Status { state: LinkState::Connected, text: "y".repeat(1 << 20) });
    assert_eq!(page.state.link.text.chars().count(), SENTENCE_CHARACTERS_MAX + 1);
    page.paint(markup, 7);
    assert_eq!(page.state.painting.as_ref().unwrap().recipe.prompt, markup, "a prompt is painted as it was written");
}

#[test]
fn remarks_are_few_and_said_once() {
    let mut page = Page::open("");
    for number in 0..100 {
        page.tell(Msg::Remark(format!("remark {}", number / 2)));
    }
    assert_eq!(page.state.remarks.len(), REMARKS_MAX);
    let id = page.state.remarks[0].id;
    page.tell(Msg::Dismiss(id));
    assert_eq!(page.state.remarks.len(), REMARKS_MAX - 1);
}

#[test]
fn recent_pictures_are_recalled_deleted_and_bounded() {
    let mut page = Page::open("");
    for number in 0..super::super::history::PICTURES_MAX as u64 + 5 {
        page.paint(&format!("lake {number}"), number);
        page.planned();
        page.painted(&format!("id{number}"));
    }
    assert_eq!(page.state.history.len(), super::super::history::PICTURES_MAX);
    assert!(page.effects.contains(&Effect::DropPictures(vec!["id4".into()])));
    page.tell(Msg::Open("id9".into()));
    assert_eq!((page.state.form.prompt.as_str(), page.state.form.seed.as_str()), ("lake 9", "9"));
    page.tell(Msg::Delete("id9".into()));
    assert!(page.state.picture().is_none());
    page.tell(Msg::ReuseSeed);
    assert_eq!(page.state.form.seed, "64", "the newest picture's seed");
    page.tell(Msg::ClearHistory);
    assert!(page.state.history.is_empty() && page.state.last_seed().is_none());
}

#[test]
fn a_full_storage_gives_up_old_pictures_and_says_so() {
    let mut page = Page::open("");
    for number in 0..4 {
        page.paint("a lake", number);
        page.planned();
        page.painted(&format!("id{number}"));
    }
    page.tell(Msg::StorageFull);
    assert_eq!(page.effects.last(), Some(&Effect::DropPictures(vec!["id1".into(), "id0".into()])));
    assert!(page.state.remarks[0].text.contains("full"));
    for _ in 0..5 {
        page.tell(Msg::StorageFull);
    }
    assert_eq!(page.state.history.len(), 1, "the newest picture stays on the screen");
}

#[test]
fn pictures_of_earlier_visits_join_those_of_this_one() {
    let mut page = Page::open("");
    page.paint("a lake", 7);
    page.planned();
    page.painted("new");
    let mut old = page.state.history[0].clone();
    old.id = "old".into();
    old.when_ms = 1;
    let copy = page.state.history[0].clone();
    page.tell(Msg::HistoryLoaded(vec![old, copy]));
    assert_eq!(page.state.history.iter().map(|picture| picture.id.as_str()).collect::<Vec<_>>(), ["new", "old"]);
}

#[test]
fn the_engine_and_the_room_are_shown_as_told() {
    let mut page = Page::open(SECRET);
    page.news(News::Engine { state: EngineState::Loading, text: "Loading the model.".into(), progress: Some((1, 2)) });
    page.news(News::Status { state: LinkState::Lost, text: "The relay is gone; Ada stays.".into() });
    assert_eq!(page.state.engine.progress, Some((1, 2)));
    assert_eq!(page.state.link.state, LinkState::Lost);
    page.paint("a lake", 7);
    assert!(!page.seeds_asked().is_empty(), "a lost relay does not keep anyone from painting");
}
