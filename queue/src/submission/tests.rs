//! What may be submitted, and what a submission becomes.

use super::*;
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;

const SEED: u64 = 77;

fn submission(json: serde_json::Value) -> Submission {
    serde_json::from_value(json).unwrap()
}

/// A submission of `ask` with one more field.
fn with(ask: &str, field: &str, value: impl Into<serde_json::Value>) -> Submission {
    let mut json = serde_json::json!({ "type": ask, "prompt": "a lake" });
    json[field] = value.into();
    submission(json)
}

fn check(submission: &Submission) -> Result<Checked, OrderError> {
    Catalogue::shipped().check(submission, SEED)
}

/// The field that is refused.
fn refused(submission: &Submission) -> &'static str {
    match check(submission).unwrap_err() {
        OrderError::Field { field, problem } => {
            assert!(!problem.is_empty());
            field
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_type_and_words_are_enough() {
    let checked = check(&submission(serde_json::json!({ "type": "sdxl_image_fast", "prompt": "a lake" }))).unwrap();
    assert_eq!(
        serde_json::to_value(&checked.order).unwrap(),
        serde_json::json!({ "task": "txt2img", "model": "sdxl", "prompt": "a lake", "width": 1024, "height": 1024,
            "steps": 15, "guidance": 6.0, "seed": SEED })
    );
    assert_eq!((checked.expected, checked.images), (Duration::from_secs(5), 1));
    assert_eq!((checked.queue.as_str(), checked.bucket.as_str()), ("sdxl", "sdxl-images"));
    assert_eq!((checked.mode, checked.quality, checked.priority), (Mode::Auto, Quality::Final, 0));
}

#[test]
fn every_shipped_type_takes_words_and_a_picture_where_it_needs_one() {
    let shipped = Catalogue::shipped();
    for one in shipped.types() {
        let words = submission(serde_json::json!({ "type": one.id, "prompt": "a lake" }));
        let picture = Submission { init_image: Some("uploads/user/a.png".to_owned()), ..words.clone() };
        let (right, wrong) = if one.needs_init_image { (&picture, &words) } else { (&words, &picture) };
        let checked = shipped.check(right, SEED).unwrap();
        assert_eq!((checked.expected, checked.order.task), (one.expected, one.task));
        assert!(shipped.check(wrong, SEED).is_err(), "{}", one.id);
    }
}

#[test]
fn an_unknown_type_and_a_missing_picture_say_what_to_do() {
    let unknown = check(&with("sdxl_image_best", "seed", 1)).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no job type sdxl_image_best; GET /api/job-types lists those that exist");
    let missing = check(&with("sdxl_img2img", "seed", 1)).unwrap_err();
    assert!(missing.to_string().starts_with("sdxl_img2img needs an init image: upload one with "), "{missing}");
}

#[test]
fn an_unknown_field_is_no_submission() {
    for json in [
        r#"{"type":"demo_fast","prompt":"a","stepz":3}"#,
        r#"{"type":"demo_fast","prompt":"a","steps":-3}"#,
        r#"{"type":"demo/fast","prompt":"a"}"#,
        r#"{"type":"demo_fast","prompt":"a","mode":"cheap"}"#,
        r#"{"type":"demo_fast","prompt":"a","idempotency_key":"a b"}"#,
        r#"{"prompt":"a"}"#,
    ] {
        assert!(serde_json::from_str::<Submission>(json).is_err(), "{json}");
    }
}

#[test]
fn numbers_of_a_submission_replace_the_types_within_its_limits() {
    let checked = check(&with("demo_fast", "steps", 16)).unwrap();
    assert_eq!(
        (checked.order.steps, checked.expected),
        (16, Duration::from_secs(6)),
        "twice the steps take twice as long"
    );
    assert_eq!(check(&with("demo_fast", "width", 256)).unwrap().expected, Duration::from_secs(6));
    assert_eq!(check(&with("demo_fast", "guidance", 0.0)).unwrap().order.guidance, 0.0);
    assert_eq!(check(&with("demo_fast", "seed", u64::MAX)).unwrap().order.seed, u64::MAX);
    for (field, values) in [
        ("steps", vec![0, 51, i64::from(u32::MAX)]),
        ("width", vec![0, 56, 100, 4104, i64::from(u32::MAX)]),
        ("height", vec![0, 129, i64::from(u32::MAX)]),
        ("images", vec![0, 5]),
        ("priority", vec![-6, 6, i64::from(i32::MIN), i64::from(i32::MAX)]),
    ] {
        for value in values {
            assert_eq!(refused(&with("demo_fast", field, value)), field, "{value}");
        }
    }
    assert_eq!(refused(&with("demo_fast", "width", 4096)), "width", "too many pixels together");
    for priority in [-5, 5] {
        assert_eq!(check(&with("demo_fast", "priority", priority)).unwrap().priority, priority);
    }
}

#[test]
fn broken_numbers_are_refused() {
    let plain = with("sdxl_img2img", "init_image", "uploads/user/a.png");
    for guidance in [-0.1, 50.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(refused(&Submission { guidance: Some(guidance), ..plain.clone() }), "guidance");
    }
    for strength in [0.0, -0.5, 1.01, f32::NAN, f32::INFINITY] {
        assert_eq!(refused(&Submission { strength: Some(strength), ..plain.clone() }), "strength");
    }
    assert_eq!(check(&plain).unwrap().order.strength, Some(0.75));
    assert_eq!(check(&Submission { strength: Some(1.0), ..plain }).unwrap().order.strength, Some(1.0));
    assert_eq!(refused(&with("demo_fast", "strength", 0.5)), "strength");
    assert_eq!(refused(&with("demo_fast", "guidance", 1.0e300)), "guidance", "what becomes infinite");
}

#[test]
fn prompts_are_bounded_in_bytes_and_not_empty() {
    let long = "ä".repeat(protocol::limits::PROMPT_BYTES_MAX / 2);
    assert!(check(&with("demo_fast", "prompt", long.clone())).is_ok());
    for field in ["prompt", "negative_prompt"] {
        assert_eq!(refused(&with("demo_fast", field, long.clone() + "a")), field);
    }
    assert_eq!(refused(&with("demo_fast", "prompt", " \n")), "prompt");
    let picture = with("sdxl_img2img", "init_image", "uploads/user/a.png");
    assert!(check(&Submission { prompt: String::new(), ..picture }).is_ok(), "a picture speaks for itself");
}

#[test]
fn a_first_picture_is_only_a_file_of_the_store() {
    for path in [
        "",
        "a.png",
        "user/a.png",
        "/user/a.png",
        "uploads//a.png",
        "uploads/user/",
        "uploads/user/a/b.png",
        "uploads/user/a.png/",
        "uploads/../a.png",
        "../user/a.png",
        "uploads/user/..",
        "uploads/user/.hidden",
        "http://host/a.png",
        "http:/user/a.png?b",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "uploads/user/a%2fb.png",
        "uploads/user/a\\b.png",
        "uploads/user/a.png\n",
        "uploads/user/a.png\0",
        "uploads/us er/a.png",
        "uploads/user/ä.png",
        &format!("uploads/user/{}", "a".repeat(FILE_NAME_BYTES_MAX + 1)),
    ] {
        assert_eq!(refused(&with("sdxl_img2img", "init_image", path)), "init_image", "{path:?}");
    }
    let file = StoredFile::parse("uploads/user/a-b_1.0.png").unwrap();
    assert_eq!((file.bucket.as_str(), file.user.as_str(), file.file.as_str()), ("uploads", "user", "a-b_1.0.png"));
    assert_eq!(file.to_string(), "uploads/user/a-b_1.0.png");
}

#[test]
fn clips_go_to_the_cloud_or_are_refused_at_once() {
    assert_eq!(check(&with("video_fast", "seed", 1)).unwrap().mode, Mode::Cloud);
    let drafted = Submission { mode: Mode::Cloud, ..with("video_fast", "quality", "draft") };
    assert_eq!(check(&drafted).unwrap().mode, Mode::Cloud);
    for refused in [with("video_fast", "mode", "local"), with("video_fast", "quality", "draft")] {
        let error = check(&refused).unwrap_err();
        assert!(matches!(error, OrderError::NoEngine { .. }));
        assert!(error.to_string().contains(CLOUD_ALONE), "{error}");
    }
    for mode in [Mode::Auto, Mode::Local, Mode::Cloud] {
        let checked = check(&Submission { mode, ..with("demo_fast", "quality", "draft") }).unwrap();
        assert_eq!((checked.mode, checked.quality), (mode, Quality::Draft));
    }
}

#[test]
fn many_pictures_are_jobs_with_seeds_in_a_row_and_keys_of_their_own() {
    let key = "a".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
    let mut asked = with("demo_fast", "idempotency_key", key.clone());
    asked.images = 4;
    asked.seed = Some(u64::MAX);
    let (room, user) = (RoomName::new("room").unwrap(), UserName::new("user").unwrap());
    let jobs = check(&asked).unwrap().jobs(&room, &user);
    let seeds: Vec<u64> = jobs.iter().map(|job| serde_json::from_str::<Order>(&job.input).unwrap().seed).collect();
    assert_eq!(seeds, [u64::MAX, 0, 1, 2]);
    let keys: std::collections::BTreeSet<_> = jobs.iter().map(|job| job.key.clone().unwrap()).collect();
    assert_eq!((keys.len(), jobs[0].key.as_ref().unwrap().as_str()), (4, key.as_str()));
    assert_eq!(jobs, check(&asked).unwrap().jobs(&room, &user), "asking again gives the same keys");
    assert_eq!((jobs[1].model.as_ref().unwrap().as_str(), &jobs[1].room), ("demo", &room));
    asked.idempotency_key = None;
    assert!(check(&asked).unwrap().jobs(&room, &user).iter().all(|job| job.key.is_none()));
}

#[test]
fn falling_back_keeps_words_and_seed_and_ends() {
    let shipped = Catalogue::shipped();
    let asked = Submission { negative_prompt: "fog".to_owned(), ..with("sdxl_image_premium", "seed", 5) };
    let asked = Submission { steps: Some(60), ..asked };
    let checked = shipped.check(&asked, SEED).unwrap();
    let (to, order, expected) = shipped.fall_back(&checked.order, &checked.ask).unwrap();
    assert_eq!((to.as_str(), expected), ("image_high", Duration::from_secs(90)));
    let as_asked = Submission { ask: to.clone(), steps: None, ..asked };
    assert_eq!(order, shipped.check(&as_asked, SEED).unwrap().order, "as if that had been asked for");
    assert_eq!(shipped.fall_back(&order, &to), None);
    assert_eq!(shipped.fall_back(&order, &Ask::new("gone").unwrap()), None, "a type of an older catalogue");
    let picture = Order { init_image: Some("uploads/user/a.png".to_owned()), ..checked.order };
    assert_eq!(shipped.fall_back(&picture, &checked.ask), None, "a picture is never lost on the way");
}

#[test]
fn whatever_is_checked_stays_within_its_types_limits() {
    let shipped = Catalogue::shipped();
    let numbers = [0, 1, 7, 8, 64, 96, 128, 384, 480, 1024, 1280, 4096, u32::MAX];
    let mut taken = 0;
    for one in shipped.types() {
        for (steps, width, height) in numbers
            .iter()
            .flat_map(|steps| numbers.iter().map(move |width| (*steps, *width)))
            .flat_map(|(steps, width)| numbers.iter().map(move |height| (steps, width, *height)))
        {
            let mut asked = submission(serde_json::json!({ "type": one.id, "prompt": "a lake" }));
            asked.init_image = one.needs_init_image.then(|| "uploads/user/a.png".to_owned());
            (asked.steps, asked.width, asked.height) = (Some(steps), Some(width), Some(height));
            let Ok(checked) = shipped.check(&asked, SEED) else { continue };
            let order = checked.order;
            assert!((1..=one.limits.steps).contains(&order.steps));
            assert!(u64::from(order.width) * u64::from(order.height) <= u64::from(one.limits.pixels));
            assert!(order.width % 8 == 0 && order.height % 8 == 0 && order.width.min(order.height) >= 64);
            assert!(checked.expected > Duration::ZERO);
            taken += 1;
        }
    }
    assert!(taken > 100, "{taken}");
}
