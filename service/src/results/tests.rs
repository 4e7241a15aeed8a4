//! What is kept, under which names, and whose addresses open it.

use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn bucket() -> BucketName {
    BucketName::new("pictures").unwrap()
}

fn user() -> UserName {
    UserName::new("ada").unwrap()
}

fn results() -> Results {
    Results::open(&ResultsSettings::default(), None, [7; 32], "http://relay").unwrap()
}

fn png(bytes: usize) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.resize(bytes, 0);
    png
}

/// Until and signature of an address of ours.
fn signed(url: &str) -> (UnixMs, String) {
    let (_, query) = url.split_once("?until=").unwrap();
    let (until, signature) = query.split_once("&signature=").unwrap();
    (UnixMs(until.parse().unwrap()), signature.to_owned())
}

#[test]
fn a_file_is_what_its_first_bytes_say() {
    let kinds: [(&[u8], Option<FileKind>); 9] = [
        (b"\x89PNG\r\n\x1a\n....", Some(FileKind::Png)),
        (b"\xff\xd8\xff\xe0", Some(FileKind::Jpeg)),
        (b"RIFF....WEBPVP8 ", Some(FileKind::WebP)),
        (b"....ftypisom", Some(FileKind::Mp4)),
        (b"\x1a\x45\xdf\xa3....B\x82\x84webm", Some(FileKind::WebM)),
        (b"\x1a\x45\xdf\xa3....B\x82\x88matroska", None),
        (b"<svg xmlns=", None),
        (b"GIF89a", None),
        (b"", None),
    ];
    for (bytes, kind) in kinds {
        assert_eq!(FileKind::of(bytes), kind, "{bytes:?}");
    }
    for kind in FileKind::ALL {
        assert_eq!(FileKind::of_mime(kind.mime()), Some(kind));
        assert_eq!(FileKind::of_name(&format!("a.{}", kind.ending())), Some(kind));
    }
    assert_eq!(FileKind::of_mime("image/svg+xml"), None);
}

#[tokio::test]
async fn a_file_is_kept_in_a_folder_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let results = Results::open(&ResultsSettings::default(), Some(folder.path()), [7; 32], "http://relay").unwrap();
    let path = results.put(&bucket(), &user(), &png(1000)).await.unwrap();
    assert!(path.starts_with("pictures/ada/") && path.ends_with(".png"), "{path}");
    assert!(folder.path().join("results").join(&path).is_file());
    let kept = results.get(&path).await.unwrap();
    assert_eq!((kept.bytes.len(), kept.kind), (1000, FileKind::Png));
    results.delete(&path).await.unwrap();
    results.delete(&path).await.unwrap();
    assert_eq!(results.get(&path).await, Err(ResultsError::NotFound));
}

#[tokio::test]
async fn nothing_else_is_kept_and_nothing_larger() {
    let results = results();
    for bytes in [b"".as_slice(), b"<html>", b"GIF89a"] {
        assert_eq!(results.put(&bucket(), &user(), bytes).await, Err(ResultsError::WrongKind));
    }
    let fits = results.put(&bucket(), &user(), &png(PICTURE_BYTES_MAX)).await;
    assert!(fits.is_ok());
    let larger = results.put(&bucket(), &user(), &png(PICTURE_BYTES_MAX + 1)).await;
    assert_eq!(larger, Err(ResultsError::TooLarge(PICTURE_BYTES_MAX)));
    for path in ["", "a", "a/b", "../../etc/passwd", "pictures/../x.png", "pictures/ada/.x", "a/b/c/d"] {
        assert_eq!(results.get(path).await, Err(ResultsError::NotFound), "{path}");
    }
}

#[tokio::test]
async fn a_file_that_was_put_past_the_relay_is_looked_at_before_it_is_used() {
    let results = results();
    let put = async |name: &str, bytes: Vec<u8>| {
        let path = object_store::path::Path::parse(format!("pictures/ada/{name}")).unwrap();
        results.store.put(&path, bytes.into()).await.unwrap();
        results.inspect(&format!("pictures/ada/{name}")).await
    };
    assert_eq!(put("a.png", b"<html>".to_vec()).await, Err(ResultsError::WrongKind));
    assert_eq!(put("b.png", png(PICTURE_BYTES_MAX + 1)).await, Err(ResultsError::TooLarge(PICTURE_BYTES_MAX)));
    assert_eq!(put("c.png", Vec::new()).await, Err(ResultsError::WrongKind));
    assert_eq!(put("d.png", png(10)).await, Ok(FileKind::Png));
}

#[tokio::test]
async fn an_address_opens_one_file_for_one_thing_until_its_time_is_over() {
    let results = results();
    let path = results.put(&bucket(), &user(), &png(10)).await.unwrap();
    let url = results.sign_get(&path, MINUTE, NOW).await.unwrap();
    assert!(url.starts_with(&format!("http://relay/api/files/{path}?")), "{url}");
    let (until, signature) = signed(&url);
    let verify = |method, path: &str, until, signature: &str, now| results.verify(method, path, until, signature, now);
    assert_eq!(verify("GET", &path, until, &signature, NOW.after(MINUTE)), Ok(()));
    let late = NOW.after(MINUTE + Duration::from_millis(1));
    assert_eq!(verify("GET", &path, until, &signature, late), Err(ResultsError::Late));
    assert_eq!(verify("GET", &path, until.after(MINUTE), &signature, NOW), Err(ResultsError::Forged));
    assert_eq!(verify("PUT", &path, until, &signature, NOW), Err(ResultsError::Forged));
    assert_eq!(verify("GET", "pictures/ada/other.png", until, &signature, NOW), Err(ResultsError::Forged));
    assert_eq!(verify("GET", &path, until, &signature[1..], NOW), Err(ResultsError::Forged));
    assert_eq!(verify("GET", &path, until, "", NOW), Err(ResultsError::Forged));
    let other = Results::open(&ResultsSettings::default(), None, [8; 32], "http://relay").unwrap();
    assert_eq!(other.verify("GET", &path, until, &signature, NOW), Err(ResultsError::Forged));
}

#[tokio::test]
async fn an_upload_is_of_the_type_that_was_asked_for_and_never_replaced() {
    let results = results();
    let (_, path) = results.sign_put(&bucket(), &user(), "image/png", NOW).await.unwrap();
    let file = StoredFile::parse(&path).unwrap();
    let jpeg = Bytes::from_static(b"\xff\xd8\xff\xe0");
    assert_eq!(results.put_at(&file, jpeg).await, Err(ResultsError::WrongKind));
    assert_eq!(results.put_at(&file, png(10).into()).await, Ok(FileKind::Png));
    assert_eq!(results.put_at(&file, png(20).into()).await, Err(ResultsError::Exists));
    assert_eq!(results.get(&path).await.unwrap().bytes.len(), 10);
    let svg = results.sign_put(&bucket(), &user(), "image/svg+xml", NOW).await;
    assert_eq!(svg, Err(ResultsError::WrongKind));
}

#[tokio::test]
async fn old_files_are_forgotten() {
    let results = results();
    let path = results.put(&bucket(), &user(), &png(10)).await.unwrap();
    assert_eq!(results.forget(UnixMs(0)).await, Ok(0));
    assert_eq!(results.forget(UnixMs(u64::MAX)).await, Ok(1));
    assert_eq!(results.get(&path).await, Err(ResultsError::NotFound));
}

#[tokio::test]
async fn a_buckets_server_signs_and_its_secret_is_told_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "canarysecret").unwrap();
    let settings = ResultsSettings {
        bucket: Some("kept".to_owned()),
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        key_id: Some("me".to_owned()),
        secret_file: Some(secret_file),
        ..ResultsSettings::default()
    };
    let results = Results::open(&settings, None, [7; 32], "http://relay").unwrap();
    let get = results.sign_get("pictures/ada/a.png", MINUTE, NOW).await.unwrap();
    assert!(get.starts_with("http://127.0.0.1:9/kept/pictures/ada/a.png?"), "{get}");
    assert!(get.contains("X-Amz-Expires=60") && get.contains("X-Amz-Signature="), "{get}");
    let (put, path) = results.sign_put(&bucket(), &user(), "image/png", NOW).await.unwrap();
    assert!(put.contains(&path) && put.contains("content-type") && put.contains("if-none-match"), "{put}");
    for text in [get, put, format!("{results:?}")] {
        assert!(!text.contains("canarysecret"), "{text}");
    }
    let own = results.verify("GET", "pictures/ada/a.png", NOW, "", NOW);
    assert_eq!(own, Err(ResultsError::Forged), "the relay hands out nothing of a bucket");
    let keyless = Results::open(&ResultsSettings { key_id: None, ..settings }, None, [7; 32], "");
    assert!(keyless.unwrap_err().to_string().contains("key_id"));
}
