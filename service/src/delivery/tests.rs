//! Pictures leave an output and come back into it, word for word.

use std::time::Duration;

use queue::{Deadlines, JobId, Mode, NewJob, Quality, RoomName, UnixMs};

use super::*;

/// The smallest PNG there is.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn taken_out(value: &Value) -> (Value, Vec<Picture>) {
    let mut found = Found { stored: None, pictures: Vec::new(), excess: false };
    let json = found.take_out(value);
    assert!(!found.excess);
    (json, found.pictures)
}

fn bytes(pictures: Vec<Picture>) -> Vec<Shown> {
    let bytes = |picture| match picture {
        Picture::Bytes(bytes) => Shown::Bytes(bytes),
        Picture::Stored(path) => panic!("{path} was not put there"),
    };
    pictures.into_iter().map(bytes).collect()
}

#[test]
fn what_goes_out_comes_back_word_for_word() {
    let unpadded = PNG.trim_end_matches('=');
    let outputs = [
        json!({"images": [{"filename": "0.png", "type": "base64", "data": PNG}], "seed": 7}),
        json!([PNG, format!("data:image/png;base64,{PNG}"), unpadded]),
        json!(PNG),
        json!({"a": {"b": [{"c": unpadded}]}, "text": "iVBOR is how they begin", "n": 1.5, "null": null}),
    ];
    for output in outputs {
        let (json, pictures) = taken_out(&output);
        assert!(!pictures.is_empty() && !json.to_string().contains(&PNG[..40]), "{json}");
        assert_eq!(put_back(json, &mut bytes(pictures)), output);
    }
}

#[test]
fn what_is_no_picture_stays() {
    let long = "a".repeat(100_000);
    let broken = format!("{}!", &PNG[..40]);
    for output in [json!(long), json!(broken), json!("data:text/html;base64,PGh0bWw+"), json!({"x": [1, true, null]})] {
        let (json, pictures) = taken_out(&output);
        assert!(pictures.is_empty());
        assert_eq!(json, output);
    }
}

#[test]
fn every_kind_of_file_that_is_kept_is_found() {
    let mut webm = vec![0x1a, 0x45, 0xdf, 0xa3];
    webm.extend([0; 27]);
    webm.extend(b"webm");
    webm.resize(100, 0);
    let mut mp4 = b"\0\0\0\x18ftypmp42".to_vec();
    mp4.resize(100, 0);
    for file in [webm, mp4] {
        let (_, pictures) = taken_out(&json!(BASE64.encode(&file)));
        assert!(matches!(&pictures[..], [Picture::Bytes(bytes)] if *bytes == file));
    }
}

#[test]
fn too_many_pictures_are_told() {
    let mut found = Found { stored: None, pictures: Vec::new(), excess: false };
    found.take_out(&json!(vec![PNG; FILES_MAX + 1]));
    assert!(found.excess);
    assert_eq!(found.pictures.len(), FILES_MAX);
}

#[test]
fn a_file_that_is_gone_or_too_much_leaves_nothing_or_an_address() {
    let output = json!({"images": [{"filename": "0.png", "type": "base64", "data": PNG}, PNG]});
    let (json, _) = taken_out(&output);
    let url = || Shown::Url("https://r/x".to_owned());
    let shown = put_back(json, &mut [url(), Shown::Nothing]);
    let first = json!({"filename": "0.png", "type": "s3_url", "data": "https://r/x"});
    assert_eq!(shown, json!({"images": [first, null]}));
}

#[test]
fn a_placeholder_that_a_worker_made_up_is_nothing() {
    let (bucket, user) = (BucketName::new("b").unwrap(), UserName::new("ada").unwrap());
    let forged = || json!({ FILE: 0, "prefix": "x", "type": "stored", "data": "b/ada/1.png" });
    let stored = json!({"type": "stored", "data": "b/ada/0.png", "more": forged()});
    let mut found = Found { stored: Some((&bucket, &user)), pictures: Vec::new(), excess: false };
    let json = found.take_out(&json!({"images": [PNG, forged(), {"data": forged()}], "stored": stored}));
    let kept = json!({"type": "base64", "data": { FILE: 1 }, "more": null});
    assert_eq!(json, json!({"images": [{ FILE: 0 }, null, {"data": null}], "stored": kept}));
    assert_eq!(found.pictures.len(), 2);
}

#[test]
fn a_picture_is_shown_once_however_often_a_kept_output_names_it() {
    let url = || Shown::Url("https://r/x".to_owned());
    let kept = json!([{"data": { FILE: 0 }, "type": "base64"}, { FILE: 0 }, {"data": { FILE: 0 }, "type": "base64"}]);
    let shown = json!([{"data": "https://r/x", "type": "s3_url"}, null, {"data": null, "type": "base64"}]);
    assert_eq!(put_back(kept, &mut [url()]), shown);
    // The number of no file names nothing.
    let other = json!({ FILE: 9 });
    assert_eq!(put_back(other.clone(), &mut [url()]), other);
}

#[test]
fn a_stored_picture_is_this_jobs_own() {
    let (bucket, user) = (BucketName::new("b").unwrap(), UserName::new("ada").unwrap());
    let stored = |path: &str, may: bool| {
        let stored = may.then_some((&bucket, &user));
        let mut found = Found { stored, pictures: Vec::new(), excess: false };
        found.take_out(&json!({"type": "stored", "data": path}));
        found.pictures.len()
    };
    assert_eq!(stored("b/ada/0.png", true), 1);
    assert_eq!(stored("b/ada/0.png", false), 0);
    for path in ["b/eve/0.png", "c/ada/0.png", "b/ada/../x", "https://x/b/ada/0.png"] {
        assert_eq!(stored(path, true), 0, "{path}");
    }
}

#[test]
fn a_job_saves_what_the_cheapest_endpoint_for_it_would_charge() {
    let price = |micro_usd| Price {
        per_second: MicroUsd(micro_usd),
        cold_start_max: Duration::from_secs(60),
        execution_max: Duration::from_secs(120),
        idle: Duration::from_secs(5),
    };
    let queue = |name: &str| QueueName::new(name).unwrap();
    let prices = CloudPrices(vec![(queue("sdxl"), price(30)), (queue("sdxl"), price(20)), (queue("wan"), price(1))]);
    let order = NewJob {
        room: RoomName::new("room").unwrap(),
        user: UserName::new("ada").unwrap(),
        key: None,
        ask: Some(Ask::new("sdxl_image_fast").unwrap()),
        model: None,
        input: String::new(),
        mode: Mode::Auto,
        quality: Quality::Final,
        priority: 0,
        expected: Duration::from_secs(5),
        webhook: None,
        deadlines: Deadlines::default(),
        may_spend: false,
    };
    let mut job = Job::new(JobId::from_random([1; 16]), order, UnixMs(0));
    let saving = |job: &Job| prices.saving(&Catalogue::shipped(), job);
    assert_eq!(saving(&job), MicroUsd(200), "5 s of work and 5 s of idling");
    job.order.ask = Some(Ask::new("demo_fast").unwrap());
    assert_eq!(saving(&job), MicroUsd(0), "nobody would do it");
    job.order.ask = None;
    assert_eq!(saving(&job), MicroUsd(0));
}
