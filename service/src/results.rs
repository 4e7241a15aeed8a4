//! Keeps pictures and clips, `bucket/user/file`: private, readable and writable only by addresses that the relay has signed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, StatusCode, header};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use futures::TryStreamExt;
use hmac::{Hmac, Mac};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use queue::{BucketName, StoredFile, UnixMs, UserName};
use sha2::Sha256;
use tracing::error;

use crate::error::ApiError;
use crate::limits::{CLIP_BYTES_MAX, PICTURE_BYTES_MAX, SNIFFED_BYTES, UPLOAD_SIGNATURE_TIME};
use crate::settings::{ResultsSettings, SettingsError, secret, wrong};

/// What a file is, by its first bytes: nothing else is kept, and nothing is believed that says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A picture.
    Png,
    /// A picture.
    Jpeg,
    /// A picture.
    WebP,
    /// A clip.
    Mp4,
    /// A clip.
    WebM,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Png, Self::Jpeg, Self::WebP, Self::Mp4, Self::WebM];

    /// Looks at a file's first bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let start = &bytes[..bytes.len().min(SNIFFED_BYTES)];
        let is_webm = || start.windows(4).any(|window| window == b"webm");
        match start {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Self::Mp4),
            [0x1a, 0x45, 0xdf, 0xa3, ..] if is_webm() => Some(Self::WebM),
            _ => None,
        }
    }

    /// The kind of a MIME type.
    pub fn of_mime(mime: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.mime() == mime)
    }

    /// Its MIME type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
            Self::Mp4 => "video/mp4",
            Self::WebM => "video/webm",
        }
    }

    /// The ending of its files' names.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Mp4 => "mp4",
            Self::WebM => "webm",
        }
    }

    /// Whether it moves.
    pub fn is_clip(self) -> bool {
        match self {
            Self::Png | Self::Jpeg | Self::WebP => false,
            Self::Mp4 | Self::WebM => true,
        }
    }

    /// The most bytes of one.
    pub fn bytes_max(self) -> usize {
        if self.is_clip() { CLIP_BYTES_MAX } else { PICTURE_BYTES_MAX }
    }

    /// The kind that a file's name says, as this relay gave it.
    pub fn of_name(file: &str) -> Option<Self> {
        let (_, ending) = file.rsplit_once('.')?;
        Self::ALL.into_iter().find(|kind| kind.ending() == ending)
    }
}

/// Why a file is not read or kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultsError {
    /// There is none.
    #[error("there is no such file")]
    NotFound,
    /// There is one, and a file never changes.
    #[error("this file is there already; ask for another address to upload to")]
    Exists,
    /// It is too large.
    #[error("the file has more than {0} bytes; make it smaller")]
    TooLarge(usize),
    /// It is not what is kept here.
    #[error("the file is not what it should be; PNG, JPEG, WebP, MP4 and WebM are kept, each under its own type")]
    WrongKind,
    /// The address was not signed by this relay.
    #[error("this address was not given out by this relay")]
    Forged,
    /// The address was signed for a time that is over.
    #[error("this address was good until some time ago; ask for a new one")]
    Late,
    /// The result store failed.
    #[error("the result store failed; try again later")]
    Store,
}

impl From<ResultsError> for ApiError {
    fn from(error: ResultsError) -> Self {
        let message = error.to_string();
        match error {
            ResultsError::NotFound => Self::not_found(message),
            ResultsError::Exists => Self::conflict(message),
            ResultsError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message),
            ResultsError::WrongKind => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_type", message),
            ResultsError::Forged | ResultsError::Late => Self::forbidden(message),
            ResultsError::Store => Self::ours(message),
        }
    }
}

/// A file and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The file.
    pub bytes: Bytes,
    /// What it is.
    pub kind: FileKind,
}

/// Where files are, and who signs their addresses.
enum Place {
    /// In a folder or in memory: the relay hands them out itself.
    Own { key: [u8; 32], base: String },
    /// In a bucket, whose server checks signatures.
    Bucket(Arc<AmazonS3>),
}

/// The result store.
pub struct Results {
    store: Arc<dyn ObjectStore>,
    place: Place,
}

impl fmt::Debug for Results {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Results({})", self.store)
    }
}

impl Results {
    /// Opens what the settings name: a bucket, a folder, or memory if there is no data folder. `key` signs the addresses of
    /// this relay's own files, which begin with `base`.
    pub fn open(
        settings: &ResultsSettings,
        data: Option<&Path>,
        key: [u8; 32],
        base: &str,
    ) -> Result<Self, SettingsError> {
        if let Some(bucket) = &settings.bucket {
            let store = Arc::new(open_bucket(settings, bucket)?);
            return Ok(Self { store: store.clone(), place: Place::Bucket(store) });
        }
        let place = Place::Own { key, base: base.to_owned() };
        let folder = settings.folder.clone().or_else(|| Some(data?.join("results")));
        let Some(folder) = folder else { return Ok(Self { store: Arc::new(InMemory::new()), place }) };
        let failed = |reason| SettingsError::Unreadable { setting: "results", path: folder.clone(), reason };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| failed(std::io::Error::other(error)))?;
        // A picture that a job names is there after a power cut, like the job.
        Ok(Self { store: Arc::new(store.with_fsync(true)), place })
    }

    /// Keeps a file under a name of its own; gives `bucket/user/file`.
    pub async fn put(&self, bucket: &BucketName, user: &UserName, bytes: &[u8]) -> Result<String, ResultsError> {
        let kind = FileKind::of(bytes).ok_or(ResultsError::WrongKind)?;
        let file = new_file(bucket, user, kind);
        self.write(&file, kind, Bytes::copy_from_slice(bytes)).await?;
        Ok(file.to_string())
    }

    /// Keeps what was uploaded to an address of [`Self::sign_put`], which has been checked.
    pub async fn put_at(&self, file: &StoredFile, bytes: Bytes) -> Result<FileKind, ResultsError> {
        let kind = FileKind::of_name(&file.file).ok_or(ResultsError::WrongKind)?;
        self.write(file, kind, bytes).await?;
        Ok(kind)
    }

    /// A whole file.
    pub async fn get(&self, path: &str) -> Result<Kept, ResultsError> {
        let kind = self.inspect(path).await?;
        let got = self.store.get(&location(path)?).await.map_err(failed)?;
        let bytes = got.bytes().await.map_err(failed)?;
        if bytes.len() > kind.bytes_max() {
            Err(ResultsError::TooLarge(kind.bytes_max()))
        } else {
            Ok(Kept { bytes, kind })
        }
    }

    /// What a file is, after a look at its size and first bytes: whoever uploaded it past the relay may have lied.
    pub async fn inspect(&self, path: &str) -> Result<FileKind, ResultsError> {
        let location = location(path)?;
        let size = self.store.head(&location).await.map_err(failed)?.size;
        if size == 0 {
            return Err(ResultsError::WrongKind);
        }
        let start = self.store.get_range(&location, 0..size.min(SNIFFED_BYTES as u64)).await.map_err(failed)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let kind = FileKind::of(&start).ok_or(ResultsError::WrongKind)?;
        if size > kind.bytes_max() { Err(ResultsError::TooLarge(kind.bytes_max())) } else { Ok(kind) }
    }

    /// Removes a file, if it is there.
    pub async fn delete(&self, path: &str) -> Result<(), ResultsError> {
        match self.store.delete(&location(path)?).await.map_err(failed) {
            Ok(()) | Err(ResultsError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes files that were written before `before`; says how many.
    pub async fn forget(&self, before: UnixMs) -> Result<u64, ResultsError> {
        let before = i64::try_from(before.0).unwrap_or(i64::MAX);
        let mut all = self.store.list(None);
        let mut forgotten = 0;
        while let Some(file) = all.try_next().await.map_err(failed)? {
            if file.last_modified.timestamp_millis() < before {
                self.delete(file.location.as_ref()).await?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    /// An address at which anybody may read a file for so long.
    pub async fn sign_get(&self, path: &str, time: Duration, now: UnixMs) -> Result<String, ResultsError> {
        match &self.place {
            Place::Own { key, base } => Ok(own_url(key, base, "GET", path, now.after(time))),
            Place::Bucket(store) => {
                let url = store.signed_url(Method::GET, &location(path)?, time).await.map_err(failed)?;
                Ok(url.into())
            }
        }
    }

    /// An address to which one file of this MIME type may be uploaded for [`UPLOAD_SIGNATURE_TIME`], and the file's path.
    pub async fn sign_put(
        &self,
        bucket: &BucketName,
        user: &UserName,
        mime: &str,
        now: UnixMs,
    ) -> Result<(String, String), ResultsError> {
        let kind = FileKind::of_mime(mime).ok_or(ResultsError::WrongKind)?;
        let path = new_file(bucket, user, kind).to_string();
        let url = match &self.place {
            Place::Own { key, base } => own_url(key, base, "PUT", &path, now.after(UPLOAD_SIGNATURE_TIME)),
            Place::Bucket(store) => {
                // Bound to its type, and to being new: an address that was used up changes nothing.
                let options = SignedUrlOptions::new()
                    .with_signed_header(header::CONTENT_TYPE, HeaderValue::from_static(kind.mime()))
                    .with_signed_header(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
                let location = location(&path)?;
                let url = store.signed_url_opts(Method::PUT, &location, UPLOAD_SIGNATURE_TIME, &options).await;
                url.map_err(failed)?.into()
            }
        };
        Ok((url, path))
    }

    /// Whether this relay has signed `method` on `path` until `until`, and that is not over.
    pub fn verify(
        &self,
        method: &str,
        path: &str,
        until: UnixMs,
        signature: &str,
        now: UnixMs,
    ) -> Result<(), ResultsError> {
        let Place::Own { key, .. } = &self.place else { return Err(ResultsError::Forged) };
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| ResultsError::Forged)?;
        mac(key, method, path, until).verify_slice(&signature).map_err(|_| ResultsError::Forged)?;
        if now > until { Err(ResultsError::Late) } else { Ok(()) }
    }

    async fn write(&self, file: &StoredFile, kind: FileKind, bytes: Bytes) -> Result<(), ResultsError> {
        if FileKind::of(&bytes) != Some(kind) {
            return Err(ResultsError::WrongKind);
        }
        if bytes.len() > kind.bytes_max() {
            return Err(ResultsError::TooLarge(kind.bytes_max()));
        }
        let options = PutOptions::from(PutMode::Create);
        let location = location(&file.to_string())?;
        self.store.put_opts(&location, bytes.into(), options).await.map_err(failed)?;
        Ok(())
    }
}

fn open_bucket(settings: &ResultsSettings, bucket: &str) -> Result<AmazonS3, SettingsError> {
    let key_secret = secret("results", settings.secret_file.as_deref(), settings.secret_env.as_deref())?;
    let (Some(key_id), Some(key_secret)) = (&settings.key_id, key_secret) else {
        return Err(wrong("results", "a bucket needs key_id, and secret_file or secret_env".to_owned()));
    };
    let region = settings.region.as_deref().unwrap_or("us-east-1");
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_access_key_id(key_id)
        .with_secret_access_key(key_secret);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.as_str()).with_allow_http(endpoint.starts_with("http://"));
    }
    builder.build().map_err(|error| wrong("results", error.to_string()))
}

fn new_file(bucket: &BucketName, user: &UserName, kind: FileKind) -> StoredFile {
    let name = BASE32_NOPAD.encode(&rand::random::<[u8; 16]>()).to_lowercase();
    StoredFile { bucket: bucket.clone(), user: user.clone(), file: format!("{name}.{}", kind.ending()) }
}

fn location(path: &str) -> Result<object_store::path::Path, ResultsError> {
    let file = StoredFile::parse(path).ok_or(ResultsError::NotFound)?;
    object_store::path::Path::parse(file.to_string()).map_err(|_| ResultsError::NotFound)
}

fn own_url(key: &[u8; 32], base: &str, method: &str, path: &str, until: UnixMs) -> String {
    let signature = BASE64URL_NOPAD.encode(&mac(key, method, path, until).finalize().into_bytes());
    format!("{base}/api/files/{path}?until={}&signature={signature}", until.0)
}

fn mac(key: &[u8; 32], method: &str, path: &str, until: UnixMs) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(format!("manyhands file address 1\n{method}\n{path}\n{}", until.0).as_bytes());
    mac
}

fn failed(failure: object_store::Error) -> ResultsError {
    match failure {
        object_store::Error::NotFound { .. } => ResultsError::NotFound,
        object_store::Error::AlreadyExists { .. } => ResultsError::Exists,
        _ => {
            error!(%failure, "the result store failed");
            ResultsError::Store
        }
    }
}

#[cfg(test)]
mod tests;
